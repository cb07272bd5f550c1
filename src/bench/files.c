/* Weights to a file and back, and a trace, against plain writes and reads; declared in bench.h.
 *
 * What was just written lies in the system's memory: reading is measured from there, and again from the disk. */
#include "bench.h"

#include "expertmesh/generate.h"
#include "expertmesh/random.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { BLOCK = 8 << 20, MOST_FILES = 3 };

/* ---- files that go away ---- */

/* Names of this rank 0's files and of what they are called while they are written. A signal's handler reads them. */
static char file_names[2 * MOST_FILES][4096];

static void remove_files(void)
{
    for (int i = 0; i < 2 * MOST_FILES; i++)
        if (file_names[i][0]) unlink(file_names[i]);
}

static void remove_and_go(int signal_number)
{
    remove_files();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* All ranks share the names, which have rank 0's number in them. */
static void name_files(const em_bench *bench)
{
    static const char *const kinds[MOST_FILES] = {"weights.h5", "trace.h5", "plain"};
    int number = (int)getpid();
    MPI_Bcast(&number, 1, MPI_INT, 0, bench->comm);
    for (int i = 0; i < 2 * MOST_FILES; i++)
        snprintf(file_names[i], sizeof file_names[i], "%s/expertmesh-bench-%d-%s%s", bench->folder, number,
                 kinds[i % MOST_FILES], i < MOST_FILES ? "" : ".partial");
    for (int i = 0; bench->rank == 0 && i < 3; i++) signal((int[]){SIGINT, SIGTERM, SIGHUP}[i], remove_and_go);
}

static const char *const weights_file = file_names[0], *const trace_file = file_names[1],
                         *const plain_file = file_names[2];

static int64_t size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
}

/* ---- plain writing and reading ---- */

static bool write_all(int file, const char *data, int64_t size, int64_t place)
{
    for (int64_t done = 0; done < size;) {
        ssize_t wrote = pwrite(file, data + done, (size_t)(size - done), place + done);
        if (wrote <= 0) return false;
        done += wrote;
    }
    return true;
}

/* Seconds to write a file of so many bytes, each rank its part, onto the disk. */
static double plain_write(em_bench *bench, int64_t bytes, em_status *status)
{
    em_range part = em_share(bytes, bench->num_ranks, bench->rank);
    char *data = em_bench_memory(BLOCK);
    em_bench_inputs(bench, BLOCK / (int64_t)sizeof(float), (float *)(void *)data);
    if (bench->rank == 0) unlink(plain_file);
    double start = em_bench_start(bench);
    int file = open(plain_file, O_WRONLY | O_CREAT, 0600);
    bool good = file >= 0;
    for (int64_t at = part.begin; good && at < part.end; at += BLOCK)
        good = write_all(file, data, at + BLOCK < part.end ? BLOCK : part.end - at, at);
    if (!good || fdatasync(file) != 0) em_fail(status, EM_CANNOT_WRITE, "%s: %m", plain_file);
    if (file >= 0) close(file);
    double seconds = em_bench_stop(bench, start);
    free(data);
    if (bench->rank == 0) unlink(plain_file);
    return em_agree(bench->comm, status) ? seconds : (double)NAN;
}

/* Seconds to read a file as `dd` does: one thread, front to back, block by block into the same memory. */
static double plain_read(em_bench *bench, const char *path, em_status *status)
{
    enum { PIECE = 1 << 20 };
    char *data = em_zeroed(PIECE, 1);
    ssize_t got = 1;
    double start = em_bench_start(bench);
    int file = bench->rank == 0 ? open(path, O_RDONLY) : -1;
    while (bench->rank == 0 && got > 0) got = read(file, data, PIECE);
    if (got < 0) em_fail(status, EM_NO_INPUT, "%s: cannot be read", path);
    if (file >= 0) close(file);
    double seconds = em_bench_stop(bench, start);
    free(data);
    return em_agree(bench->comm, status) ? seconds : (double)NAN;
}

/* As much memory as loading takes is touched and freed: what a virtual machine has not used for a while its host must give
 * first, at a tenth of the rate. */
