#include "expertmesh/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { PIECE = 1 << 22 };

typedef struct seal {
    char word[8];
    uint64_t sum;
} seal;

static const char word[8] = {'E', 'M', 's', 'e', 'a', 'l', 'e', 'd'};

/* All `bytes` from offset on; false at the file's end, too. */
static bool read_all(int file, void *out, int64_t bytes, int64_t offset)
{
    for (char *to = out; bytes > 0;) {
        ssize_t got = pread(file, to, (size_t)bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got == 0) errno = EIO; /* it was longer when we looked */
            return false;
        }
        to += got;
        offset += got;
        bytes -= got;
    }
    return true;
}

/* The CRC of a number and what follows it. */
static uint64_t crc_of(int64_t number, const void *data, int64_t bytes)
{
    uLong crc = crc32_z(0, (const Bytef *)&number, sizeof number);
    return bytes > 0 ? crc32_z(crc, data, (z_size_t)bytes) : crc;
}

/* This rank's part of the sum of the first `bytes` bytes. */
static bool add_pieces(MPI_Comm comm, int file, int64_t bytes, uint64_t *sum)
{
    int rank, num_ranks;
    bool good = true;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &num_ranks);
    char *data = em_alloc(PIECE, 1);
    *sum = rank == 0 ? crc_of(-1 - bytes, NULL, 0) : 0;
    for (int64_t piece = rank; good && piece * PIECE < bytes; piece += num_ranks) {
        int64_t left = bytes - piece * PIECE, size = left < PIECE ? left : PIECE;
        good = read_all(file, data, size, piece * PIECE);
        if (good) *sum += crc_of(piece, data, size) * (2 * (uint64_t)piece + 1);
    }
    free(data);
    return good;
}

/* The sum of the file without its last `past` bytes. Collective, agreed. A failure has this code. */
static bool sum_file(MPI_Comm comm, const char *path, int64_t past, int code, uint64_t *sum, em_status *status)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0 || !add_pieces(comm, file, (int64_t)info.st_size - past, sum))
        em_fail(status, code, "%s: cannot be read: %s", path, strerror(errno));
    if (file >= 0) close(file);
    if (!em_agree(comm, status)) return false;
    MPI_Allreduce(MPI_IN_PLACE, sum, 1, MPI_UINT64_T, MPI_SUM, comm);
    return true;
}

/* The last bytes as a seal; false where the file has none. */
static bool read_seal(const char *path, seal *found)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool good = file >= 0 && fstat(file, &info) == 0 && info.st_size > (off_t)sizeof *found &&
                read_all(file, found, sizeof *found, (int64_t)info.st_size - (int64_t)sizeof *found) &&
                memcmp(found->word, word, sizeof word) == 0;
    if (file >= 0) close(file);
    return good;
}

static bool append_seal(const char *path, uint64_t sum, em_status *status)
{
    struct stat info;
    seal mark = {.sum = sum};
    memcpy(mark.word, word, sizeof word);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    bool good = file >= 0 && fstat(file, &info) == 0;
    ssize_t put = good ? pwrite(file, &mark, sizeof mark, info.st_size) : 0;
    if (good && put >= 0 && put < (ssize_t)sizeof mark) errno = ENOSPC;
    good = good && put == (ssize_t)sizeof mark && fsync(file) == 0;
    if (!good) em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", path, strerror(errno));
    if (file >= 0) close(file);
    return good;
}

bool em_seal_put(MPI_Comm comm, const char *path, em_status *status)
{
    int rank;
    uint64_t sum;
    seal found;
    MPI_Comm_rank(comm, &rank);
    if (!sum_file(comm, path, 0, EM_CANNOT_WRITE, &sum, status)) return false;
    if (rank == 0) append_seal(path, sum, status);
    if (!em_agree(comm, status)) return false;
    if (!read_seal(path, &found) || found.sum != sum)
        em_fail(status, EM_CANNOT_WRITE,
                "%s: rank %d does not see the file that rank 0 wrote; it must be on a file system that all ranks share",
                path, rank);
    return em_agree(comm, status);
}

bool em_seal_check(MPI_Comm comm, const char *path, em_status *status)
{
    struct stat info;
    uint64_t sum;
    seal found;
    if (stat(path, &info) != 0)
        em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        em_fail(status, EM_NO_INPUT, "%s: not a plain file", path);
    else if (access(path, R_OK) != 0)
        em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    else if (!read_seal(path, &found))
        em_fail(status, EM_BAD_DATA, "%s: not a checkpoint, or cut short: it does not end with the seal of a whole one",
                path);
    if (!em_agree(comm, status) || !sum_file(comm, path, sizeof found, EM_NO_INPUT, &sum, status)) return false;
    if (found.sum != sum)
        em_fail(status, EM_BAD_DATA, "%s: damaged: its bytes do not add up to what its seal says", path);
    return em_agree(comm, status);
}
