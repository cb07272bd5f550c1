/* disk.h: a disk that is slow, gets full, or loses its writer, for a suite that links disk.c, or for any program that the
 * dynamic linker loads it into (LD_PRELOAD): then the variable DISK says what is to happen, as "slow=300,kill=17" or
 * "call=rename,full=2". */
#ifndef EXPERTMESH_DISK_H
#define EXPERTMESH_DISK_H

/* The C library's calls, by their names without posix_. */
typedef enum disk_call { DISK_PWRITE, DISK_FSYNC, DISK_FDATASYNC, DISK_RENAME, DISK_FALLOCATE, DISK_CALLS } disk_call;

/* What happens at the calls of one kind in this process, counted from 1 on all threads together, and at some others. 0: nothing. */
typedef struct disk_faults {
    disk_call call;
    long kill;        /* at this one the process is killed, before anything of it is done */
    long full;        /* from this one on, none succeeds */
    long slow;        /* microseconds that each write takes more */
    long lost;        /* no fdatasync succeeds */
    long wrong;       /* one byte of this write is another */
    long at;          /* after so many hundredths of it; 0: half */
    const char *tell; /* at the end, write their number to this file (DISK_TELL); NULL: do not */
    const char *keep; /* before each, copy what is in the working folder to NUMBER in this one (DISK_KEEP) */
} disk_faults;

/* Change it while no other thread writes; the count begins anew. */
void disk_set(disk_faults faults);

/* Calls since then. */
long disk_calls(void);

#endif
