#include "layout_only.h"

#include "../forecast.h"
#include "../summary.h"
#include "../table.h"
#include "expertmesh/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- places and maps ---- */

bool em_outlook_places(const em_call *call, em_places *places, em_status *status)
{
    enum { MOST_RANKS = 1 << 20 };
    static const char *const planned[] = {"ranks", "ranks-per-host", "routing"};
    int64_t ranks, per_host;
    bool only = em_option_value(call, "layout-only") != NULL;
    for (int i = 0; i < 3; i++)
        if (em_option_value(call, planned[i]) && !only)
            return em_fail(status, EM_USAGE, "run: --%s is for --layout-only, which is missing", planned[i]);
    if (!em_option_whole(call, "ranks", 1, MOST_RANKS, call->num_ranks, &ranks, status) ||
        !em_option_whole(call, "ranks-per-host", 1, MOST_RANKS, ranks, &per_host, status))
        return false;
    if (!em_option_value(call, "ranks") && !em_option_value(call, "ranks-per-host"))
        return em_places_find(call->comm, places, status);
    *places = em_places_make((int)ranks, (int)per_host);
    return true;
}

void em_outlook_write_map(const em_layout *layout, const char *path, em_status *status)
{
    char *partial = em_text("%s.partial", path), *map = em_layout_json(layout);
    FILE *file = fopen(partial, "w");
    bool good = file && fprintf(file, "%s\n", map) >= 0;
    if (file && fclose(file) != 0) good = false;
    if (!good || rename(partial, path) != 0) {
        em_fail(status, EM_CANNOT_WRITE, "%s: the map cannot be written: %s", path, strerror(errno));
        if (file) unlink(partial);
    }
    free(partial);
    free(map);
}

/* ---- who owns what ---- */

/* A text that grows. */
typedef struct words {
    char *text;
    size_t length, room;
} words;

static void say(words *w, const char *between, int64_t first, int64_t last)
{
    char part[64];
    size_t more = (size_t)(first == last ? snprintf(part, sizeof part, "%s%lld", between, (long long)first)
                                         : snprintf(part, sizeof part, "%s%lld-%lld", between, (long long)first,
                                                    (long long)last));
    if (w->length + more + 1 > w->room) {
        w->text = em_grow(w->text, (int64_t)w->room, (int64_t)(2 * w->room + more + 64), 1);
        w->room = 2 * w->room + more + 64;
    }
    memcpy(w->text + w->length, part, more + 1);
    w->length += more;
}

static void print_words(em_table *table, words *w)
{
    em_table_cell(table, "%s", w->length > 0 ? w->text : "-");
    free(w->text);
}

/* "0-2,5". */
static void print_units(em_table *table, em_units units)
{
    words w = {0};
    for (int64_t i = 0, run; i < units.count; i += run) {
        run = em_units_run(units, i);
        say(&w, i > 0 ? "," : "", units.unit[i], units.unit[i + run - 1]);
    }
    print_words(table, &w);
}

/* The slices of an expert here as bits, one a slice; i: the place of the first of them; next: of the next expert's. */
static unsigned slices_at(const em_layout *layout, em_units units, int64_t i, int64_t *next)
{
    int64_t slices = layout->slices_per_expert, expert = units.unit[i] / slices;
    unsigned bits = 0;
    for (; i < units.count && units.unit[i] / slices == expert; i++) bits |= 1U << units.unit[i] % slices;
    *next = i;
    return bits;
}

/* "0-2 3/0-4 4/5": experts 0 to 2 whole; of 3 the slices 0 to 4, of 4 slice 5. Neighbours of which the same is here are told
 * at once. */
