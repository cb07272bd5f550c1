/* inspect T.h5 exchange: rows and bytes from rank to rank, inside hosts and between them, and seconds by phase. */
#include "inspect.h"

#include "expertmesh/profile.h"

#include <string.h>

/* The rows of one layer, from rank to rank. */
static bool read_rows(em_inspect *in, int64_t layer, int64_t *rows, em_status *status)
{
    return em_view_read_layer(&in->view, EM_DISPATCH_ROWS, layer, rows, status);
}

static void layers(em_inspect *in, em_status *status)
{
    int64_t P = in->view.num_ranks, *rows = em_alloc(P * P, sizeof *rows), *load = em_alloc(P, sizeof *load);
    em_table *table =
        em_book_add(in->book, "layers", "rrrrrrr", "layer,rows,rows away,bytes away,most,most at,over mean",
                    "what the dispatch of each layer brought; away: to another rank than the token's own; "
                    "most: to one rank; over mean: most / mean over ranks");
    for (int64_t l = in->first_layer; l < in->past_layer && read_rows(in, l, rows, status); l++) {
        em_rows_by_rank(rows, (int)P, load);
        em_balance b = em_balance_of(load, P);
        int64_t away = b.total;
        for (int64_t r = 0; r < P; r++) away -= rows[r * P + r];
        em_table_whole(table, in->view.layer[l]);
        em_table_whole(table, b.total);
        em_table_whole(table, away);
        em_table_bytes(table, away * em_row_bytes(&in->view));
        em_table_whole(table, b.most);
        em_table_whole(table, b.most_at);
        em_table_real(table, 4, b.over_mean);
    }
    free(load);
    free(rows);
}

static void put_pair(em_inspect *in, em_table *table, int64_t pair, int64_t rows)
{
    em_table_whole(table, pair / in->view.num_ranks);
    em_table_whole(table, pair % in->view.num_ranks);
    em_table_whole(table, rows);
    em_table_bytes(table, rows * em_row_bytes(&in->view));
}

static void pairs(em_inspect *in, em_status *status)
{
    int64_t P = in->view.num_ranks, *rows = em_alloc(P * P, sizeof *rows), *sum = em_zeroed(P * P, sizeof *sum);
    em_table *table = em_book_add(in->book, "pairs", "rrrr", "source rank,rank,rows,bytes",
                                  "what the dispatch brought from rank to rank, in these layers together");
    for (int64_t l = in->first_layer; l < in->past_layer && read_rows(in, l, rows, status); l++)
        for (int64_t i = 0; i < P * P; i++) sum[i] += rows[i];
    for (int64_t i = 0; i < P * P; i++) put_pair(in, table, i, sum[i]);
    free(sum);
    free(rows);
}

static void all_rows(em_inspect *in, em_status *status)
{
    int64_t P = in->view.num_ranks, *rows = em_alloc(P * P, sizeof *rows);
    em_table *table = em_book_add(in->book, "rows", "rrrrr", "layer,source rank,rank,rows,bytes",
                                  "what the dispatch brought from rank to rank, layer by layer");
    for (int64_t l = in->first_layer; l < in->past_layer && read_rows(in, l, rows, status); l++)
        for (int64_t i = 0; i < P * P; i++) {
            em_table_whole(table, in->view.layer[l]);
            put_pair(in, table, i, rows[i]);
        }
    free(rows);
}

/* ---- seconds ---- */

/* The places of layers whose seconds are told: those asked for, and without --layer what lies outside of them, too. */
static int64_t past_layer(const em_inspect *in)
{
    bool one = em_option_value(in->call, "layer") != NULL;
    return in->past_layer + (one || !in->view.recorded[EM_OUTER_SECONDS] ? 0 : 1);
}

/* Which these are, in words. */
static const char *told(const em_inspect *in)
{
    if (past_layer(in) > in->past_layer) return "all layers and what lies outside of them";
    return in->past_layer - in->first_layer == 1 ? "this layer" : "these layers";
}

/* A phase in which no rank spent any time is left out. */
static void put_phases(em_inspect *in, em_table *table, int64_t layer, const double *seconds)
{
    const em_view *v = &in->view;
    for (int64_t p = 0; p < v->num_phases; p++) {
        em_seconds s = em_seconds_of(seconds + p, v->num_ranks, v->num_phases);
        if (s.max <= 0) continue;
        if (layer >= 0 && layer < v->num_layers) em_table_whole(table, v->layer[layer]);
        if (layer == v->num_layers) em_table_none(table);
        em_table_cell(table, "%s", v->phase[p]);
        em_table_cell(table, "%s", em_phase_kinds[em_phase_kind_of(v->phase[p])]);
        em_table_seconds(table, s.min);
        em_table_seconds(table, s.mean);
        em_table_seconds(table, s.max);
        em_table_whole(table, s.slowest);
    }
}

/* The sum over all told layers: seconds [P, phases]. */
static bool sum_seconds(em_inspect *in, double *sum, em_status *status)
{
    int64_t count = in->view.num_ranks * in->view.num_phases;
    double *seconds = em_alloc(count, sizeof *seconds);
    memset(sum, 0, (size_t)count * sizeof *sum);
    bool good = true;
    for (int64_t l = in->first_layer; good && l < past_layer(in); l++) {
        good = em_analysis_seconds(&in->view, l, seconds, status);
        for (int64_t i = 0; good && i < count; i++) sum[i] += seconds[i];
    }
    free(seconds);
    return good;
}

