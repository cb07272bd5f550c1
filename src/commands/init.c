/* init: write the random weights of a model to a file. */
#include "commands.h"

#include "../outfile.h"
#include "../summary.h"

static const em_option options[] = {
    {"output", "W.h5", "the weights file to write", 'o'},
    {"force", NULL, "replace it if it is there", 0},
    {NULL, NULL, NULL, 0},
};

static void init(const em_call *call, em_status *status)
{
    em_config config;
    uint64_t seed;
    em_storage storage;
    const char *path = em_option_value(call, "output");
    if (!path) em_fail(status, EM_USAGE, "init: say where to write: -o W.h5");
    if (status->code || !em_options_config(call, &config, status) || !em_options_seed(call, &seed, status) ||
        !em_options_storage(call, &storage, status))
        return;
    if (call->rank == 0 && em_outfile_check(call, path, status))
        em_outfile_spare(path, em_option_value(call, "config"), status);
    if (!em_agree(call->comm, status)) return;

    em_source source;
    em_source_generate(&source, &config, seed, storage);
    if (call->rank == 0) em_summary_model(&source, stdout);
    double start = MPI_Wtime(), bytes = (double)em_weights_model_bytes(&source);
    em_source_close(&source);
    em_bar bar = {.what = "weights written", .shown = call->rank == 0, .start = start, .last = start};
    if (!em_weights_write(call->comm, &config, seed, storage, path, em_bar_update, &bar, status)) return;
    double seconds = MPI_Wtime() - start;
    em_bytes_text all, rate;
    if (call->rank == 0)
        printf("%s: %s in %.2f s, %s/s\n", path, em_bytes(bytes, all), seconds, em_bytes(bytes / seconds, rate));
}

const em_command em_command_init = {
    .name = "init",
    .usage = "--preset NAME [--seed N] [--storage f32|bf16|int8] -o W.h5",
    .meaning = "Write random weights: each rank makes its part of every tensor, never the whole of one.",
    .more =
        "The weights are a pure function of seed and shape: `run` with the same --preset, --seed and --storage makes\n"
        "the same bits without a file. The file appears under its name only when it is whole.",
    .options = options,
    .watched = true,
    .takes_model = true,
    .run = init,
};
