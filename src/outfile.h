/* outfile.h: a file that one rank writes for people or their tools: beside its name, and under it when it is whole. */
#ifndef EXPERTMESH_OUTFILE_H
#define EXPERTMESH_OUTFILE_H

#include "options.h"

/* May the file be written, by --force and its folder? Never in the place of a file that the call reads. */
bool em_outfile_check(const em_call *call, const char *path, em_status *status);

/* Writes what the file holds. A failed write may be left to em_outfile_write, which sees it in ferror(out). */
typedef bool em_outfile_fill(FILE *out, void *what, em_status *status);

bool em_outfile_write(const char *path, em_outfile_fill *fill, void *what, em_status *status);

#endif