static void phases(em_inspect *in, const double *sum)
{
    em_table *table =
        em_book_add(in->book, "phases", "llrrrr", "phase,kind,min,mean,max,slowest",
                    "milliseconds of a rank (csv, json: seconds), in %s together: least, mean and most over "
                    "ranks; transfer: bringing rows and summing what came, after wait: for other ranks",
                    told(in));
    put_phases(in, table, -1, sum);
}

static void layer_phases(em_inspect *in, em_status *status)
{
    double *seconds = em_alloc(in->view.num_ranks * in->view.num_phases, sizeof *seconds);
    em_table *table = em_book_add(in->book, "layer_phases", "rllrrrr", "layer,phase,kind,min,mean,max,slowest",
                                  "the same, layer by layer; -: outside of the layers");
    for (int64_t l = in->first_layer; l < past_layer(in); l++) {
        if (!em_analysis_seconds(&in->view, l, seconds, status)) break;
        put_phases(in, table, l, seconds);
    }
    free(seconds);
}

static void ranks(em_inspect *in, const double *sum)
{
    double *kinds = em_zeroed((int64_t)in->view.num_ranks * EM_NUM_KINDS, sizeof *kinds);
    em_table *table = em_book_add(in->book, "ranks", "rrrrrr", "rank,compute,transfer,wait,trace,total",
                                  "milliseconds of each rank by kind (csv, json: seconds)");
    em_seconds_by_kind(&in->view, sum, kinds);
    for (int r = 0; r < in->view.num_ranks; r++) {
        double all = 0;
        em_table_whole(table, r);
        for (int k = 0; k < EM_NUM_KINDS; k++) {
            em_table_seconds(table, kinds[r * EM_NUM_KINDS + k]);
            all += kinds[r * EM_NUM_KINDS + k];
        }
        em_table_seconds(table, all);
    }
    free(kinds);
}

static void seconds(em_inspect *in, em_status *status)
{
    em_book *book = in->book;
    bool by_phase = em_book_wants(book, "phases"), by_rank = em_book_wants(book, "ranks");
    bool by_layer = em_book_wants(book, "layer_phases");
    bool asked =
        em_book_insists(book, "phases") || em_book_insists(book, "ranks") || em_book_insists(book, "layer_phases");
    if (!by_phase && !by_rank && !by_layer) return;
    double *sum = em_alloc(in->view.num_ranks * in->view.num_phases, sizeof *sum);
    if (!sum_seconds(in, sum, status)) {
        if (!asked && !in->view.complete) em_inspect_excuse(in, status);
    } else {
        if (by_phase) phases(in, sum);
        if (by_rank) ranks(in, sum);
        if (by_layer) layer_phases(in, status);
    }
    free(sum);
}

/* ---- within hosts and between them ---- */

/* Adds to sum [phases, reaches] what all ranks moved in a layer, or outside of the layers. */
static bool add_moved(em_inspect *in, em_quantity inner, em_quantity outer, int64_t layer, int64_t *sum,
                      em_status *status)
{
    int64_t width = in->view.num_phases * EM_NUM_REACHES, count = in->view.num_ranks * width;
    bool outside = layer == in->view.num_layers;
    int64_t *moved = em_alloc(count, sizeof *moved);
    bool good = em_view_read_layer(&in->view, outside ? outer : inner, outside ? 0 : layer, moved, status);
    for (int64_t i = 0; good && i < count; i++) sum[i % width] += moved[i];
    free(moved);
    return good;
}

static void put_moved(em_inspect *in, const int64_t *rows, const int64_t *bytes)
{
    em_table *table =
        em_book_add(in->book, "moved", "lrrrr", "phase,rows inside,bytes inside,rows between,bytes between",
                    "what each phase moved, in %s together; inside: read in the memory of another rank of "
                    "the host; between: sent between hosts",
                    told(in));
    for (int64_t p = 0; p < in->view.num_phases; p++) {
        const int64_t *r = rows + p * EM_NUM_REACHES, *b = bytes + p * EM_NUM_REACHES;
        if (r[EM_INSIDE_HOSTS] + r[EM_BETWEEN_HOSTS] == 0) continue;
        em_table_cell(table, "%s", in->view.phase[p]);
        for (int reach = 0; reach < EM_NUM_REACHES; reach++) {
            em_table_whole(table, r[reach]);
            em_table_bytes(table, b[reach]);
        }
    }
}

static void moved(em_inspect *in, em_status *status)
{
    int64_t count = in->view.num_phases * EM_NUM_REACHES;
    int64_t *rows = em_zeroed(count, sizeof *rows), *bytes = em_zeroed(count, sizeof *bytes);
    bool good = true;
    for (int64_t l = in->first_layer; good && l < past_layer(in); l++)
        good = add_moved(in, EM_EXCHANGE_ROWS, EM_OUTER_EXCHANGE_ROWS, l, rows, status) &&
               add_moved(in, EM_EXCHANGE_BYTES, EM_OUTER_EXCHANGE_BYTES, l, bytes, status);
    if (good)
        put_moved(in, rows, bytes);
    else if (!em_book_insists(in->book, "moved") && !in->view.complete)
        em_inspect_excuse(in, status);
    free(bytes);
    free(rows);
}

void em_inspect_exchange(em_inspect *in, em_status *status)
{
    if (em_book_wants(in->book, "layers")) layers(in, status);
    if (em_book_wants(in->book, "pairs") && !status->code) pairs(in, status);
    if (em_book_wants(in->book, "rows") && !status->code) all_rows(in, status);
    if (em_book_wants(in->book, "moved") && !status->code) moved(in, status);
    if (!status->code) seconds(in, status);
}
