/* expertmesh/trace.h: what a run records, into one HDF5 file that any reader opens at any time.
 *
 * Rank 0 creates every dataset with its space, scales and attributes beside the final name and renames; from then on the
 * structure does not change, and each rank writes its own rows in place, behind the arithmetic (writer.h). Tokens lie in the
 * order they were computed: the prompts', then the generated ones, step by step. When all ranks have written a layer of a
 * step, rank 0 counts it in `layers_done`, for the `step_tokens` of the step; when a step's last norm and logits are
 * written, `tokens_done` says so; last, `complete` becomes 1. So whatever is counted as written is there, however the run
 * ends. The counters follow the run: at the end of each layer the ranks agree on how far all of them have written, without
 * waiting for that, and rank 0 then counts it; a later step's counts follow the earlier's.
 * Advantage: no rank waits for another to write, nor for the disk while its queue has room, and no write passes through
 * HDF5. Cost: the size of every dataset is fixed before the run; a rank holds up to EM_TRACE_QUEUE bytes that are not yet
 * written, which a run that is killed loses; and a failed write is known at the end of the layer after which it failed.
 *
 * A run that goes on from a checkpoint goes on with the trace in place: what lies past the checkpoint is written again. On
 * another number of ranks the trace keeps the axes of ranks that it was made with, P long, and what rank r does is added at
 * place r mod P of dispatch_rows and of the seconds, when the run ends: their sums stay true; memory_bytes has the most. */
#ifndef EXPERTMESH_TRACE_H
#define EXPERTMESH_TRACE_H

#include "expertmesh/batch.h"
#include "expertmesh/profile.h"
#include "expertmesh/quantities.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that a rank holds at most of what is recorded and not yet written. */
enum { EM_TRACE_QUEUE = 256000000 };

/* Events come into the queue together, as one step's alone cost a short step more than 1 % of its time: when those that wait
 * fill so many bytes or are so old, at the end of a step. A run that is killed loses these, too. */
enum { EM_TRACE_EVENTS_SECONDS = 1, EM_TRACE_EVENTS_BYTES = 1 << 18 };

/* The most steps whose events wait. */
static inline int64_t em_trace_event_steps(int64_t num_layers)
{
    int64_t bytes = em_profile_room(num_layers) * EM_NUM_FIELDS * (int64_t)sizeof(double);
    return bytes < EM_TRACE_EVENTS_BYTES ? EM_TRACE_EVENTS_BYTES / bytes : 1;
}

/* What to record. A list that is NULL keeps all. */
typedef struct em_trace_request {
    const char *path;
    bool force;            /* replace an existing file */
    uint64_t wanted;       /* a bit a quantity; the optional ones of them may be 0 */
    const int64_t *layers; /* kept layers, ascending */
    int64_t num_layers;
    const int64_t *tokens; /* kept tokens, ascending */
    int64_t num_tokens;
    int64_t rows;                  /* tokens that the run may compute in all */
    int64_t steps;                 /* and the steps in which it may do so */
    int64_t queue;                 /* another bound than EM_TRACE_QUEUE; 0: that */
    const char *numerics;          /* how the arithmetic was done, in words; NULL: not told */
    const char *weights;           /* where the weights came from, in words */
    const char *layout;            /* the map of who owns what (em_layout_json); NULL: not told */
    const char *const *token_text; /* [vocab_size] on rank 0: the tokenizer's pieces; NULL: not told */
    int64_t weights_bytes;         /* of this rank */
    const char *command_line;
    uint64_t seed;
} em_trace_request;

typedef struct em_trace em_trace;

/* Whether a run may write to path: EM_CANNOT_WRITE where something is there and force is not given, or where its folder
 * is not. Local; costs no more than a look. */
bool em_output_check(const char *path, bool force, em_status *status);

/* Bytes that such a trace takes, but for HDF5's own. Pure. */
int64_t em_trace_bytes(const em_trace_request *request, const em_config *config, int num_ranks);

/* Bytes that a rank may hold for it: the bound, or what a smaller trace needs; 0 where request->path is NULL. Pure. */
int64_t em_trace_queue(const em_trace_request *request, const em_config *config, int num_ranks);

/* Create the file; prompts are the first tokens to be run. Collective; the status is agreed. NULL on failure. */
em_trace *em_trace_create(MPI_Comm comm, const em_trace_request *request, const em_config *config,
                          const em_batch *prompts, em_status *status);

/* Does it record any of this quantity? False where trace is NULL. layer is ignored where the quantity has none. */
bool em_trace_wants(const em_trace *trace, em_quantity quantity, int64_t layer);

/* Record numbers [col, col + cols) of what the quantity holds a token, for rows [row, row + rows) of the run's tokens.
 * data: rows `stride` numbers apart, of the quantity's type; copied. Local; waits only where the queue is full. A failure
 * is kept and told by em_trace_layer, em_trace_step_done or em_trace_finish. */
void em_trace_put(em_trace *trace, em_quantity quantity, int64_t layer, int64_t row, int64_t rows, int64_t col,
                  int64_t cols, const void *data, int64_t stride);

/* Record this rank's rows to others by the dispatch [P], and, on rank 0, the experts' loads [E]. Local. */
void em_trace_exchange(em_trace *trace, int64_t layer, const int64_t *dispatch_rows, const int64_t *expert_load);

/* A step begins with these tokens, the first of them in this row. Local. trace may be NULL. */
void em_trace_step(em_trace *trace, const em_batch *tokens, int64_t first_row);

/* A layer of the step is recorded; the whole step is, which makes so many rows. To be counted when all have written it.
 * Collective, one small reduction that waits for no disk; the status is agreed. trace may be NULL. */
bool em_trace_layer(em_trace *trace, int64_t layer, em_status *status);
bool em_trace_step_done(em_trace *trace, int64_t rows, em_status *status);

/* What this rank did in a step of so many tokens, now that it is over. Local. trace may be NULL. */
void em_trace_events(em_trace *trace, const em_profile *profile, int64_t step, int64_t tokens);

/* All is run, so many rows: wait until it is written and counted; this rank's times, rows and memory, NaN and -1 where no
 * token was run, the mark of a complete trace.
 * Collective, agreed. trace may be NULL. */
bool em_trace_finish(em_trace *trace, const em_profile *profile, int64_t rows, em_status *status);

/* Everything that was recorded so far is written, counted and on the disk. Collective, agreed. trace may be NULL. */
bool em_trace_sync(em_trace *trace, em_status *status);

/* The run stops here, to go on later: em_trace_sync, the times so far, and the mark of a stopped trace (`stopped` is 1, as
 * long as the run does not go on). Collective, agreed. trace may be NULL. */
bool em_trace_stop(em_trace *trace, const em_profile *profile, em_status *status);

/* Where a run goes on: with the trace of that id (em_trace_id), after so many rows. */
typedef struct em_trace_place {
    int64_t id, rows;
} em_trace_place;

/* Go on with the file of an earlier run, made for the same request. Refused where it is not there (EM_NO_INPUT), of another
 * run, or behind that place (EM_BAD_DATA). Collective; the status is agreed. NULL on failure. */
em_trace *em_trace_resume(MPI_Comm comm, const em_trace_request *request, const em_config *config, em_trace_place place,
                          em_status *status);

/* The random number that the file holds as run_id; 0 where trace is NULL. On all ranks the same. */
int64_t em_trace_id(const em_trace *trace);

/* Local; trace may be NULL. What was not finished stays marked as incomplete. */
void em_trace_free(em_trace *trace);

#ifdef __cplusplus
}
#endif
#endif
