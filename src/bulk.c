/* Writing in place, without HDF5; declared in store.h. */
#include "expertmesh/standing.h"
#include "expertmesh/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool em_bulk_open(em_bulk *bulk, const char *path, em_status *status)
{
    *bulk = (em_bulk){.file = open(path, O_WRONLY | O_CLOEXEC), .path = path};
    if (bulk->file >= 0) return true;
    return em_fail(status, EM_CANNOT_WRITE, "%s: cannot be opened for writing: %s", path, strerror(errno));
}

bool em_bulk_reserve(const em_bulk *bulk, em_status *status)
{
    struct stat info;
    em_bytes_text size;
    if (fstat(bulk->file, &info) != 0 || fallocate(bulk->file, 0, 0, info.st_size > 0 ? info.st_size : 1) == 0)
        return true;
    if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG) return true; /* cannot reserve here: writing will tell */
    return em_fail(status, EM_CANNOT_WRITE, "%s: no room for its %s: %s", bulk->path,
                   em_bytes((double)info.st_size, size), strerror(errno));
}

static bool write_bytes(const em_bulk *bulk, const em_dataset *dataset, int64_t offset, size_t bytes, const char *data,
                        em_status *status)
{
    enum { LARGE = 1 << 19 };
    int64_t begin = offset, large = bytes >= LARGE ? (int64_t)bytes : 0;
    while (bytes > 0) {
        ssize_t put = pwrite(bulk->file, data, bytes, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return em_fail(status, EM_CANNOT_WRITE, "%s: %s cannot be written: %s", bulk->path, dataset->name,
                           put == 0 ? "nothing was taken" : strerror(errno));
        data += put;
        offset += put;
        bytes -= (size_t)put;
    }
    /* Off to the disk while the next is made. Whether it arrived, em_bulk_sync tells. */
    if (large > 0) sync_file_range(bulk->file, begin, large, SYNC_FILE_RANGE_WRITE);
    return true;
}

bool em_bulk_write(const em_bulk *bulk, const em_dataset *dataset, int64_t width, int64_t row, int64_t rows,
                   int64_t col, int64_t cols, const void *data, int64_t stride, em_status *status)
{
    int64_t size = (int64_t)em_type_bytes(dataset->type);
    bool one = cols == width && stride == width;
    int64_t calls = one ? (rows > 0) : rows, length = one ? rows * cols : cols;
    bool good = true;
    for (int64_t i = 0; good && i < calls; i++)
        good = write_bytes(bulk, dataset, dataset->offset + ((row + i) * width + col) * size, (size_t)(length * size),
                           (const char *)data + i * stride * size, status);
    return good;
}

bool em_bulk_check(const em_bulk *bulk, const em_dataset *dataset, int64_t begin, int64_t bytes, const void *data,
                   em_status *status)
{
    enum { PIECE = 1 << 20 };
    char *found = em_alloc(PIECE, 1);
    bool same = true;
    for (int64_t at = 0; same && at < bytes;) {
        size_t some = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
        em_beat();
        ssize_t got = pread(bulk->file, found, some, (off_t)(dataset->offset + begin + at));
        if (got < 0 && errno == EINTR) continue;
        same = got > 0 && memcmp(found, (const char *)data + at, (size_t)got) == 0;
        at += got > 0 ? got : 0;
    }
    free(found);
    return same ||
           em_fail(status, EM_CANNOT_WRITE, "%s: %s does not read back as it was written", bulk->path, dataset->name);
}

/* What the disk still has to take, piece by piece: so it is seen that it moves. A file that has no such pieces is left to
 * fdatasync. */
static bool wait_for_disk(int file)
{
    enum { PIECE = 64 << 20, ALL = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER };
    struct stat info;
    if (fstat(file, &info) != 0) return true;
    for (off_t at = 0; at < info.st_size; at += PIECE) {
        if (sync_file_range(file, at, PIECE, ALL) != 0) return errno != EIO && errno != ENOSPC && errno != EDQUOT;
        em_beat();
    }
    return true;
}

bool em_bulk_sync(const em_bulk *bulk, em_status *status)
{
    if (fdatasync(bulk->file) == 0 || errno == EINVAL || errno == EROFS) return true;
    return em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", bulk->path, strerror(errno));
}

bool em_bulk_close(em_bulk *bulk, em_status *status)
{
    if (bulk->file < 0) return true;
    em_wait("the disk");
    bool good = wait_for_disk(bulk->file) ||
                em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", bulk->path, strerror(errno));
    good = good && em_bulk_sync(bulk, status);
    if (close(bulk->file) != 0 && good)
        good = em_fail(status, EM_CANNOT_WRITE, "%s: cannot be closed: %s", bulk->path, strerror(errno));
    bulk->file = -1;
    em_wait(NULL);
    return good;
}
