#include "expertmesh/profile.h"

#include <stdlib.h>

const char *const em_phase_names[EM_NUM_PHASES] = {
    [EM_PHASE_EMBEDDING] = "embedding", [EM_PHASE_GATHER] = "gather",
    [EM_PHASE_ATTENTION] = "attention", [EM_PHASE_SUM] = "sum",
    [EM_PHASE_ROUTER] = "router",       [EM_PHASE_DISPATCH] = "dispatch",
    [EM_PHASE_EXPERTS] = "experts",     [EM_PHASE_COMBINE] = "combine",
    [EM_PHASE_OUTPUT] = "output",       [EM_PHASE_WAIT] = "wait",
    [EM_PHASE_TRACE] = "trace",
};

void em_profile_open(em_profile *profile, int64_t num_layers, int64_t num_experts, int num_ranks)
{
    *profile = (em_profile){.num_layers = num_layers};
    profile->seconds = em_zeroed((num_layers + 1) * EM_NUM_PHASES, sizeof(double));
    profile->rows_sent = em_zeroed((num_layers + 1) * EM_NUM_PHASES, sizeof(int64_t));
    profile->load = em_zeroed(num_layers * num_experts, sizeof(int64_t));
    profile->dispatched = em_zeroed(num_layers * num_ranks, sizeof(int64_t));
}

void em_profile_close(em_profile *profile)
{
    free(profile->seconds);
    free(profile->rows_sent);
    free(profile->load);
    free(profile->dispatched);
    *profile = (em_profile){0};
}

void em_profile_start(em_profile *profile)
{
    profile->mark = MPI_Wtime();
}

void em_profile_lap(em_profile *profile, int64_t layer, em_phase phase)
{
    double now = MPI_Wtime();
    profile->seconds[layer * EM_NUM_PHASES + phase] += now - profile->mark;
    profile->mark = now;
}

void em_profile_sent(em_profile *profile, int64_t layer, em_phase phase, int64_t rows)
{
    profile->rows_sent[layer * EM_NUM_PHASES + phase] += rows;
}
