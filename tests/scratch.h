/* scratch.h: a folder for the files of a suite of one process, made when the first is asked for and gone at the end. */
#ifndef EXPERTMESH_SCRATCH_H
#define EXPERTMESH_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static char scratch_folder[200];

/* The path of a file in it. Good until the sixteenth call after this one. */
static inline const char *scratch_path(const char *name)
{
    static char path[16][300];
    static int turn;
    if (!scratch_folder[0]) {
        const char *top = getenv("TMPDIR");
        snprintf(scratch_folder, sizeof scratch_folder, "%.180s/expertmesh-XXXXXX", top ? top : "/tmp");
        if (!mkdtemp(scratch_folder)) perror(scratch_folder);
    }
    turn = (turn + 1) % 16;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch_folder, name);
    return path[turn];
}

/* Write a file of length bytes; returns its path. */
static inline const char *scratch_write(const char *name, const void *bytes, size_t length)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length) perror(path);
    if (file) fclose(file);
    return path;
}

static inline int scratch_remove_one(const char *path, const struct stat *info, int flag, struct FTW *where)
{
    (void)info, (void)flag, (void)where;
    return remove(path);
}

static inline void scratch_remove(void)
{
    if (scratch_folder[0]) nftw(scratch_folder, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
