/* bench: what this machine can do, and how near to it each part of the program comes. */
#include "commands.h"

#include "../bench/bench.h"
#include "../book.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const em_option options[] = {
    {"only", "PART,...", "limits, products, model, exchange, files: only these (all)", 0},
    {"runs", "N", "runs of each measurement; the median is told (5)", 0},
    {"threads", "N", "threads of each rank (the cores that fall to it)", 0},
    {"layout", "NAME", "who owns what: contiguous, sliced (the default) or spread", 0},
    {"tokens", "N", "tokens of a prompt (256)", 0},
    {"generate", "N", "tokens that follow it, one at a time (32)", 0},
    {"memory", "MB", "read this much where rates of memory are measured; several times the caches (1536)", 0},
    {"folder", "DIR", "where files are written and removed ($TMPDIR, or here)", 0},
    {"output", "csv|json", "print this, not a table", 'o'},
    {NULL, NULL, NULL, 0},
};

const char *const em_bench_groups[EM_NUM_BENCH_GROUPS] = {"limits", "products", "model", "exchange", "files"};

static bool add_group(const char *word, bool *groups, em_status *status)
{
    for (int g = 0; g < EM_NUM_BENCH_GROUPS; g++)
        if (strcmp(word, em_bench_groups[g]) == 0) {
            groups[g] = true;
            return true;
        }
    const char *nearest = em_nearest(word, em_bench_groups, EM_NUM_BENCH_GROUPS);
    return em_fail(status, EM_USAGE, "--only: there is no part \"%s\"; %s%s", word,
                   nearest ? "the nearest is " : "they are limits, products, model, exchange, files",
                   nearest ? nearest : "");
}

static bool read_groups(const em_call *call, bool *groups, em_status *status)
{
    const char *text = em_option_value(call, "only");
    for (int g = 0; g < EM_NUM_BENCH_GROUPS; g++) groups[g] = !text;
    while (text) {
        size_t length = strcspn(text, ",");
        char *word = em_text("%.*s", (int)length, text);
        bool good = add_group(word, groups, status);
        free(word);
        if (!good) return false;
        text = text[length] == ',' ? text + length + 1 : NULL;
    }
    return true;
}

/* One layer of Grok-1 with a small vocabulary, where nothing else is said. */
static bool read_model(const em_call *call, em_bench *bench, em_status *status)
{
    em_call with = *call;
    em_storage storage;
    if (!em_option_value(call, "config")) {
        if (!em_option_value(call, "preset")) em_options_default(&with, "vocab-size", "8192");
        em_options_default(&with, "preset", "grok1");
        em_options_default(&with, "num-layers", "1");
    }
    for (int s = 0; s < EM_NUM_STORAGES; s++) bench->storages[s] = !em_option_value(call, "storage");
    if (!em_options_config(&with, &bench->config, status) || !em_options_seed(call, &bench->seed, status) ||
        !em_options_storage(call, &storage, status))
        return false;
    if (em_option_value(call, "storage")) bench->storages[storage] = true;
    enum { TRUE_WIDTH = 6144 };
    bench->aimed = bench->config.emb_size == TRUE_WIDTH;
    int64_t rest = bench->config.sequence_len - bench->tokens;
    if (rest >= bench->generated) return true;
    return em_fail(status, EM_USAGE, "bench: --tokens %lld and --generate %lld pass sequence_len, %lld",
                   (long long)bench->tokens, (long long)bench->generated, (long long)bench->config.sequence_len);
}

/* Can files be made in a folder? errno says why not. */
static bool takes_files(const char *folder)
{
    struct stat info;
    if (stat(folder, &info) != 0) return false;
    errno = ENOTDIR;
    return S_ISDIR(info.st_mode) && access(folder, W_OK | X_OK) == 0;
}

static bool find_folder(const em_call *call, em_bench *bench, em_status *status)
{
    const char *asked = em_option_value(call, "folder"), *usual = getenv("TMPDIR");
    bench->folder = asked ? asked : usual && *usual ? usual : ".";
    if (bench->rank == 0 && bench->groups[EM_BENCH_FILES] && !takes_files(bench->folder))
        em_fail(status, EM_CANNOT_WRITE, "--folder %s: files cannot be written there: %s", bench->folder,
                strerror(errno));
    return em_agree(bench->comm, status);
}

