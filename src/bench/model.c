/* One true-width layer: a prompt through it, then token by token; declared in bench.h.
 *
 * The limits are probed anew before each run, for a shared machine changes from one to the next; their median counts, as the
 * runs' does. */
#include "bench.h"

#include "expertmesh/generate.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

em_config em_bench_small(const em_config *config)
{
    enum { NEURONS = 8192 };
    em_config small = *config;
    if (small.ffn_size > NEURONS) small.ffn_size = NEURONS;
    return small;
}

/* ---- what a run does, by the model's shape ---- */

/* Bytes of a tensor's weights and scales, in all layers; of experts, of the part that is used. */
static double tensor_bytes(const em_source *source, em_tensor tensor, double part_of_experts)
{
    double bytes = 0;
    em_tensor_shape shape = em_tensor_shape_of(&source->config, tensor);
    for (int64_t layer = 0; layer < em_tensor_layers(&source->config, tensor); layer++) {
        const em_form *form = em_source_form(source, tensor, layer);
        double row = (double)shape.cols * (double)em_storage_bytes(form->storage);
        if (form->storage == EM_INT8) row += (double)form->groups * sizeof(float);
        bytes += (double)(shape.experts * shape.rows) * row * (shape.experts > 1 ? part_of_experts : 1);
    }
    return bytes;
}

/* Bytes of weights that so many tokens touch, one at a time, when they chose `chosen` experts in all. The embedding is
 * read whole as the output's matrix. */
static double bytes_touched(const em_source *source, int64_t tokens, int64_t chosen)
{
    double bytes = 0, E = (double)source->config.num_experts, L = (double)source->config.num_layers;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        bytes += (double)tokens * tensor_bytes(source, t, (double)chosen / L / E / (double)tokens);
    return bytes;
}

/* Operations of a prompt of T tokens, two a multiplication; the output's for its last token. */
static double prompt_operations(const em_config *c, int64_t T)
{
    double D = (double)c->emb_size, L = (double)c->num_layers, C = (double)c->key_size, t = (double)T;
    double heads = 2 * D * C * (double)(c->num_q_heads + c->num_kv_heads), router = D * (double)c->num_experts;
    double neurons = (double)(c->num_selected_experts * c->ffn_size) * (c->ffn_kind == EM_FFN_GLU ? 3 : 2);
    double looks = t * (t + 1) * (double)c->num_q_heads * C; /* scores, and values by them */
    return 2 * (L * (t * (heads + router + neurons * D) + looks) + (double)c->vocab_size * D);
}

/* Bytes of the largest array of activations in a prompt of T tokens, on this rank. */
static double largest_buffer(const em_model *m, int64_t T, const int64_t *load)
{
    int64_t D = m->config.emb_size, S = m->config.num_selected_experts, rows = 0, outputs = 0, parts = 0, most;
    int64_t own = em_range_size(em_layout_tokens(&m->layout, T, m->rank));
    int nodes = em_cover_count(&m->head_cover, m->rank);
    for (int64_t e = 0; e < m->config.num_experts; e++) {
        const em_cover *cover = &m->expert_covers.cover[m->expert_covers.first[e]];
        int here = em_cover_count(cover, m->rank);
        rows += here > 0 ? load[e] : 0;
        outputs += here * load[e];
        parts = cover->num_nodes > parts ? cover->num_nodes : parts;
    }
    int64_t sizes[] = {T * D,
                       nodes * T * D,
                       m->head_cover.num_nodes * own * D,
                       rows * D,
                       outputs * D,
                       own * S * parts * D,
                       own * D,
                       em_layout_vocab_held(&m->layout, m->rank),
                       T * m->config.key_size * em_layout_heads(&m->layout, m->rank).count};
    most = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) most = sizes[i] > most ? sizes[i] : most;
    return (double)most * sizeof(float);
}

/* ---- runs ---- */

/* One way to store and compute, and what its runs found. */
typedef struct trial {
    em_bench *bench;
    const em_source *source;
    em_model *model;
    int64_t *load; /* [E] the most rows that an expert had in a prompt */
    char name[96];
    em_series read, sgemm;             /* probes: B/s; operations/s */
    em_series prompt, generation;      /* seconds */
    em_series touched;                 /* bytes of weights a second, generating */
    em_series phase[2][EM_NUM_PHASES]; /* seconds of prompt, generation */
} trial;

