/* expertmesh/checksum.h: a checksum for each dataset of a weights file, stored beside them, and their comparison with what the
 * file holds now.
 *
 * The checksum is CRC-32 as zlib has it, of the dataset's bytes in order: those of parts can be put together, so ranks work out
 * their parts by themselves; and any program can repeat it (Python: zlib.crc32(file["embedding"][...].tobytes())). It finds
 * damage, not malice. Dataset /crc32 holds them as 64-bit integers, its axis /crc32_of the datasets' names. */
#ifndef EXPERTMESH_CHECKSUM_H
#define EXPERTMESH_CHECKSUM_H

#include "expertmesh/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Datasets of a file that have a checksum: those of every tensor and layer, and their scales. Pointers into the source, valid
 * as long as it is; the list is freed with free. */
const em_dataset **em_checksum_datasets(const em_source *source, int64_t *count);

/* Make place for the checksums in a file that em_source_create made; dataset tells where. Local. */
bool em_checksum_create(const em_source *source, const char *path, em_dataset *dataset, em_status *status);
/* The place for them in a file that is there. EM_BAD_DATA where it has none, or for other datasets. Local. */
bool em_checksum_find(const em_source *source, em_dataset *dataset, em_status *status);

/* Of more bytes after those that gave sum (0: none), and of two parts put together, the second of `bytes`. */
uint32_t em_checksum_add(uint32_t sum, const void *data, int64_t bytes);
uint32_t em_checksum_join(uint32_t first, uint32_t second, int64_t bytes);

/* Read all weights of a file and compare; EM_BAD_DATA names the first dataset that differs, and how many do. count (may be
 * NULL) becomes the number compared, bytes their bytes. Collective; the status is agreed. progress (may be NULL) hears of bytes. */
bool em_checksum_verify(MPI_Comm comm, const char *path, em_progress *progress, void *context, int64_t *count,
                        double *bytes, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
