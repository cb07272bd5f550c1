/* expertmesh/view.h: a trace as it is read back: what it holds, how far it is whole, and its numbers. No MPI.
 *
 * Opening reads the structure alone; numbers are read where they are asked for, a layer and some tokens at a time, so a
 * trace of any size opens at once. A trace that is still being written, or whose run was killed, is read as far as its
 * counters say (trace.h); opening it anew shows more. Layers and tokens go by their place in the file here; what the run
 * called them is in `layer` and `token`.
 * Failures: EM_BAD_DATA for a file that is damaged or no trace, and for what was not recorded or is not written yet, with
 * what would have recorded it; EM_NO_INPUT where there is none; EM_USAGE for a layer or token that the run does not have. */
#ifndef EXPERTMESH_VIEW_H
#define EXPERTMESH_VIEW_H

#include "expertmesh/config.h"
#include "expertmesh/quantities.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Read any field; change none. */
typedef struct em_view {
    em_store *store;
    em_config config;   /* of the model that ran */
    int num_ranks;      /* P */
    int64_t num_layers; /* kept in the file */
    int64_t num_tokens; /* kept in the file, written yet or not */
    int64_t *layer;     /* [num_layers] their numbers in the model, ascending */
    int64_t *token;     /* [num_tokens] their numbers in the run, ascending */
    int64_t num_phases;
    char **phase; /* [num_phases] names of the phases of phase_seconds */
    int64_t num_steps,
        num_events; /* steps the run may take, places for events of a rank in each; 0: no events recorded */
    /* How far it is: the first tokens_done tokens are whole; of the step_tokens after them the first layers_done layers. */
    bool complete;
    int64_t tokens_done, step_tokens, layers_done;
    int64_t resumes; /* times that the run was stopped and went on, perhaps on other ranks */
    bool recorded[EM_NUM_QUANTITIES];
    em_dataset data[EM_NUM_QUANTITIES]; /* of what is recorded: of the shape and type that it must have */
} em_view;

/* Open a trace. False: nothing is open. Closed with em_view_close, which may be called on one that is zeroed. */
bool em_view_open(em_view *view, const char *path, em_status *status);
void em_view_close(em_view *view);

const char *em_view_path(const em_view *view);

/* Was this quantity recorded? need fails where not, and says what would have recorded it. */
bool em_view_need(const em_view *view, em_quantity quantity, em_status *status);

/* The place of a layer or a token by its number. source ("--layer") names where the number came from. A token must be
 * written in at least one layer. */
bool em_view_find_layer(const em_view *view, int64_t number, const char *source, int64_t *place, em_status *status);
bool em_view_find_token(const em_view *view, int64_t number, const char *source, int64_t *place, em_status *status);

/* How many of the first tokens are whole in a layer; with layer == num_layers: in what lies outside of the layers. */
int64_t em_view_tokens(const em_view *view, int64_t layer);

/* How many numbers a quantity has for a token (and layer). */
int64_t em_view_width(const em_view *view, em_quantity quantity);

/* Tokens [token, token + tokens) of one layer, as they are stored, float or int32_t: out [tokens, width]. layer is ignored
 * where the quantity has none. They must be whole (em_view_tokens). Needs the quantity. */
bool em_view_read(const em_view *view, em_quantity quantity, int64_t layer, int64_t token, int64_t tokens, void *out,
                  em_status *status);

/* The whole of one layer of a quantity without tokens, int64_t or double: dispatch_rows, expert_load, phase_seconds,
 * exchange_rows, exchange_bytes; of those without layers, as outer_seconds and memory_bytes, all. What a run has not counted
 * yet reads as 0. All but the first two are written at the end of a run: before that they are EM_BAD_DATA. */
bool em_view_read_layer(const em_view *view, em_quantity quantity, int64_t layer, void *out, em_status *status);

/* What the ranks did in one step: out [P, num_events, EM_NUM_FIELDS]; an event whose end is 0 did not happen. Needs events. */
bool em_view_read_events(const em_view *view, int64_t step, double *out, em_status *status);

/* Numbers of a dataset of one axis: step_rows [num_steps], int64_t; clock_error and clock_drift [P], double. */
bool em_view_read_list(const em_view *view, em_quantity quantity, void *out, em_status *status);

/* The tokenizer's pieces by token, [vocab_size]: each freed, then the list. NULL where the trace has none, or with a
 * status. */
char **em_view_token_text(const em_view *view, em_status *status);

/* An attribute of the file, as a text or as digits, freed with free; NULL where it has none. */
char *em_view_attribute(const em_view *view, const char *name);

#ifdef __cplusplus
}
#endif
#endif