static void print_experts(em_table *table, const em_layout *layout, em_units units)
{
    words w = {0};
    int64_t slices = layout->slices_per_expert, next, after;
    for (int64_t i = 0; i < units.count; i = next) {
        int64_t first = units.unit[i] / slices, last = first;
        unsigned bits = slices_at(layout, units, i, &next);
        while (next < units.count && units.unit[next] / slices == last + 1 &&
               slices_at(layout, units, next, &after) == bits) {
            next = after;
            last++;
        }
        say(&w, i > 0 ? " " : "", first, last);
        const char *between = "/";
        for (int64_t s = 0, end; bits != (1U << slices) - 1 && s < slices; s = end) {
            for (end = s + 1; end < slices && (bits >> end & 1) == (bits >> s & 1);) end++;
            if (!(bits >> s & 1)) continue;
            say(&w, between, s, end - 1);
            between = ",";
        }
    }
    print_words(table, &w);
}

/* Rows of neighbouring blocks at once. */
static void print_vocabulary(em_table *table, const em_layout *layout, em_units units)
{
    words w = {0};
    for (int64_t i = 0, run; i < units.count; i += run) {
        run = em_units_run(units, i);
        say(&w, i > 0 ? "," : "", em_layout_vocab_rows(layout, units.unit[i]).begin,
            em_layout_vocab_rows(layout, units.unit[i + run - 1]).end - 1);
    }
    print_words(table, &w);
}

static void print_owners(const em_outlook *o)
{
    static const char *const head[] = {"rank", "host of rank", "heads", "experts/slices", "rows of the vocabulary"};
    em_table *table = em_table_new(5, "rrlll");
    for (int i = 0; i < 5; i++) em_table_cell(table, "%s", head[i]);
    for (int r = 0; r < o->places->num_ranks; r++) {
        em_table_cell(table, "%d", r);
        em_table_cell(table, "%d", o->places->host[r]);
        print_units(table, em_layout_heads(o->layout, r));
        print_experts(table, o->layout, em_layout_ffn_units(o->layout, r));
        print_vocabulary(table, o->layout, em_layout_vocab_units(o->layout, r));
    }
    printf("\nwho owns what (an expert without slices is owned whole)\n");
    em_table_print(table, stdout);
    em_table_free(table);
}

static void print_needs(const em_outlook *o)
{
    static const char *const head[] = {"rank", "weights", "activations", "cache", "in all"};
    em_extent extent = em_generation_extent(o->prompts, o->generation);
    em_table *table = em_table_new(5, "rrrrr");
    em_bytes_text text;
    for (int i = 0; i < 5; i++) em_table_cell(table, "%s", head[i]);
    for (int r = 0; r < o->places->num_ranks; r++) {
        em_need need = em_model_need(o->source, o->layout, r, extent);
        double weights = (double)(need.weights.owned + need.weights.repeated);
        double bytes[] = {weights, (double)need.activations, (double)need.cache, 0};
        bytes[3] = bytes[0] + bytes[1] + bytes[2];
        em_table_cell(table, "%d", r);
        for (int i = 0; i < 4; i++) em_table_cell(table, "%s", em_bytes(bytes[i], text));
    }
    printf("\nbytes that each rank needs (activations: at most, with an expert loaded up to twice its share)\n");
    em_table_print(table, stdout);
    em_table_free(table);
}

/* ---- the steps of a run ---- */

/* The tokens that a run will take, in the order in which it takes them, as far as they are known. */
typedef struct course {
    int64_t rows;
    int32_t *token;    /* [rows] -1: not known */
    int32_t *sequence; /* [rows] */
    int32_t *expert;   /* [L, rows, S]; NULL: not known */
} course;

static void free_course(course *c)
{
    free(c->token);
    free(c->sequence);
    free(c->expert);
}

/* Prompts, and after them one token of each sequence a step. */
static course plan_course(const em_batch *prompts, const em_generation *generation)
{
    course c = {.rows = em_generation_rows(prompts, generation)};
    int64_t T = prompts->num_tokens;
    c.token = em_alloc(c.rows, sizeof *c.token);
    c.sequence = em_alloc(c.rows, sizeof *c.sequence);
    memcpy(c.token, prompts->token_id, (size_t)T * sizeof *c.token);
    memcpy(c.sequence, prompts->sequence, (size_t)T * sizeof *c.sequence);
    for (int64_t i = T; i < c.rows; i++) {
        c.token[i] = -1;
        c.sequence[i] = (int32_t)((i - T) % prompts->num_sequences);
    }
    return c;
}

