#include "sections.h"

#include "charts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELLS = 2048, BARS = 48 }; /* of one picture, of all traces together */

void em_missing_put(em_page *page, const em_figures *figures, em_quantity quantity)
{
    em_page_put(page, "<p class=\"missing\">");
    em_page_text(page, figures->missing[quantity].text);
    em_page_put(page, "</p>\n");
}

static em_scale layers_of(const em_figures *f)
{
    return (em_scale){"layer", f->L, f->view.layer, NULL};
}

static double largest(const double *value, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; value && i < count; i++) most = value[i] > most ? value[i] : most;
    return most;
}

/* ---- experts ---- */

static void draw_load(em_page *page, const em_runs *runs, const em_figures *f)
{
    double most = 0;
    if (!f->load) {
        em_missing_put(page, f, EM_EXPERT_LOAD);
        return;
    }
    for (int i = 0; i < runs->count; i++)
        most = fmax(most, largest(runs->figures[i].load, runs->figures[i].L * runs->figures[i].E));
    double *value = em_alloc(f->E * f->L, sizeof *value);
    for (int64_t i = 0; i < f->E * f->L; i++) value[i] = f->load[i % f->L * f->E + i / f->L];
    em_map map = {.what = "rows",
                  .title = "Rows that each expert worked on, by layer",
                  .x = layers_of(f),
                  .y = {"expert", f->E, NULL, NULL},
                  .value = value,
                  .most = most,
                  .room = CELLS / runs->count};
    em_map_draw(page, &map);
    free(value);
}

static void draw_balance(em_page *page, const em_runs *runs, const em_figures *f)
{
    if (!f->load) {
        em_missing_put(page, f, EM_EXPERT_LOAD);
        return;
    }
    double *over = em_alloc(f->L, sizeof *over);
    for (int64_t i = 0; i < f->L; i++) over[i] = f->balance[i].over_mean;
    em_line line[] = {{.name = "largest load / mean load", .value = over}};
    em_lines lines = {.what = "largest load / mean load",
                      .title = "Largest load over mean load, by layer",
                      .x = layers_of(f),
                      .line = line,
                      .num_lines = 1,
                      .most = 1};
    for (int r = 0; r < runs->count; r++)
        for (int64_t i = 0; runs->figures[r].load && i < runs->figures[r].L; i++)
            lines.most = fmax(lines.most, runs->figures[r].balance[i].over_mean);
    em_lines_draw(page, &lines);
    free(over);
}

static void draw_router(em_page *page, const em_runs *runs, const em_figures *f)
{
    (void)runs;
    if (!f->entropy) {
        em_missing_put(page, f, EM_ROUTER_PROBS);
        return;
    }
    em_line line[] = {{.name = "entropy / log(experts)", .value = f->entropy},
                      {.name = "probability of the first choice", .value = f->best}};
    em_lines lines = {.what = "mean over tokens",
                      .title = "Entropy of the router by layer",
                      .x = layers_of(f),
                      .line = line,
                      .num_lines = 2,
                      .most = 1};
    em_lines_draw(page, &lines);
}

static void draw_pairs(em_page *page, const em_runs *runs, const em_figures *f)
{
    double most = 0;
    if (!f->pairs) {
        em_missing_put(page, f, EM_EXPERT_INDICES);
        return;
    }
    for (int i = 0; i < runs->count; i++)
        most = fmax(most, largest(runs->figures[i].pairs, runs->figures[i].E * runs->figures[i].E));
    em_map map = {.what = "times together",
                  .title = "How often two experts were chosen for the same token",
                  .x = {"expert", f->E, NULL, NULL},
                  .y = {"expert", f->E, NULL, NULL},
                  .value = f->pairs,
                  .most = most,
                  .square = true,
                  .sum = true,
                  .numbers_by_y = true,
                  .room = CELLS / runs->count};
    em_map_draw(page, &map);
}

/* ---- neurons and states ---- */

static void put_sample(em_page *page, const em_figures *f, int64_t tokens)
{
    if (f->num_text > tokens)
        em_page_put(page, "<p class=\"note\">From %lld tokens of each layer, evenly apart among all %lld.</p>\n",
                    (long long)tokens, (long long)f->num_text);
}