/* What is known when the prompt has been run. */
typedef struct halfway {
    const em_bench *bench;
    em_profile *profile;
    int64_t num_experts;
    double start, prompt_seconds, generation_start;
    double *seconds; /* by layer and phase, until now */
    int64_t *load;   /* [E] most rows of each expert in any layer, until now */
    int64_t told;
} halfway;

static int64_t profile_places(const em_profile *profile)
{
    return (profile->num_layers + 1) * EM_NUM_PHASES;
}

static void note_token(void *context, int64_t sequence, int64_t position, int32_t token)
{
    halfway *h = context;
    (void)sequence;
    (void)position;
    (void)token;
    if (h->told++ > 0) return;
    h->prompt_seconds = em_bench_stop(h->bench, h->start);
    memcpy(h->seconds, h->profile->seconds, (size_t)profile_places(h->profile) * sizeof(double));
    for (int64_t i = 0; i < h->profile->num_layers * h->num_experts; i++)
        if (h->load[i % h->num_experts] < h->profile->load[i]) h->load[i % h->num_experts] = h->profile->load[i];
    h->generation_start = em_bench_start(h->bench);
}

static int64_t sum_of(const int64_t *x, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) sum += x[i];
    return sum;
}

/* Seconds of each phase on the rank that it took longest on. */
static void add_phases(trial *t, const em_profile *profile, const double *before)
{
    for (int phase = 0; phase < EM_NUM_PHASES; phase++) {
        double first = 0, all = 0;
        for (int64_t layer = 0; layer <= profile->num_layers; layer++) {
            first += before[layer * EM_NUM_PHASES + phase];
            all += profile->seconds[layer * EM_NUM_PHASES + phase];
        }
        em_series_add(&t->phase[0][phase], em_bench_most(t->bench, first));
        em_series_add(&t->phase[1][phase], em_bench_most(t->bench, all - first));
    }
}

/* A prompt and what follows it. counted: not to warm up. */
static bool run_once(trial *t, bool counted, em_status *status)
{
    em_bench *bench = t->bench;
    const em_config *c = &t->model->config;
    em_batch prompt = em_bench_prompt(bench, c, bench->tokens);
    em_generation generation = {.count = bench->generated + 1, .stop_token = -1};
    em_profile profile;
    em_outcome after = {0};
    int64_t rows;
    em_profile_open(&profile, c->num_layers, c->num_experts, t->model->num_ranks);
    halfway h = {.bench = bench, .profile = &profile, .num_experts = c->num_experts, .load = t->load};
    h.seconds = em_zeroed(profile_places(&profile), sizeof(double));
    em_listener listener = {.token = note_token, .token_context = &h};
    h.start = em_bench_start(bench);
    bool good = em_generate(t->model, &prompt, &generation, NULL, &profile, &listener, &after, &rows, status);
    double seconds = em_bench_stop(bench, h.generation_start);
    if (good && counted) {
        int64_t chosen = sum_of(profile.load, c->num_layers * c->num_experts) -
                         bench->tokens * c->num_layers * c->num_selected_experts;
        em_series_add(&t->prompt, h.prompt_seconds);
        em_series_add(&t->generation, seconds);
        em_series_add(&t->touched, bytes_touched(t->source, bench->generated, chosen) / seconds);
        add_phases(t, &profile, h.seconds);
    }
    free(h.seconds);
    em_outcome_free(&after);
    em_profile_close(&profile);
    em_batch_free(&prompt);
    return good;
}

/* The best rate of the BLAS on the layer's large products at the prompt's rows. */
static double probe_best_sgemm(em_bench *bench, const em_config *config)
{
    em_shapes shapes = em_shapes_of(config);
    int64_t rows = bench->tokens < EM_ROW_BLOCK ? bench->tokens : EM_ROW_BLOCK;
    double best = (double)NAN;
    for (int s = 0; s < shapes.count; s++) {
        const em_shape *shape = &shapes.shape[s];
        if (shape->cols < config->emb_size) continue; /* a head's output: hardly a product */
        double rate = em_probe_sgemm(bench, rows, shape->matrices * shape->rows, shape->cols);
        if (!(best >= rate)) best = rate;
    }
    return best;
}

