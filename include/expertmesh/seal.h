/* expertmesh/seal.h: a mark at the end of a file that says that all of it is there, and with which bits.
 *
 * The last 16 bytes are a word and a sum: the CRCs (zlib's crc32) of the file's pieces, each with its number, added up. So
 * the ranks share the pieces out, and the sum is the same on any number of them. HDF5 does not look at what follows its
 * own data, so a sealed file opens with any reader. */
#ifndef EXPERTMESH_SEAL_H
#define EXPERTMESH_SEAL_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Seal a file whose bytes are all on the disk, or at least written; the seal is on the disk at the end. Collective; the
 * status is agreed. EM_CANNOT_WRITE, also where a rank does not see the file that rank 0 sees. */
bool em_seal_put(MPI_Comm comm, const char *path, em_status *status);

/* Is the file sealed, and does the seal fit? Collective; the status is agreed: EM_NO_INPUT where there is no such file,
 * EM_BAD_DATA where it has no seal, or another sum. */
bool em_seal_check(MPI_Comm comm, const char *path, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