static void draw_neurons(em_page *page, const em_runs *runs, const em_figures *f)
{
    if (!f->rms) {
        em_missing_put(page, f, f->view.recorded[EM_FFN_HIDDEN] ? EM_EXPERT_INDICES : EM_FFN_HIDDEN);
        return;
    }
    double least = INFINITY, most = 0, *value = em_alloc(f->E * f->L, sizeof *value);
    for (int i = 0; i < runs->count; i++) {
        const em_figures *one = &runs->figures[i];
        most = fmax(most, largest(one->rms, one->L * one->E));
        for (int64_t k = 0; one->rms && k < one->L * one->E; k++) least = fmin(least, one->rms[k]);
    }
    for (int64_t i = 0; i < f->E * f->L; i++) value[i] = f->rms[i % f->L * f->E + i / f->L];
    em_map map = {.what = "RMS of outputs",
                  .title = "Size of the outputs of each expert's neurons, by layer",
                  .x = layers_of(f),
                  .y = {"expert", f->E, NULL, NULL},
                  .value = value,
                  .least = fmin(least, most),
                  .most = most,
                  .room = CELLS / runs->count};
    em_map_draw(page, &map);
    free(value);
    put_sample(page, f, f->neuron_tokens);
}

static void draw_quiet(em_page *page, const em_runs *runs, const em_figures *f)
{
    (void)runs;
    if (!f->quiet) {
        em_missing_put(page, f, f->view.recorded[EM_FFN_HIDDEN] ? EM_EXPERT_INDICES : EM_FFN_HIDDEN);
        return;
    }
    em_line line[] = {{.name = "outputs near zero", .value = f->quiet},
                      {.name = "neurons near zero for every token", .value = f->dead}};
    em_lines lines = {.what = "part of all",
                      .title = "Part of the neurons' outputs near zero, by layer",
                      .x = layers_of(f),
                      .line = line,
                      .num_lines = 2,
                      .most = 0};
    for (int i = 0; i < runs->count; i++) {
        lines.most = fmax(lines.most, largest(runs->figures[i].quiet, runs->figures[i].L));
        lines.most = fmax(lines.most, largest(runs->figures[i].dead, runs->figures[i].L));
    }
    em_lines_draw(page, &lines);
    put_sample(page, f, f->neuron_tokens);
}

static void draw_norms(em_page *page, const em_runs *runs, const em_figures *f)
{
    static const char *const names[EM_NUM_PLACES] = {"before the layer", "between attention and experts",
                                                     "after the layer"};
    em_line line[EM_NUM_PLACES];
    em_lines lines = {.what = "2-norm of a token's state: mean, least to most",
                      .title = "Norms of the residual state through the layers",
                      .x = layers_of(f),
                      .line = line};
    for (int i = 0; i < EM_NUM_PLACES; i++)
        if (f->norm[i].mean)
            line[lines.num_lines++] = (em_line){names[i], f->norm[i].mean, f->norm[i].least, f->norm[i].most};
    if (lines.num_lines == 0) {
        em_missing_put(page, f, EM_RESID_POST);
        return;
    }
    for (int r = 0; r < runs->count; r++)
        for (int i = 0; i < EM_NUM_PLACES; i++)
            lines.most = fmax(lines.most, largest(runs->figures[r].norm[i].most, runs->figures[r].L));
    em_lines_draw(page, &lines);
    put_sample(page, f, f->norm_tokens);
}

/* ---- ranks ---- */

static void draw_bytes(em_page *page, const em_runs *runs, const em_figures *f)
{
    double most = 0;
    if (!f->bytes) {
        em_missing_put(page, f, EM_DISPATCH_ROWS);
        return;
    }
    for (int i = 0; i < runs->count; i++)
        most = fmax(most, largest(runs->figures[i].bytes, runs->figures[i].P * runs->figures[i].P));
    em_map map = {.what = "bytes",
                  .bytes = true,
                  .title = "Bytes from rank to rank",
                  .x = {"to rank", f->P, NULL, NULL},
                  .y = {"from rank", f->P, NULL, NULL},
                  .value = f->bytes,
                  .most = most,
                  .square = true,
                  .sum = true,
                  .numbers_by_y = true,
                  .room = CELLS / runs->count};
    em_map_draw(page, &map);
}