static double scaled(const em_series *series, double numerator, em_series *out)
{
    out->count = 0;
    for (int i = 0; i < series->count; i++) em_series_add(out, numerator / series->value[i]);
    return em_series_median(out);
}

static void add_phase_figures(const trial *t)
{
    static const char *const what[2] = {"prompt", "generation"};
    em_figures *figures = &t->bench->figures;
    const em_series *whole[2] = {&t->prompt, &t->generation};
    for (int part = 0; part < 2; part++)
        for (int phase = 0; phase < EM_NUM_PHASES; phase++) {
            em_series ms = {.count = 0};
            const em_series *s = &t->phase[part][phase];
            for (int i = 0; i < s->count; i++) em_series_add(&ms, 1e3 * s->value[i]);
            if (!(em_series_median(&ms) > 0)) continue;
            em_figure *figure = em_figures_add(figures, em_bench_groups[EM_BENCH_MODEL], "ms", &ms, "%s: %s, %s",
                                               t->name, what[part], em_phase_names[phase]);
            em_figure_limit(figure, 1e3 * em_series_median(whole[part]), "the whole");
        }
}

/* Of the compared storages, reference is the prompt's rate of f32, in tokens a second. */
static void add_figures(const trial *t, double *reference)
{
    em_bench *bench = t->bench;
    em_figures *figures = &bench->figures;
    const char *group = em_bench_groups[EM_BENCH_MODEL];
    em_storage storage = em_source_form(t->source, EM_FFN_UP, 0)->storage;
    em_compute compute = t->model->compute;
    double tokens = (double)bench->tokens, operations = prompt_operations(&t->model->config, bench->tokens);
    em_series rate, touched = {.count = 0};
    em_figure *figure;

    scaled(&t->prompt, operations / 1e9, &rate);
    figure = em_figures_add(figures, group, "GFLOP/s", &rate, "%s: prompt, operations", t->name);
    em_figure_limit(figure, em_series_median(&t->sgemm) / 1e9, "sgemm");
    if (storage == EM_F32 && bench->aimed) em_figure_target(figure, 0.85, false);

    double speed = scaled(&t->prompt, tokens, &rate);
    figure = em_figures_add(figures, group, "tokens/s", &rate, "%s: prompt", t->name);
    if (storage == EM_F32)
        *reference = speed;
    else if (isfinite(*reference)) {
        em_figure_limit(figure, *reference, "f32");
        if (bench->aimed && (storage == EM_BF16 || compute == EM_COMPUTE_INT8))
            em_figure_target(figure, compute == EM_COMPUTE_BF16 ? 1.6 : compute == EM_COMPUTE_INT8 ? 2.5 : 0.9, false);
    }

    for (int i = 0; i < t->touched.count; i++) em_series_add(&touched, t->touched.value[i] / 1e9);
    figure = em_figures_add(figures, group, "GB/s", &touched, "%s: generation, weights touched", t->name);
    em_figure_limit(figure, em_series_median(&t->read) / 1e9, "read");
    bool whole = t->model->config.ffn_size == bench->config.ffn_size; /* too large for any cache */
    if (bench->aimed && whole && storage != EM_F32 && compute == EM_COMPUTE_F32)
        em_figure_target(figure, storage == EM_BF16 ? 0.93 : 0.85, false);

    scaled(&t->generation, (double)bench->generated, &rate);
    em_figures_add(figures, group, "tokens/s", &rate, "%s: generation", t->name);
    add_phase_figures(t);
}

/* ---- memory ---- */