static void warm_memory(const em_bench *bench, int64_t bytes)
{
    em_range part = em_share(bytes, bench->num_ranks, bench->rank);
    char *memory = em_alloc(em_range_size(part), 1);
#pragma omp parallel for num_threads(bench->threads)
    for (int64_t at = 0; at < em_range_size(part); at += 4096) ((volatile char *)memory)[at] = 1;
    free(memory);
}

/* What the system holds of a file in memory it lets go: the next read is from the disk. */
static void let_go(const em_bench *bench, const char *path)
{
    int file = bench->rank == 0 ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    fdatasync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
}

/* ---- weights ---- */

/* Random numbers a second that all threads make together, each a slice's matrix at a time. */
static double probe_generator(em_bench *bench, const em_config *config, em_storage storage)
{
    int64_t rows = 512 < config->ffn_size ? 512 : config->ffn_size, turns = 1;
    double seconds = 0, numbers = (double)(rows * config->emb_size);
    for (; seconds < 0.1; turns *= 2) {
        double start = em_bench_start(bench);
#pragma omp parallel num_threads(bench->threads)
        {
            em_matrix m = {.storage = storage, .rows = rows, .cols = config->emb_size, .num_groups = 1};
            m.group_size = m.cols;
            em_matrix_allocate(&m);
            if (storage == EM_INT8) m.scale = em_alloc(rows, sizeof(float));
            for (int64_t i = 0; i < turns; i++)
                em_random_fill(config, bench->seed, EM_FFN_UP, 0, i % config->num_experts, (em_range){0, rows},
                               (em_range){0, config->emb_size}, &m);
            em_matrix_free(&m);
        }
        seconds = em_bench_stop(bench, start);
    }
    return numbers * (double)(turns / 2) * bench->threads * bench->num_ranks / seconds;
}

static em_series rates(const em_series *seconds, double amount)
{
    em_series rate = {.count = 0};
    for (int i = 0; i < seconds->count; i++) em_series_add(&rate, amount / seconds->value[i]);
    return rate;
}

static void add_init(em_bench *bench, const em_config *config, em_storage storage, int64_t bytes, const em_series *init,
                     const em_series *plain, const em_series *generator)
{
    const char *group = em_bench_groups[EM_BENCH_FILES], *name = em_storage_name(storage);
    em_series rate = rates(init, (double)bytes / 1e9);
    em_figure *figure = em_figures_add(&bench->figures, group, "GB/s", &rate, "init, %s weights", name);
    em_figure_limit(figure, (double)bytes / 1e9 / em_series_median(plain), "write");
    rate = rates(init, (double)em_model_size_of(config).parameters / 1e6);
    figure = em_figures_add(&bench->figures, group, "M numbers/s", &rate, "init, %s weights", name);
    em_figure_limit(figure, em_series_median(generator) / 1e6, "generator");
    rate.count = 0;
    for (int i = 0; i < generator->count; i++)
        em_series_add(&rate, generator->value[i] / 1e6 / bench->threads / bench->num_ranks);
    em_figures_add(&bench->figures, group, "M numbers/s", &rate, "generator, %s, one core", name);
}

static bool time_init(em_bench *bench, const em_config *config, em_storage storage, int64_t bytes, em_status *status)
{
    em_series init = {.count = 0}, plain = {.count = 0}, generator = {.count = 0};
    for (int run = 0; run < bench->runs; run++) {
        em_series_add(&generator, probe_generator(bench, config, storage));
        em_series_add(&plain, plain_write(bench, bytes, status));
        if (status->code) return false;
        if (bench->rank == 0) unlink(weights_file);
        double start = em_bench_start(bench);
        if (!em_weights_write(bench->comm, config, bench->seed + (uint64_t)run, storage, weights_file, NULL, NULL,
                              status))
            return false;
        em_series_add(&init, em_bench_stop(bench, start));
    }
    add_init(bench, config, storage, bytes, &init, &plain, &generator);
    return true;
}