/* A colour each kind of work; what brings rows for it is hatched in that colour. */
static em_fill fill_of(const char *phase, int64_t place)
{
    static const struct {
        const char *phase;
        em_fill fill;
    } fills[] = {{"embedding", {7, EM_PLAIN}}, {"gather", {0, EM_RISING}},   {"attention", {0, EM_PLAIN}},
                 {"sum", {0, EM_FALLING}},     {"router", {6, EM_PLAIN}},    {"dispatch", {3, EM_RISING}},
                 {"experts", {3, EM_PLAIN}},   {"combine", {3, EM_FALLING}}, {"output", {5, EM_PLAIN}},
                 {"wait", {0, EM_HOLLOW}},     {"trace", {2, EM_PLAIN}}};
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        if (strcmp(fills[i].phase, phase) == 0) return fills[i].fill;
    return (em_fill){(int)(place % EM_NUM_COLOURS), EM_RISING};
}

static double most_of_bars(const em_runs *runs, bool seconds)
{
    double most = 0;
    for (int i = 0; i < runs->count; i++) {
        const em_figures *f = &runs->figures[i];
        em_bars bars = {.bar = {"rank", f->P, NULL, NULL}, .value = seconds ? f->seconds : f->memory};
        bars.part.count = seconds ? f->view.num_phases : EM_NUM_MEMORIES;
        if (bars.value) most = fmax(most, em_bars_most(&bars));
    }
    return most;
}

static void draw_phases(em_page *page, const em_runs *runs, const em_figures *f)
{
    if (!f->seconds) {
        em_missing_put(page, f, EM_PHASE_SECONDS);
        return;
    }
    em_fill *fill = em_alloc(f->view.num_phases, sizeof *fill);
    for (int64_t p = 0; p < f->view.num_phases; p++) fill[p] = fill_of(f->view.phase[p], p);
    em_bars bars = {.what = "seconds",
                    .title = "Seconds of each rank by phase",
                    .bar = {"rank", f->P, NULL, NULL},
                    .part = {"phase", f->view.num_phases, NULL, (const char *const *)f->view.phase},
                    .fill = fill,
                    .value = f->seconds,
                    .most = most_of_bars(runs, true),
                    .room = BARS / runs->count};
    em_bars_draw(page, &bars);
    free(fill);
}

static void draw_memory(em_page *page, const em_runs *runs, const em_figures *f)
{
    static const char *const parts[] = {"weights", "all else at the peak"};
    static const em_fill fill[] = {{0, EM_PLAIN}, {1, EM_PLAIN}};
    if (!f->memory) {
        em_missing_put(page, f, EM_MEMORY_BYTES);
        return;
    }
    em_bars bars = {.what = "bytes",
                    .title = "Memory of each rank",
                    .bar = {"rank", f->P, NULL, NULL},
                    .part = {"of", 2, NULL, parts},
                    .fill = fill,
                    .value = f->memory,
                    .most = most_of_bars(runs, false),
                    .room = BARS / runs->count};
    em_bars_draw(page, &bars);
}

const em_section em_sections[] = {
    {"load", "Load of the experts", "Token rows that each expert worked on in each layer.", false, draw_load},
    {"balance", "Balance of the experts", "The largest load of a layer against the mean: 1 is even.", false,
     draw_balance},
    {"router", "Router", "How sure the router was: an entropy of 1 is a guess among all experts.", false, draw_router},
    {"pairs", "Experts chosen together", "Tokens for which both experts were chosen, over all layers of the trace.",
     false, draw_pairs},
    {"text", "Text by expert", "Each token in the colour of its first expert.", true, em_text_draw},
    {"exchange", "Bytes between ranks",
     "What the experts of each rank took from the tokens of each, over all layers of the trace. The diagonal stayed on "
     "its "
     "rank; between hosts a row that several ranks of one need crosses once (exchange_bytes).",
     false, draw_bytes},
    {"phases", "Time by rank", "Hatched: bringing rows for the work of that colour. Hollow: waiting for other ranks.",
     false, draw_phases},
    {"neurons", "Activity of neurons",
     "Root mean square of the outputs of an expert's first-layer neurons, for the tokens that chose it; blank: none "
     "did. The colours begin at the least.",
     false, draw_neurons},
    {"quiet", "Quiet neurons",
     "Near zero: at most a hundredth of the root mean square of the outputs for the same token, layer and expert.",
     false, draw_quiet},
    {"norms", "Residual state", "The size of a token's state on its way through the layers, over tokens.", false,
     draw_norms},
    {"memory", "Memory by rank", "The weights that a rank holds, and what else its process held at its peak.", false,
     draw_memory},
};
const int em_num_sections = sizeof em_sections / sizeof *em_sections;
