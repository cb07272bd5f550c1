#include "expertmesh/keeper.h"

#include "expertmesh/signals.h"

#include <stdio.h>

/* Time that a checkpoint will take: as the longest so far; before the first a guess, for a slow disk. */
static double save_takes(const em_keeping *k, int64_t rows)
{
    const em_config *c = &k->errand->model->config;
    double bytes = 2.0 * (double)(c->num_layers * c->num_kv_heads * c->key_size * rows) * sizeof(float);
    return k->longest_save > 0 ? k->longest_save : 1 + bytes / 50e6;
}

/* Would another step, and a checkpoint after it, pass the time? One step is always taken, so that a job that is given too
 * little time and begun again and again comes to an end. */
static bool time_is_up(const em_keeping *k, int64_t rows, double now)
{
    double margin = k->most_seconds / 100 < 30 ? k->most_seconds / 100 : 30;
    double needs = 1.5 * k->longest_step + 2 * save_takes(k, rows) + margin;
    return k->most_seconds > 0 && k->steps > 0 && now - k->start + needs >= k->most_seconds;
}

/* On all ranks the same. */
static int agree_asked(const em_keeping *k, int64_t rows, double now)
{
    int asked = em_signals_take();
    if (k->errand->model->rank == 0) {
        if (k->every_seconds > 0 && now - k->saved_time >= k->every_seconds) asked |= EM_ASKED_SAVE;
        if (time_is_up(k, rows, now)) asked |= EM_ASKED_STOP;
    }
    if (k->every_tokens > 0 && rows - k->saved_rows >= k->every_tokens) asked |= EM_ASKED_SAVE;
    MPI_Allreduce(MPI_IN_PLACE, &asked, 1, MPI_INT, MPI_BOR, k->errand->model->comm);
    return asked;
}

static void tell(const em_keeping *k, const em_status *status, int64_t rows, int64_t bytes, double seconds)
{
    em_bytes_text size;
    if (k->errand->model->rank != 0) return;
    if (status->code)
        fprintf(stderr, "checkpoint: not written: %s; the one before stays as it was\n", status->text);
    else
        fprintf(stderr, "checkpoint: %s after %lld tokens, %s, %.2f s\n", k->path, (long long)rows,
                em_bytes((double)bytes, size), seconds);
}

static void note_save(em_keeping *k, int64_t rows, double now)
{
    double took = MPI_Wtime() - now;
    if (took > k->longest_save) k->longest_save = took;
    k->saved_rows = rows;
    k->saved_time = now;
}

/* A checkpoint that cannot be written ends a run only where it was to stop. */
static bool between(void *context, const em_state *state, const em_cache *cache, em_trace *trace,
                    const em_profile *profile, bool *stop, em_status *status)
{
    em_keeping *k = context;
    em_status saved = {0};
    int64_t bytes = 0;
    double now = MPI_Wtime();
    if (k->steps > 0 && now - k->resting > k->longest_step) k->longest_step = now - k->resting;
    int asked = agree_asked(k, state->rows, now);
    if (asked) {
        if (!em_trace_sync(trace, status)) return false;
        bool good = em_checkpoint_save(k->errand, k->path, state, cache, profile, em_trace_id(trace), &bytes, &saved);
        tell(k, &saved, state->rows, bytes, MPI_Wtime() - now);
        note_save(k, state->rows, now);
        if (!good && (asked & EM_ASKED_STOP)) {
            *status = saved;
            return false;
        }
    }
    *stop = k->stopped = (asked & EM_ASKED_STOP) != 0;
    k->steps++;
    k->resting = MPI_Wtime();
    return true;
}

static bool begin(void *context, em_state *state, em_cache *cache, em_profile *profile, em_status *status)
{
    em_keeping *k = context;
    k->saved_time = MPI_Wtime();
    if (!k->from) return true;
    k->saved_rows = k->from->rows;
    return em_checkpoint_restore(k->from, k->errand->model, state, cache, profile, status);
}

em_keeper em_keeper_of(em_keeping *keeping)
{
    return (em_keeper){begin, between, keeping};
}
