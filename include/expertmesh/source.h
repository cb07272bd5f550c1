/* expertmesh/source.h: where weights come from, a seed or a file, and the structure of a weights file. No MPI.
 *
 * A weights file holds, below an attribute format = "expertmesh-weights", the model's config as attributes of /config and
 * one dataset a tensor and layer, named by em_tensor_path_of; beside an int8 dataset lies NAME_scale. */
#ifndef EXPERTMESH_SOURCE_H
#define EXPERTMESH_SOURCE_H

#include "expertmesh/store.h"
#include "expertmesh/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How one tensor of one layer is stored. */
typedef struct em_form {
    em_storage storage;
    int64_t groups;         /* G, scale groups along a neuron's inputs (int8) */
    em_dataset data, scale; /* in the file, when there is one */
} em_form;

/* A seed, or a file. */
typedef struct em_source {
    em_config config;
    em_store *store; /* NULL: generated */
    uint64_t seed;   /* of a file: what it says, or 0 */
    em_form *form;   /* [EM_NUM_TENSORS, num_layers] */
} em_source;

/* Local. em_source_open reads the config, and checks that every tensor of such a model is there with the shape and type it
 * must have. Freed with em_source_close. */
bool em_source_open(em_source *source, const char *path, em_status *status);
void em_source_generate(em_source *source, const em_config *config, uint64_t seed, em_storage storage);
void em_source_close(em_source *source);
const em_form *em_source_form(const em_source *source, em_tensor tensor, int64_t layer);

/* Create a file for a generated source: config, seed, and all datasets with their space, nothing in them yet; where they
 * lie goes to the source's forms. Local. */
bool em_source_create(em_source *source, const char *path, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
