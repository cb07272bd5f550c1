/* disk.h: a disk that is slow, gets full, or loses its writer, for a suite that links disk.c, or for any program that the
 * dynamic linker loads it into (LD_PRELOAD): then the variable DISK says what is to happen, as "slow=300,kill=17". */
#ifndef EXPERTMESH_DISK_H
#define EXPERTMESH_DISK_H

/* What happens at the writes of this process (pwrite, counted from 1 on all threads together) and where it waits for the
 * disk (fdatasync). 0: nothing. */
typedef struct disk_faults {
    long slow;        /* microseconds that each takes more */
    long kill;        /* at this one the process is killed, before anything of it is written */
    long full;        /* from this one on, none succeeds */
    long lost;        /* no fdatasync succeeds */
    long wrong;       /* one byte of this one is written with another bit */
    long at;          /* after so many hundredths of it; 0: half */
    const char *tell; /* at the end, write their number to this file (DISK_TELL); NULL: do not */
} disk_faults;

/* Change it while no other thread writes; the count begins anew. */
void disk_set(disk_faults faults);

/* Writes since then. */
long disk_writes(void);

#endif
