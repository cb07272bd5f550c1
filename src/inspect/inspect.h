/* inspect.h: what the subjects of `expertmesh inspect` share. */
#ifndef EXPERTMESH_INSPECT_H
#define EXPERTMESH_INSPECT_H

#include "../book.h"
#include "expertmesh/analysis.h"

#include <math.h>
#include <stdlib.h>

/* One request. Everything runs on one rank. */
typedef struct em_inspect {
    const em_call *call;
    const char *path;
    em_book *book;
    em_view view;                    /* the trace that is asked about; closed for weights */
    int64_t first_layer, past_layer; /* places in it: all, or the one of --layer */
    int64_t expert;                  /* --expert; -1: all */
    int64_t number;                  /* that follows the subject; -1: none */
    char **token_text;               /* [vocab_size] pieces of a tokenizer; NULL: the trace has none */
    int64_t top;                     /* how many of the largest */
} em_inspect;

/* The subjects: each makes its tables in the book. */
void em_inspect_weights(em_inspect *in, em_status *status);
void em_inspect_trace(em_inspect *in, em_status *status);
void em_inspect_neuron(em_inspect *in, em_status *status);
void em_inspect_experts(em_inspect *in, em_status *status);
void em_inspect_token(em_inspect *in, em_status *status);
void em_inspect_exchange(em_inspect *in, em_status *status);
void em_inspect_neurons(em_inspect *in, em_status *status);

/* Can a table be made of this quantity? Where it was not recorded: a failure if just that table was asked for, else a note. */
bool em_inspect_can(em_inspect *in, const char *table, em_quantity quantity, em_status *status);

/* A note of a failure that only keeps something out of the tables; the status is well again. */
void em_inspect_excuse(em_inspect *in, em_status *status);

/* A cell with a token's text: its piece, where the trace has those; else, where it is a byte that can be printed. */
void em_inspect_text(const em_inspect *in, em_table *table, int32_t token);

#endif