static bool load_once(em_bench *bench, em_series *seconds, em_status *status)
{
    em_source source;
    em_weights weights;
    double start = em_bench_start(bench);
    bool opened = em_source_open(&source, weights_file, status);
    if (!em_agree(bench->comm, status)) {
        if (opened) em_source_close(&source);
        return false;
    }
    em_layout layout = em_layout_named(bench->layout, &source, &bench->places);
    if (em_weights_load(&weights, &source, &layout, bench->rank, NULL, NULL, status))
        em_series_add(seconds, em_bench_stop(bench, start));
    else
        em_bench_stop(bench, start);
    em_weights_free(&weights);
    em_layout_free(&layout);
    em_source_close(&source);
    return em_agree(bench->comm, status);
}

static bool time_load(em_bench *bench, em_storage storage, bool from_disk, em_status *status)
{
    int64_t bytes = size_of(weights_file);
    em_series load = {.count = 0}, plain = {.count = 0}, unused = {.count = 0};
    if (!load_once(bench, &unused, status)) return false; /* warm */
    for (int run = 0; run < bench->runs; run++) {
        if (from_disk) let_go(bench, weights_file);
        em_series_add(&plain, plain_read(bench, weights_file, status));
        if (from_disk) let_go(bench, weights_file);
        warm_memory(bench, from_disk ? 2 * bytes : bytes); /* the system's copy is made anew, too */
        if (status->code || !load_once(bench, &load, status)) return false;
    }
    em_series rate = rates(&load, (double)bytes / 1e9);
    em_figure *figure =
        em_figures_add(&bench->figures, em_bench_groups[EM_BENCH_FILES], "GB/s", &rate, "load from %s, %s weights",
                       from_disk ? "the disk" : "the page cache", em_storage_name(storage));
    em_figure_limit(figure, (double)bytes / 1e9 / em_series_median(&plain), "read");
    if (bench->aimed) em_figure_target(figure, 0.8, false);
    return true;
}

/* ---- trace ---- */

static em_trace_request trace_everything(const em_bench *bench)
{
    return (em_trace_request){.path = trace_file,
                              .force = true,
                              .wanted = UINT64_MAX,
                              .rows = bench->tokens,
                              .steps = 1,
                              .weights = "random",
                              .command_line = "expertmesh bench",
                              .seed = bench->seed};
}

static bool run_prompt(em_bench *bench, em_model *model, bool traced, em_series *seconds, em_status *status)
{
    em_batch prompt = em_bench_prompt(bench, &model->config, bench->tokens);
    em_generation generation = {.stop_token = -1};
    em_trace_request request = trace_everything(bench);
    em_profile profile;
    em_outcome after = {0};
    em_listener listener = {0};
    em_trace *trace = NULL;
    int64_t rows;
    em_profile_open(&profile, model->config.num_layers, model->config.num_experts, model->num_ranks);
    if (bench->rank == 0) unlink(trace_file); /* to free an old trace's blocks on the disk is no part of the new one */
    double start = em_bench_start(bench);
    bool good = !traced || (trace = em_trace_create(model->comm, &request, &model->config, &prompt, status)) != NULL;
    good = good && em_generate(model, &prompt, &generation, trace, &profile, &listener, &after, &rows, status);
    em_trace_free(trace);
    em_series_add(seconds, em_bench_stop(bench, start));
    em_outcome_free(&after);
    em_profile_close(&profile);
    em_batch_free(&prompt);
    return good;
}

static void add_trace(em_bench *bench, const em_config *config, int64_t bytes, const em_series *bare,
                      const em_series *traced, const em_series *plain)
{
    const char *group = em_bench_groups[EM_BENCH_FILES];
    long long neurons = (long long)config->ffn_size;
    em_series rate = rates(traced, (double)bench->tokens);
    em_figure *figure = em_figures_add(&bench->figures, group, "tokens/s", &rate,
                                       "ffn_size %lld: prompt with a trace of everything", neurons);
    em_figure_limit(figure, (double)bench->tokens / em_series_median(bare), "without");
    if (bench->aimed && config->ffn_size == bench->config.ffn_size) em_figure_target(figure, 1 / 1.1, false);
    rate = rates(traced, (double)bytes / 1e9);
    figure = em_figures_add(&bench->figures, group, "GB/s", &rate, "ffn_size %lld: trace, the prompt's time with it",
                            neurons);
    em_figure_limit(figure, (double)bytes / 1e9 / em_series_median(plain), "write");
}

