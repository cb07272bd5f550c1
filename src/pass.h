/* pass.h: what the stages of one step share, and what each does again and again. Private to the library. */
#ifndef EXPERTMESH_PASS_H
#define EXPERTMESH_PASS_H

#include "expertmesh/model.h"

/* What the stages of one step share. Arrays are this rank's; T_r tokens are its own. */
typedef struct em_pass {
    em_model *model;
    const em_step *step;
    const em_batch *batch; /* the step's tokens */
    em_cache *cache;
    em_trace *trace;
    em_profile *profile;
    int64_t T, own, first; /* tokens in all, here, and the first of those here */
    float *h;              /* [T_r, D] the residual stream */
    float *x;              /* [T_r, D] a norm of it, in model->x */
    float *delta;          /* [T_r, D] what a stage adds */
    float *rope;           /* [T, C] */
    em_exchange *gather, *sum_home;
} em_pass;

/* This rank's blocks of a tensor. */
const em_matrix *em_pass_blocks(const em_pass *pass, em_tensor tensor, int64_t layer);

/* Bring rows to where they are needed; first wait for all, so that waiting and bringing are told apart. Returns where each
 * lies, until the next delivery. Collective. */
const float *const *em_pass_deliver(em_pass *pass, int64_t layer, em_phase phase, em_exchange *plan,
                                    const em_shared *from);

/* y = the norm of x, both [T_r, D]. */
void em_pass_norm(em_pass *pass, em_tensor tensor, int64_t layer, const float *x, float *y);

/* Record a quantity of this rank's own tokens, width numbers each. */
void em_pass_record(em_pass *pass, em_quantity quantity, int64_t layer, int64_t width, const void *data);

/* The last norm; every row to the vocabulary's owners; scores recorded where they are made, the best of them home.
 * Collective. */
void em_pass_output(em_pass *pass, em_outcome *outcome);

#endif
