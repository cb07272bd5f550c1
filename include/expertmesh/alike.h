/* expertmesh/alike.h: are all ranks the same program, and do they read the same weights? Asked at the start, before ranks do
 * anything together that would not fit. All of it is collective over comm, and the status is agreed. */
#ifndef EXPERTMESH_ALIKE_H
#define EXPERTMESH_ALIKE_H

#include "expertmesh/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Must be one version and revision of the program (which are its own words) and of this library, of one compiler, byte order and
 * word length, on one MPI. EM_USAGE names the first rank that is not as rank 0, its host, and both programs. Asked first of all:
 * whatever else ranks compare may differ in form. */
bool em_alike_program(MPI_Comm comm, const char *version, const char *revision, em_status *status);

/* A failure that some ranks have and others do not says which, and on which host; then as em_agree. */
bool em_agree_where(MPI_Comm comm, em_status *status);

/* Must be one weights file, as far as its size, config, table of datasets (names, types, shapes, places) and a few numbers of
 * each, at places that rank 0 draws, can tell. EM_BAD_DATA names the first rank that reads another file, its host, and what
 * differs. Reads some kilobytes of each dataset. */
bool em_alike_weights(MPI_Comm comm, const em_source *source, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
