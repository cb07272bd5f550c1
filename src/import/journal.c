#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int file, const char *path, const void *data, int64_t bytes, int64_t offset, em_status *status)
{
    const char *from = data;
    while (bytes > 0) {
        ssize_t put = pwrite(file, from, (size_t)bytes, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", path,
                           put == 0 ? "nothing was taken" : strerror(errno));
        from += put;
        offset += put;
        bytes -= put;
    }
    return true;
}

bool em_journal_create(const char *path, const char *text, int64_t num_blocks, em_status *status)
{
    int64_t length = (int64_t)strlen(text) + 1;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) return em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    bool good = write_all(file, path, text, length, 0, status);
    if (good && ftruncate(file, length + num_blocks * (int64_t)sizeof(em_record)) != 0)
        good = em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    close(file);
    return good;
}

static bool read_all(int file, void *out, int64_t bytes, int64_t offset)
{
    char *to = out;
    while (bytes > 0) {
        ssize_t got = pread(file, to, (size_t)bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        offset += got;
        bytes -= got;
    }
    return true;
}

bool em_journal_read(const char *path, const char *text, int64_t num_blocks, em_record *record)
{
    int64_t length = (int64_t)strlen(text) + 1, records = num_blocks * (int64_t)sizeof *record;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return false;
    struct stat info;
    char *found = em_alloc(length, 1);
    bool same = fstat(file, &info) == 0 && S_ISREG(info.st_mode) && (int64_t)info.st_size == length + records &&
                read_all(file, found, length, 0) && memcmp(found, text, (size_t)length) == 0 &&
                read_all(file, record, records, length);
    free(found);
    close(file);
    return same;
}

bool em_journal_open(em_journal *journal, const char *path, const char *text, em_status *status)
{
    *journal = (em_journal){.file = open(path, O_WRONLY | O_CLOEXEC), .start = (int64_t)strlen(text) + 1, .path = path};
    return journal->file >= 0 || em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
}

bool em_journal_note(const em_journal *journal, int64_t block, const em_record *record, em_status *status)
{
    return write_all(journal->file, journal->path, record, (int64_t)sizeof *record,
                     journal->start + block * (int64_t)sizeof *record, status);
}

void em_journal_close(em_journal *journal)
{
    if (journal->file >= 0) close(journal->file);
    journal->file = -1;
}
