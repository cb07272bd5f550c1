#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static disk_faults faults;
static atomic_long calls;

void disk_set(disk_faults wanted)
{
    faults = wanted;
    atomic_store(&calls, 0);
}

long disk_calls(void)
{
    return atomic_load(&calls);
}

static void copy(const char *name, int folder)
{
    int from = open(name, O_RDONLY | O_CLOEXEC), to = openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ssize_t some = 1;
    while (from >= 0 && to >= 0 && some > 0) some = copy_file_range(from, NULL, to, NULL, SIZE_MAX >> 1, 0);
    if (some != 0) abort();
    close(from);
    close(to);
}

/* What a process that is killed here leaves in its working folder. Other threads' writes wait. */
static void keep_files(long number)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%ld", faults.keep, number);
    int folder = mkdir(path, 0700) == 0 ? open(path, O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *here = opendir(".");
    if (folder < 0 || !here) abort();
    for (struct dirent *entry; (entry = readdir(here));)
        if (entry->d_type == DT_REG) copy(entry->d_name, folder);
    closedir(here);
    close(folder);
}

/* The number of a call of the kind that faults are for; else 0. */
static long count(disk_call call)
{
    if (call != faults.call) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (number == faults.kill) kill(getpid(), SIGKILL);
    if (faults.keep) keep_files(number);
    return number;
}

static bool is_full(long number)
{
    if (faults.full == 0 || number < faults.full) return false;
    errno = ENOSPC;
    return true;
}

static ssize_t write_wrong(int file, const char *data, size_t bytes, off_t offset)
{
    char *copy = malloc(bytes);
    if (!copy) return -1;
    memcpy(copy, data, bytes);
    size_t at = bytes * (size_t)(faults.at > 0 ? faults.at : 50) / 100;
    copy[at] = (char)(copy[at] ^ 4);
    ssize_t written = syscall(SYS_pwrite64, file, copy, bytes, offset);
    free(copy);
    return written;
}

/* ---- in place of the C library's ---- */

static ssize_t write_at(int file, const void *data, size_t bytes, off_t offset)
{
    long number = count(DISK_PWRITE);
    if (is_full(number)) return -1;
    if (faults.wrong > 0 && number == faults.wrong) return write_wrong(file, data, bytes, offset);
    return syscall(SYS_pwrite64, file, data, bytes, offset);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset)
{
    static pthread_mutex_t one_by_one = PTHREAD_MUTEX_INITIALIZER;
    if (faults.slow > 0) usleep((useconds_t)faults.slow);
    pthread_mutex_lock(&one_by_one);
    ssize_t written = write_at(file, data, bytes, offset);
    pthread_mutex_unlock(&one_by_one);
    return written;
}

int fsync(int file)
{
    return is_full(count(DISK_FSYNC)) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    if (is_full(count(DISK_FDATASYNC))) return -1;
    if (!faults.lost) return (int)syscall(SYS_fdatasync, file);
    errno = EIO;
    return -1;
}

int rename(const char *from, const char *to)
{
    return is_full(count(DISK_RENAME)) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int fallocate(int file, int mode, off_t offset, off_t bytes)
{
    return is_full(count(DISK_FALLOCATE)) ? -1 : (int)syscall(SYS_fallocate, file, mode, offset, bytes);
}

int posix_fallocate(int file, off_t offset, off_t bytes)
{
    return fallocate(file, 0, offset, bytes) == 0 ? 0 : errno;
}

/* ---- preloaded ---- */

static long number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

static const char *const names[DISK_CALLS] = {"pwrite", "fsync", "fdatasync", "rename", "fallocate"};

static disk_call call_of(const char *name)
{
    for (disk_call c = 0; c < DISK_CALLS; c++)
        if (strncmp(name, names[c], strlen(names[c])) == 0) return c;
    abort(); /* no fault that a test could wait for */
}

__attribute__((constructor)) static void read_variable(void)
{
    const char *text = getenv("DISK");
    if (!text) return;
    const char *call = strstr(text, "call=");
    if (call) faults.call = call_of(call + strlen("call="));
    faults.slow = number_after(text, "slow=");
    faults.kill = number_after(text, "kill=");
    faults.full = number_after(text, "full=");
    faults.lost = number_after(text, "lost=");
    faults.wrong = number_after(text, "wrong=");
    faults.at = number_after(text, "at=");
    faults.tell = getenv("DISK_TELL");
    faults.keep = getenv("DISK_KEEP");
}

__attribute__((destructor)) static void tell_calls(void)
{
    FILE *file = faults.tell ? fopen(faults.tell, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", disk_calls());
    fclose(file);
}
