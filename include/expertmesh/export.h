/* expertmesh/export.h: a weights file becomes a checkpoint that other programs read: a folder of safetensors and config.json, or a
 * GGUF file. */
#ifndef EXPERTMESH_EXPORT_H
#define EXPERTMESH_EXPORT_H

#include "expertmesh/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum em_export_form { EM_EXPORT_SAFETENSORS, EM_EXPORT_GGUF } em_export_form;

/* Write the weights of a file; storage (NULL: as they are) is that of matrices. What is int8 becomes float32 unless the form holds
 * just these numbers: GGUF does, as Q8_0, where scales are halves and groups hold 32s of inputs. EM_INT8 asks for Q8_0 in any
 * case, with rounded scales, or rounded numbers where a group is no multiple of 32; a matrix whose inputs are none stays float32.
 * bytes (may be NULL) becomes the size of the file with the weights. Each rank its share of every tensor. Collective; the status is
 * agreed. The folder or file appears under its name when it is whole. progress (may be NULL) hears of bytes of this rank. */
bool em_weights_export(MPI_Comm comm, const char *weights, em_export_form form, const em_storage *storage,
                       const char *path, em_progress *progress, void *context, double *bytes, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
