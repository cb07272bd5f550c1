/* expertmesh/import.h: a checkpoint as others wrote it becomes a weights file.
 *
 * Read are the official checkpoint of Grok-1 (a folder of pickles, of which nothing is executed), safetensors (one file, or a
 * folder with an index and config.json) and GGUF of architecture grok. Numbers go from place to place in blocks: no rank ever
 * holds more than two of them, 64 MB each, or one row where that is more. Integers and scales stay as they are, bit for bit. */
#ifndef EXPERTMESH_IMPORT_H
#define EXPERTMESH_IMPORT_H

#include "expertmesh/checksum.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A checkpoint that is open, and what is to become of it. */
typedef struct em_import em_import;

/* Read the headers of a checkpoint. config (may be NULL) is a JSON file of the model's fields, which count before what the
 * checkpoint tells; follow_links: also read files that links lead to outside its folder. NULL with a status: EM_NO_INPUT where
 * there is none, EM_BAD_DATA where it is damaged or of another model. Collective over comm, which is borrowed; the status is
 * agreed. Freed with em_import_free. */
em_import *em_import_open(MPI_Comm comm, const char *path, const char *config, bool follow_links, em_status *status);
void em_import_free(em_import *import);

const char *em_import_kind(const em_import *import);        /* "safetensors" */
const em_config *em_import_config(const em_import *import); /* of the checkpoint */

/* Which layers and experts (ascending; NULL: all) the weights file gets, and how matrices are stored (NULL: as they are; f16
 * as f32). Fails where one of them is missing or has another shape than the config says. Local. */
bool em_import_choose(em_import *import, const int64_t *layers, int64_t num_layers, const int64_t *experts,
                      int64_t num_experts, const em_storage *storage, em_status *status);
/* The model that the file will hold: config and forms. After em_import_choose. */
const em_source *em_import_target(const em_import *import);

typedef struct em_imported {
    int64_t blocks, there_before; /* blocks in all, and those that an interrupted import had written */
    double bytes;                 /* of weights and scales */
} em_imported;

/* Write it. While the file is made it is path.partial, and path.partial.blocks keeps what of it is written; after an
 * interruption the same call goes on from there, on any number of ranks. Collective; the status is agreed. progress (may be NULL)
 * hears of bytes of this rank. */
bool em_import_write(em_import *import, const char *path, em_progress *progress, void *context, em_imported *done,
                     em_status *status);

#ifdef __cplusplus
}
#endif
#endif