/* From here on the peak is that of what follows, where the system lets it. */
static void forget_peak(void)
{
#ifdef __GLIBC__
    malloc_trim(0); /* what was freed is no one's */
#endif
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

/* Each rank's peak since forget_peak, which was one run, against what it must hold. */
static void add_memory(const trial *t)
{
    em_bench *bench = t->bench;
    int P = bench->num_ranks;
    int64_t tokens = bench->tokens + bench->generated;
    double mine[2] = {(double)em_memory_peak(), 0};
    mine[1] = (double)em_weights_held(t->source, &t->model->layout, bench->rank).owned +
              (double)em_cache_bytes(&t->model->config, &t->model->layout, bench->rank, tokens, 1, true) +
              2 * largest_buffer(t->model, bench->tokens, t->load);
    double *all = em_alloc(2 * P, sizeof *all);
    MPI_Allgather(mine, 2, MPI_DOUBLE, all, 2, MPI_DOUBLE, bench->comm);
    for (int r = 0; r < P; r++) {
        em_series once = {.value = {all[2 * r] / 1e6}, .count = 1};
        em_figure *figure = em_figures_add(&bench->figures, em_bench_groups[EM_BENCH_MODEL], "MB", &once,
                                           "%s: peak memory of rank %d", t->name, r);
        em_figure_limit(figure, all[2 * r + 1] / 1e6, "weights, cache, 2 buffers");
        if (bench->aimed) em_figure_target(figure, 1.1, true);
    }
    free(all);
}

/* ---- trials ---- */

static bool run_trial(trial *t, bool first, double *reference, em_status *status)
{
    em_bench *bench = t->bench;
    em_bench_say(bench, "model: %s: prompt of %lld tokens, then %lld", t->name, (long long)bench->tokens,
                 (long long)bench->generated);
    if (!run_once(t, false, status)) return false;
    if (first) add_memory(t);
    for (int run = 0; run < bench->runs; run++) {
        em_series_add(&t->read, em_probe_read(bench));
        em_series_add(&t->sgemm, probe_best_sgemm(bench, &t->model->config));
        if (!run_once(t, true, status)) return false;
    }
    add_figures(t, reference);
    return true;
}

/* One storage of one model, computed in every way that fits it. A model that does not fit the machine is told and left. */
static bool try_storage(em_bench *bench, const em_config *config, em_storage storage, double *reference,
                        em_status *status)
{
    em_source source;
    em_model model;
    em_status refused = {0};
    em_extent extent = {
        .step_tokens = bench->tokens, .tokens = bench->tokens + bench->generated, .num_sequences = 1, .lasting = true};
    em_source_generate(&source, config, bench->seed, storage);
    em_bench_say(bench, "model: weights, %s, ffn_size %lld", em_storage_name(storage), (long long)config->ffn_size);
    em_layout layout = em_layout_named(bench->layout, &source, &bench->places);
    forget_peak();
    if (!em_model_open(&model, bench->comm, &source, &layout, extent, (em_manner){.threads = bench->threads}, NULL,
                       NULL, &refused)) {
        em_bench_say(bench, "left out: %s", refused.text);
        em_layout_free(&layout);
        em_source_close(&source);
        return true;
    }
    bool good = true;
    for (em_compute compute = EM_COMPUTE_F32; good && compute < EM_NUM_COMPUTES; compute++) {
        if (em_compute_fit(compute, storage) != compute || !em_bench_computes(bench, compute)) continue;
        trial *t = em_zeroed(1, sizeof *t);
        t->bench = bench;
        t->source = &source;
        t->model = &model;
        t->load = em_zeroed(config->num_experts, sizeof *t->load);
        snprintf(t->name, sizeof t->name, "ffn_size %lld, %s weights, %s compute", (long long)config->ffn_size,
                 em_storage_name(storage), em_compute_name(compute));
        model.compute = compute; /* the weights are the same */
        good = run_trial(t, compute == EM_COMPUTE_F32, reference, status);
        free(t->load);
        free(t);
    }
    em_model_close(&model);
    em_layout_free(&layout);
    em_source_close(&source);
    return good;
}

void em_bench_model(em_bench *bench, em_status *status)
{
    em_config small = em_bench_small(&bench->config);
    double reference = (double)NAN, none = (double)NAN;
    bool good = true, larger = bench->config.ffn_size > small.ffn_size;
    for (em_storage s = EM_F32; good && s < EM_NUM_STORAGES; s++)
        if (bench->storages[s]) good = try_storage(bench, &small, s, &reference, status);
    for (em_storage s = EM_BF16; good && larger && s < EM_NUM_STORAGES; s++)
        if (bench->storages[s]) good = try_storage(bench, &bench->config, s, &none, status);
}
