#include "disk.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static disk_faults faults;
static atomic_long writes;

void disk_set(disk_faults wanted)
{
    faults = wanted;
    atomic_store(&writes, 0);
}

long disk_writes(void)
{
    return atomic_load(&writes);
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

/* In place of the C library's. */
ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset)
{
    long number = atomic_fetch_add(&writes, 1) + 1;
    if (faults.slow > 0) usleep((useconds_t)faults.slow);
    if (number == faults.kill) kill(getpid(), SIGKILL);
    if (faults.full > 0 && number >= faults.full) {
        errno = ENOSPC;
        return -1;
    }
    if (number == faults.wrong) return write_wrong(file, data, bytes, offset);
    return syscall(SYS_pwrite64, file, data, bytes, offset);
}

int fdatasync(int file)
{
    if (!faults.lost) return (int)syscall(SYS_fdatasync, file);
    errno = EIO;
    return -1;
}

static long number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

__attribute__((constructor)) static void read_variable(void)
{
    const char *text = getenv("DISK");
    if (!text) return;
    faults.slow = number_after(text, "slow=");
    faults.kill = number_after(text, "kill=");
    faults.full = number_after(text, "full=");
    faults.lost = number_after(text, "lost=");
    faults.wrong = number_after(text, "wrong=");
    faults.at = number_after(text, "at=");
    faults.tell = getenv("DISK_TELL");
}

__attribute__((destructor)) static void tell_writes(void)
{
    FILE *file = faults.tell ? fopen(faults.tell, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", disk_writes());
    fclose(file);
}
