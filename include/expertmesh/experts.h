/* expertmesh/experts.h: the expert slices of one rank at work. No MPI.
 *
 *   rows [R, D], by expert, by global token --slices--> hidden [rows, neurons] --down, tree--> outputs [nodes of rows, D]
 *
 * Both kinds of network run through here and differ in the middle only: glu is gelu(gate x) * (up x); mlp is
 * gelu(up x + up_bias), with the second layer's bias added once, by the expert's first slice. */
#ifndef EXPERTMESH_EXPERTS_H
#define EXPERTMESH_EXPERTS_H

#include "expertmesh/kernels.h"
#include "expertmesh/numerics.h"
#include "expertmesh/tree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Hears now and then that the first so many rows of the outputs will not change any more. */
typedef void em_outputs_sink(void *context, int64_t rows);

/* One layer's slices of one rank, by place. All borrowed. */
typedef struct em_experts {
    const em_config *config;
    const em_layout *layout;
    int rank;
    const em_covers *covers;              /* how each expert's slices are summed */
    const em_matrix *gate;                /* [n, D] of each slice (glu) */
    const em_matrix *up;                  /* [n, D] */
    const em_matrix *down;                /* [D, n] */
    const em_matrix *up_bias, *down_bias; /* [1, n]; [1, D] of first slices (mlp) */
    em_compute compute;                   /* of the products */
    const em_numerics *numerics;
    em_inputs *inputs;     /* [2] scratch */
    em_room *rooms;        /* [2] scratch */
    em_outputs_sink *done; /* may be NULL */
    void *done_context;
} em_experts;

/* Hears what the first-layer neurons of one slice put out: hidden [rows, neurons], for rows first_row and on. */
typedef void em_hidden_sink(void *context, em_range neurons, int64_t first_row, int64_t rows, const float *hidden);

/* rows [R], each of D, and first_row, first_output [G + 1] as in em_routing; outputs [num_outputs, D]. sinks may be NULL. */
void em_experts_run(const em_experts *experts, const int64_t *first_row, const float *const *rows,
                    const int64_t *first_output, float *outputs, em_hidden_sink *sink, void *context);

#ifdef __cplusplus
}
#endif
#endif