/* Does the trace hold the choices of a run from its first token on, in all layers? */
static bool check_trace(const em_outlook *o, const em_view *view, int64_t rows, em_status *status)
{
    const em_config *c = &o->source->config;
    const char *path = em_view_path(view);
    if (!em_view_need(view, EM_EXPERT_INDICES, status)) return false;
    if (view->config.num_layers != c->num_layers || view->config.num_experts != c->num_experts ||
        view->config.num_selected_experts != c->num_selected_experts)
        return em_fail(
            status, EM_BAD_DATA,
            "--routing %s: a trace of %lld layers with %lld of %lld experts selected, but the model has %lld "
            "layers with %lld of %lld",
            path, (long long)view->config.num_layers, (long long)view->config.num_selected_experts,
            (long long)view->config.num_experts, (long long)c->num_layers, (long long)c->num_selected_experts,
            (long long)c->num_experts);
    bool whole = view->num_layers == c->num_layers && rows >= o->prompts->num_tokens;
    for (int64_t t = 0; whole && t < rows; t++) whole = view->token[t] == t;
    if (whole) return true;
    return em_fail(status, EM_BAD_DATA, "--routing %s: not all layers and tokens of the prompts are recorded there",
                   path);
}

static bool read_numbers(const em_view *view, em_quantity quantity, int64_t layer, int64_t rows, int32_t *out,
                         em_status *status)
{
    return em_view_read(view, quantity, layer, 0, rows, out, status);
}

/* The course of a run that was traced: as many of its tokens as this run takes. */
static bool read_course(const em_outlook *o, const em_view *view, course *c, em_status *status)
{
    int64_t L = o->source->config.num_layers, S = o->source->config.num_selected_experts, T = o->prompts->num_tokens;
    int64_t rows = view->tokens_done < c->rows ? view->tokens_done : c->rows;
    if (!check_trace(o, view, rows, status)) return false;
    c->rows = rows;
    if (!read_numbers(view, EM_TOKEN_IDS, 0, rows, c->token, status) ||
        !read_numbers(view, EM_SEQUENCE, 0, rows, c->sequence, status))
        return false;
    if (memcmp(c->token, o->prompts->token_id, (size_t)T * sizeof *c->token) != 0 ||
        memcmp(c->sequence, o->prompts->sequence, (size_t)T * sizeof *c->sequence) != 0)
        return em_fail(status, EM_BAD_DATA, "--routing %s: a trace of other prompts", em_view_path(view));
    c->expert = em_alloc(L * rows * S, sizeof *c->expert);
    for (int64_t layer = 0; layer < L; layer++)
        if (!read_numbers(view, EM_EXPERT_INDICES, layer, rows, c->expert + layer * rows * S, status)) return false;
    for (int64_t i = 0; i < L * rows * S; i++)
        if (c->expert[i] < 0 || c->expert[i] >= o->source->config.num_experts)
            return em_fail(status, EM_BAD_DATA, "--routing %s: expert_indices has %d, which is no expert",
                           em_view_path(view), c->expert[i]);
    return true;
}

static bool find_course(const em_outlook *o, course *c, em_status *status)
{
    em_view view = {0};
    *c = plan_course(o->prompts, o->generation);
    if (!o->routing) return true;
    bool good = em_view_open(&view, o->routing, status) && read_course(o, &view, c, status);
    em_view_close(&view);
    return good;
}

/* How many tokens the step takes that begins with token `first`: of the prompts so many at a time; then one of each sequence
 * that goes on. */