static bool time_trace(em_bench *bench, em_model *model, em_status *status)
{
    em_series bare = {.count = 0}, traced = {.count = 0}, plain = {.count = 0}, unused = {.count = 0};
    bool good = run_prompt(bench, model, true, &unused, status);
    int64_t bytes = size_of(trace_file);
    for (int run = 0; good && run < bench->runs; run++) {
        em_series_add(&plain, plain_write(bench, bytes, status));
        good = !status->code && run_prompt(bench, model, false, &bare, status) &&
               run_prompt(bench, model, true, &traced, status);
    }
    if (good) add_trace(bench, &model->config, bytes, &bare, &traced, &plain);
    return good;
}

static bool try_trace(em_bench *bench, const em_config *config, em_storage storage, em_status *status)
{
    em_source source;
    em_model model;
    em_status refused = {0};
    bool good = true;
    em_trace_request request = trace_everything(bench);
    em_extent extent = {.step_tokens = bench->tokens,
                        .tokens = bench->tokens,
                        .num_sequences = 1,
                        .trace = em_trace_queue(&request, config, bench->num_ranks)};
    em_source_generate(&source, config, bench->seed, storage);
    em_layout layout = em_layout_named(bench->layout, &source, &bench->places);
    if (em_model_open(&model, bench->comm, &source, &layout, extent, (em_manner){.threads = bench->threads}, NULL, NULL,
                      &refused)) {
        good = time_trace(bench, &model, status);
        em_model_close(&model);
    } else {
        em_bench_say(bench, "left out: %s", refused.text);
    }
    em_layout_free(&layout);
    em_source_close(&source);
    return good;
}

/* ---- all of it ---- */

/* Two files of a model's size, at most. */
static bool has_room(em_bench *bench, int64_t bytes)
{
    struct statvfs disk;
    em_bytes_text need, there;
    double free_bytes = 0;
    if (bench->rank == 0 && statvfs(bench->folder, &disk) == 0)
        free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    free_bytes = em_bench_most(bench, free_bytes);
    if (free_bytes > 2.1 * (double)bytes) return true;
    em_bench_say(bench, "left out: files of %s in %s, which has %s free; --folder names another",
                 em_bytes(2.1 * (double)bytes, need), bench->folder, em_bytes(free_bytes, there));
    return false;
}

void em_bench_files(em_bench *bench, em_status *status)
{
    em_config small = em_bench_small(&bench->config);
    /* one storage: rates by bytes hardly differ; bf16 if it is wanted, as most weights are */
    em_storage storage = bench->storages[EM_BF16] ? EM_BF16 : bench->storages[EM_F32] ? EM_F32 : EM_INT8;
    int64_t bytes = em_model_size_of(&small).bytes[storage];
    em_bench_say(bench, "files in %s", bench->folder);
    name_files(bench);
    if (has_room(bench, bytes) && time_init(bench, &small, storage, bytes, status) &&
        time_load(bench, storage, false, status) && time_load(bench, storage, true, status)) {
        if (bench->rank == 0) unlink(weights_file);
        em_bench_say(bench, "files: trace, ffn_size %lld", (long long)small.ffn_size);
        if (try_trace(bench, &small, storage, status) && bench->config.ffn_size > small.ffn_size) {
            em_bench_say(bench, "files: trace, ffn_size %lld", (long long)bench->config.ffn_size);
            try_trace(bench, &bench->config, storage, status);
        }
    }
    if (bench->rank == 0) remove_files();
    for (int i = 0; bench->rank == 0 && i < 3; i++) signal((int[]){SIGINT, SIGTERM, SIGHUP}[i], SIG_DFL);
}
