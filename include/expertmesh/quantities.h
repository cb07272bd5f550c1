/* expertmesh/quantities.h: the list of what a trace records: names, axes, units. Pure data. */
#ifndef EXPERTMESH_QUANTITIES_H
#define EXPERTMESH_QUANTITIES_H

#include "expertmesh/store.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum em_axis {
    EM_AXIS_LAYER,
    EM_AXIS_TOKEN,
    EM_AXIS_EMB,
    EM_AXIS_Q_HEAD,
    EM_AXIS_KV_HEAD,
    EM_AXIS_HEAD_DIM,
    EM_AXIS_EXPERT,
    EM_AXIS_CHOICE,
    EM_AXIS_NEURON,
    EM_AXIS_VOCAB,
    EM_AXIS_SOURCE_RANK,
    EM_AXIS_RANK,
    EM_AXIS_PHASE,
    EM_AXIS_MEMORY,
    EM_AXIS_REACH,
    EM_AXIS_STEP,
    EM_AXIS_EVENT,
    EM_AXIS_FIELD,
    EM_NUM_AXES
} em_axis;

typedef enum em_quantity {
    EM_TOKEN_IDS,
    EM_SEQUENCE,
    EM_POSITION,
    EM_RESID_PRE, /* from here to EM_LOGITS: what a user may choose to record */
    EM_RESID_MID,
    EM_RESID_POST,
    EM_ATTN_Q,
    EM_ATTN_K,
    EM_ATTN_V,
    EM_ATTN_Z,
    EM_ATTN_OUT,
    EM_FFN_IN,
    EM_ROUTER_LOGITS,
    EM_ROUTER_PROBS,
    EM_EXPERT_INDICES,
    EM_EXPERT_WEIGHTS,
    EM_FFN_HIDDEN,
    EM_FFN_OUT,
    EM_FINAL_HIDDEN,
    EM_LOGITS,
    EM_DISPATCH_ROWS, /* from here to EM_OUTER_SECONDS: what happened between the ranks, always recorded */
    EM_EXPERT_LOAD,
    EM_PHASE_SECONDS,
    EM_OUTER_SECONDS,
    EM_MEMORY_BYTES,
    EM_EXCHANGE_ROWS,
    EM_OUTER_EXCHANGE_ROWS,
    EM_EXCHANGE_BYTES,
    EM_OUTER_EXCHANGE_BYTES,
    EM_STEP_ROWS, /* from here on: the events, what each rank did when; chosen as one */
    EM_EVENTS,
    EM_CLOCK_ERROR,
    EM_CLOCK_DRIFT,
    EM_NUM_QUANTITIES /* at most 64: a set of them is a word of bits */
} em_quantity;

typedef struct em_quantity_info {
    const char *name;
    em_type type;
    int num_axes;
    em_axis axis[EM_MAX_AXES];
    const char *units;     /* NULL: a pure number, "1" in the file */
    const char *long_name; /* one line of meaning */
    const char *tl_name;   /* TransformerLens' name, with {layer}; NULL: none */
} em_quantity_info;

extern const em_quantity_info em_quantities[EM_NUM_QUANTITIES];

typedef struct em_axis_info {
    const char *name, *long_name;
} em_axis_info;

extern const em_axis_info em_axes[EM_NUM_AXES];

/* What memory_bytes tells of a rank. */
typedef enum em_memory {
    EM_MEMORY_WEIGHTS, /* of its part of the model, as stored */
    EM_MEMORY_PEAK,    /* the largest resident size of its process: weights, activations, caches, queue, libraries */
    EM_NUM_MEMORIES
} em_memory;

extern const char *const em_memory_names[EM_NUM_MEMORIES];
/* Is it one of the datasets that make up the events? They are recorded together, or none of them. */
static inline bool em_quantity_of_events(em_quantity quantity)
{
    return quantity >= EM_STEP_ROWS;
}

/* May a user leave it out? */
static inline bool em_quantity_optional(em_quantity quantity)
{
    return (quantity >= EM_RESID_PRE && quantity <= EM_LOGITS) || em_quantity_of_events(quantity);
}

/* Does it differ between runs of the same model: by time, by the number of ranks, by the steps taken? */
static inline bool em_quantity_of_machine(em_quantity quantity)
{
    return quantity == EM_DISPATCH_ROWS || quantity >= EM_PHASE_SECONDS;
}

/* -1 where there is none of this name. */
int em_quantity_find(const char *name);

#ifdef __cplusplus
}
#endif
#endif
