/* neuron.h: what the two halves of `inspect W.h5 neuron` share: one row of a matrix, and what a trace holds for it. */
#ifndef EXPERTMESH_INSPECT_NEURON_H
#define EXPERTMESH_INSPECT_NEURON_H

#include "inspect.h"

#include "expertmesh/kernels.h"
#include "expertmesh/source.h"

typedef struct em_neuron {
    em_inspect *in;
    em_source source;
    em_tensor tensor;           /* EM_FFN_UP also stands for EM_FFN_GATE: the two are one neuron */
    int64_t layer, expert, row; /* expert 0 where the tensor has none */
    em_view trace;              /* closed without --trace */
    int64_t layer_place, token, token_place;
} em_neuron;

/* "ffn_up". */
const char *em_tensor_name(em_tensor tensor, em_tensor_path path);

/* Rows [row, row + rows) x columns [col, col + cols) of a tensor of the neuron's layer, as they weigh: out [rows, cols]. */
bool em_neuron_weights(const em_neuron *n, em_tensor tensor, int64_t expert, int64_t row, int64_t rows, int64_t col,
                       int64_t cols, float *out, em_status *status);

/* A vector in numbers, as a line of the table of vectors. bias: NAN: none. */
void em_neuron_vector(em_table *table, const char *name, const char *storage, const float *x, int64_t count,
                      double bias);

/* The tables that need a trace: the neuron's value, and the terms of its sum. vectors: gains its inputs; may be NULL. */
void em_neuron_output(em_neuron *n, em_table *vectors, em_status *status);

#endif
