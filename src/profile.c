#include "expertmesh/profile.h"

#include "expertmesh/standing.h"

#include <stdlib.h>

const char *const em_phase_names[EM_NUM_PHASES] = {
    [EM_PHASE_EMBEDDING] = "embedding", [EM_PHASE_GATHER] = "gather",
    [EM_PHASE_ATTENTION] = "attention", [EM_PHASE_SUM] = "sum",
    [EM_PHASE_ROUTER] = "router",       [EM_PHASE_DISPATCH] = "dispatch",
    [EM_PHASE_EXPERTS] = "experts",     [EM_PHASE_COMBINE] = "combine",
    [EM_PHASE_OUTPUT] = "output",       [EM_PHASE_WAIT] = "wait",
    [EM_PHASE_TRACE] = "trace",
};

const char *const em_reach_names[EM_NUM_REACHES] = {
    [EM_INSIDE_HOSTS] = "inside",
    [EM_BETWEEN_HOSTS] = "between",
};

const char *const em_field_names[EM_NUM_FIELDS] = {"begin", "end", "phase", "layer", "rows"};

void em_profile_open(em_profile *profile, int64_t num_layers, int64_t num_experts, int num_ranks)
{
    *profile = (em_profile){.num_layers = num_layers};
    profile->seconds = em_zeroed((num_layers + 1) * EM_NUM_PHASES, sizeof(double));
    profile->rows = em_zeroed((num_layers + 1) * EM_NUM_PHASES * EM_NUM_REACHES, sizeof(int64_t));
    profile->load = em_zeroed(num_layers * num_experts, sizeof(int64_t));
    profile->dispatched = em_zeroed(num_layers * num_ranks, sizeof(int64_t));
    profile->event = em_alloc(em_profile_room(num_layers), sizeof(em_event));
}

void em_profile_close(em_profile *profile)
{
    free(profile->seconds);
    free(profile->rows);
    free(profile->load);
    free(profile->dispatched);
    free(profile->event);
    *profile = (em_profile){0};
}

double em_profile_seconds(const em_profile *profile)
{
    double sum = 0;
    for (int64_t i = 0; i < (profile->num_layers + 1) * EM_NUM_PHASES; i++) sum += profile->seconds[i];
    return sum;
}

void em_profile_start(em_profile *profile)
{
    profile->mark = MPI_Wtime();
    profile->num_events = 0;
}

static bool is(const em_event *event, int64_t layer, em_phase phase)
{
    return event->layer == layer && event->phase == phase;
}

/* The time from the mark until now, as an event or as more of one. */
static void note(em_profile *profile, int64_t layer, em_phase phase, double now)
{
    em_event *next = profile->event + profile->num_events;
    if (profile->num_events > 0 && is(next - 1, layer, phase)) {
        next[-1].end = now;
    } else if (phase == EM_PHASE_EXPERTS && profile->num_events > 1 && is(next - 1, layer, EM_PHASE_TRACE) &&
               is(next - 2, layer, phase)) {
        next[-2].end += now - profile->mark;
        next[-1].begin += now - profile->mark;
        next[-1].end = now;
    } else {
        if (profile->num_events == em_profile_room(profile->num_layers)) em_die("a step has too many events");
        *next = (em_event){profile->mark, now, layer, phase, 0};
        profile->num_events++;
    }
}

void em_profile_lap(em_profile *profile, int64_t layer, em_phase phase)
{
    double now = MPI_Wtime();
    profile->seconds[layer * EM_NUM_PHASES + phase] += now - profile->mark;
    note(profile, layer, phase, now);
    profile->mark = now;
    em_beat();
}

void em_profile_rows(em_profile *profile, int64_t layer, em_phase phase, int64_t inside, int64_t between)
{
    int64_t *rows = profile->rows + (layer * EM_NUM_PHASES + phase) * EM_NUM_REACHES;
    rows[EM_INSIDE_HOSTS] += inside;
    rows[EM_BETWEEN_HOSTS] += between;
    profile->event[profile->num_events - 1].rows += inside + between; /* its lap is over */
}
