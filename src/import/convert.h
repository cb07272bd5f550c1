/* convert.h: blocks of the model's tensors out of a foreign checkpoint. Private to the library. No MPI. */
#ifndef EXPERTMESH_CONVERT_H
#define EXPERTMESH_CONVERT_H

#include "expertmesh/source.h"
#include "rows.h"

/* Rows of one expert's matrix of the model that is made. */
typedef struct em_import_block {
    em_tensor tensor;
    int64_t layer, expert; /* of the model that is made */
    em_range rows;
} em_import_block;

/* What is taken of a checkpoint, and how it is stored. */
typedef struct em_selection {
    const em_foreign *foreign; /* borrowed */
    const int64_t *layer;      /* [num_layers] theirs, by ours */
    const int64_t *expert;     /* [num_experts] */
    em_source target;          /* our config and forms */
} em_selection;

/* Storage and scale groups of a tensor: as asked for, or (storage NULL) nearest to what its file has. */
em_form em_import_form(const em_selection *selection, em_tensor tensor, int64_t layer, const em_storage *storage);

/* Room for one block after another. Starts zeroed but for the reader's foreign. */
typedef struct em_converter {
    em_reader reader, head; /* head: the file of an output matrix of its own, which is compared */
    em_room raw, out, scale, row, other;
    void *data;    /* of the last block: its numbers, as stored */
    float *scales; /* and its scales [rows, groups], of int8 */
} em_converter;

/* Make a block: data and scales, which last until the next. */
bool em_convert_block(em_converter *converter, const em_selection *selection, const em_import_block *block,
                      em_status *status);
void em_converter_free(em_converter *converter);

#endif
