/* outfile.h: a file that one rank writes for people or their tools: beside its name, and under it when it is whole. */
#ifndef EXPERTMESH_OUTFILE_H
#define EXPERTMESH_OUTFILE_H

#include "options.h"

/* Are the two one file, which is there or will be, however they are spelt? Either may be NULL: then not. */
bool em_outfile_same(const char *a, const char *b);

/* Does writing to path, by way of path.partial, write over another file?
 * other may be NULL: then not. */
bool em_outfile_over(const char *path, const char *other);

/* A file that is read must not be written over. input: NULL: none is. */
bool em_outfile_spare(const char *path, const char *input, em_status *status);

/* May the file be written, by --force and its folder? Never over a file that is an argument of the call. */
bool em_outfile_check(const em_call *call, const char *path, em_status *status);

/* Writes what the file holds. A failed write may be left to em_outfile_write, which sees it in ferror(out). */
typedef bool em_outfile_fill(FILE *out, void *what, em_status *status);

bool em_outfile_write(const char *path, em_outfile_fill *fill, void *what, em_status *status);

#endif