static int64_t step_tokens(const em_outlook *o, const course *c, int64_t first)
{
    int64_t prompts = o->prompts->num_tokens, chunk = o->generation->prefill_chunk, count = 1;
    if (first < prompts) return chunk > 0 && first + chunk < prompts ? chunk : prompts - first;
    while (first + count < c->rows && c->sequence[first + count] > c->sequence[first + count - 1]) count++;
    return count;
}

static void follow(const em_outlook *o, const course *c, em_forecast *forecast)
{
    int64_t L = o->source->config.num_layers, S = o->source->config.num_selected_experts;
    for (int64_t first = 0, T; first < c->rows; first += T) {
        T = step_tokens(o, c, first);
        int32_t *expert = c->expert ? em_alloc(L * T * S, sizeof *expert) : NULL;
        for (int64_t layer = 0; expert && layer < L; layer++)
            memcpy(expert + layer * T * S, c->expert + (layer * c->rows + first) * S, (size_t)(T * S) * sizeof *expert);
        em_forecast_step(forecast, first, T, c->token + first, expert);
        free(expert);
    }
}

/* ---- rows ---- */

static void print_layers(const em_outlook *o, const em_forecast *f)
{
    em_table *table = em_table_new(3, "rrr");
    em_bytes_text bytes;
    em_table_cell(table, "layer");
    em_table_cell(table, "rows sent");
    em_table_cell(table, "bytes sent");
    for (int64_t layer = 0; layer < o->source->config.num_layers; layer++) {
        double rows = 0;
        for (int i = 0; i < EM_NUM_PHASES * EM_NUM_REACHES; i++)
            rows += f->rows[layer * EM_NUM_PHASES * EM_NUM_REACHES + i];
        em_table_cell(table, "%lld", (long long)layer);
        em_summary_rows(table, rows, f->exact);
        em_table_cell(table, "%s", em_bytes(rows * (double)o->source->config.emb_size * sizeof(float), bytes));
    }
    printf("\nper layer: rows and bytes sent between ranks\n");
    em_table_print(table, stdout);
    em_table_free(table);
}

/* From rank (line) to rank (column). */
static void print_dispatched(const em_outlook *o, const em_forecast *f)
{
    enum { MOST = 32 };
    int P = o->places->num_ranks;
    if (!f->dispatched || P > MOST) return;
    char sides[MOST + 2] = "r";
    memset(sides, 'r', (size_t)P + 1);
    em_table *table = em_table_new(P + 1, sides);
    em_table_cell(table, "from rank");
    for (int to = 0; to < P; to++) em_table_cell(table, "to %d", to);
    for (int from = 0; from < P; from++) {
        em_table_cell(table, "%d", from);
        for (int to = 0; to < P; to++) em_summary_rows(table, f->dispatched[(int64_t)from * P + to], f->exact);
    }
    printf("\nrows dispatched, in all layers\n");
    em_table_print(table, stdout);
    em_table_free(table);
}

static void print_rows(const em_outlook *o, const course *c)
{
    em_forecast f = em_forecast_open(&o->source->config, o->layout, o->places->host, o->flat);
    follow(o, c, &f);
    print_layers(o, &f);
    em_summary_exchanges(&o->source->config, o->places->num_ranks, o->places->host, o->flat, f.rows, f.exact, stdout);
    print_dispatched(o, &f);
    printf(f.exact
               ? "\nthese counts are exact, for %lld tokens\n"
               : "\nthese counts are for %lld tokens; those of dispatch and combine are what an even router would make "
                 "on the average,\nand those of the embedding likewise for tokens that are not known yet; with "
                 "--routing T.h5, a trace of the same tokens,\nall are exact\n",
           (long long)c->rows);
    em_forecast_close(&f);
}

void em_outlook_print(const em_outlook *outlook, em_status *status)
{
    course c;
    if (find_course(outlook, &c, status)) {
        em_summary_model(outlook->source, stdout);
        em_summary_weights(outlook->source, outlook->layout, stdout);
        print_owners(outlook);
        print_needs(outlook);
        print_rows(outlook, &c);
    }
    free_course(&c);
}