/* The same on all ranks, but for the inputs, which differ between ranks and calls. */
static bool agree_on_machine(em_bench *bench, int64_t threads, em_status *status)
{
    if (!em_loops_agree(bench->comm, (int)threads, status)) return false;
    bench->threads = em_threads();
    MPI_Allreduce(MPI_IN_PLACE, &bench->threads, 1, MPI_INT, MPI_MIN, bench->comm);
    em_threads_use(bench->threads);
    bench->draw = (uint64_t)(MPI_Wtime() * 1e6) * 1000003 + (uint64_t)bench->rank * 7919 + (uint64_t)getpid();
    if (bench->draw == 0) bench->draw = 1;
    return true;
}

static bool read_options(const em_call *call, em_bench *bench, em_output *form, em_status *status)
{
    enum { MOST_TOKENS = 1 << 20, MOST_MEMORY = 1 << 24 };
    int64_t runs, threads, memory;
    if (!read_groups(call, bench->groups, status) ||
        !em_option_whole(call, "runs", 1, EM_MOST_RUNS, 5, &runs, status) ||
        !em_option_whole(call, "threads", 1, EM_MOST_THREADS, 0, &threads, status) ||
        !em_option_whole(call, "tokens", 1, MOST_TOKENS, 256, &bench->tokens, status) ||
        !em_option_whole(call, "generate", 1, MOST_TOKENS, 32, &bench->generated, status) ||
        !em_option_whole(call, "memory", 1, MOST_MEMORY, 1536, &memory, status) ||
        !em_output_read(call, form, status) ||
        !em_options_layout_kind(em_option_value(call, "layout"), &bench->layout, status) ||
        !read_model(call, bench, status) || !find_folder(call, bench, status) ||
        !em_places_find(call->comm, &bench->places, status))
        return false;
    bench->runs = (int)runs;
    bench->memory = memory << 20;
    return agree_on_machine(bench, threads, status);
}

static void run_groups(em_bench *bench, em_status *status)
{
    const bool *wanted = bench->groups;
    if (wanted[EM_BENCH_LIMITS]) em_bench_limits(bench);
    if (wanted[EM_BENCH_PRODUCTS]) em_bench_products(bench);
    if (wanted[EM_BENCH_MODEL]) em_bench_model(bench, status);
    if (!status->code && wanted[EM_BENCH_EXCHANGE]) em_bench_exchange(bench, status);
    if (!status->code && wanted[EM_BENCH_FILES]) em_bench_files(bench, status);
}

static void print(const em_bench *bench, em_output form)
{
    em_machine_text processor, now;
    if (form == EM_OUTPUT_WORDS)
        printf("%s, %d rank%s of %d thread%s, %s\n\n", em_processor(processor), bench->num_ranks,
               bench->num_ranks == 1 ? "" : "s", bench->threads, bench->threads == 1 ? "" : "s", em_now(now));
    if (form == EM_OUTPUT_WORDS) em_figures_table(&bench->figures, stdout);
    if (form == EM_OUTPUT_CSV) em_figures_csv(&bench->figures, stdout);
    if (form == EM_OUTPUT_JSON) em_figures_json(&bench->figures, bench->num_ranks, bench->threads, stdout);
}

static void run(const em_call *call, em_status *status)
{
    em_bench bench = {.comm = call->comm, .rank = call->rank, .num_ranks = call->num_ranks};
    em_output form;
    if (!read_options(call, &bench, &form, status)) return;
    run_groups(&bench, status);
    if (!status->code && bench.rank == 0) print(&bench, form);
    em_figures_free(&bench.figures);
    em_places_free(&bench.places);
}

const em_command em_command_bench = {
    .name = "bench",
    .usage = "[--only PART,...] [--preset NAME ...] [-o csv|json]",
    .meaning = "Measure this machine's limits and how near to them each part of the program comes.",
    .more =
        "Without --preset it is one layer of grok1 with a vocabulary of 8192; of any preset one layer, unless\n"
        "--num-layers says more. Where experts have more than 8192 neurons, storage types are also compared with so\n"
        "many, and files of weights are of that size. Figures are of all ranks together: the median of several\n"
        "runs, whose inputs all differ, with their spread (largest - smallest, as a part of the median), and a limit\n"
        "that was measured beside them. What does not fit this machine is told on standard error and left out. With\n"
        "--storage only weights stored so are measured; without, all that compare.",
    .options = options,
    .watched = true,
    .takes_model = true,
    .run = run,
};
