/* inspect T.h5 experts: how loads lie over experts and ranks, which experts are chosen together, and by which tokens. */
#include "inspect.h"

typedef bool read_load(em_inspect *in, int64_t layer, int64_t *load, em_status *status);

static bool load_of_experts(em_inspect *in, int64_t layer, int64_t *load, em_status *status)
{
    return em_view_read_layer(&in->view, EM_EXPERT_LOAD, layer, load, status);
}

static bool load_of_ranks(em_inspect *in, int64_t layer, int64_t *load, em_status *status)
{
    int64_t P = in->view.num_ranks, *rows = em_alloc(P * P, sizeof *rows);
    bool good = em_view_read_layer(&in->view, EM_DISPATCH_ROWS, layer, rows, status);
    if (good) em_rows_by_rank(rows, in->view.num_ranks, load);
    free(rows);
    return good;
}

static void put_balance(em_table *table, const em_balance *b)
{
    em_table_whole(table, b->total);
    em_table_whole(table, b->most);
    em_table_whole(table, b->most_at);
    em_table_real(table, 5, b->mean);
    em_table_real(table, 4, b->over_mean);
    em_table_real(table, 4, b->variation);
    em_table_real(table, 4, b->evenness);
    em_table_whole(table, b->unused);
}

static void put_router(em_inspect *in, em_table *table, int64_t layer, em_status *status)
{
    em_router_figures router = {0, (double)NAN, (double)NAN};
    if (in->view.recorded[EM_ROUTER_PROBS]) em_analysis_router(&in->view, layer, &router, status);
    em_table_real(table, 4, router.entropy);
    em_table_real(table, 4, router.best);
}

static void balance(em_inspect *in, em_status *status)
{
    int64_t E = in->view.config.num_experts, *load = em_alloc(E, sizeof *load);
    em_table *table =
        em_book_add(in->book, "balance", "rrrrrrrrrrr",
                    "layer,rows,most,most at,mean,over mean,variation,evenness,unused,router entropy,best probability",
                    "rows of each layer's experts; most: of one expert; over mean: most / mean; variation: standard "
                    "deviation / mean; evenness, router entropy: entropy / log %lld",
                    (long long)E);
    for (int64_t l = in->first_layer; !status->code && l < in->past_layer; l++) {
        if (!load_of_experts(in, l, load, status)) break;
        em_balance b = em_balance_of(load, E);
        em_table_whole(table, in->view.layer[l]);
        put_balance(table, &b);
        put_router(in, table, l, status);
    }
    free(load);
    if (!status->code && !in->view.recorded[EM_ROUTER_PROBS]) {
        em_view_need(&in->view, EM_ROUTER_PROBS, status);
        em_inspect_excuse(in, status);
    }
}

/* Loads one by one, of experts or ranks. */
static void loads(em_inspect *in, const char *name, const char *heads, const char *title, int64_t count,
                  read_load *read, em_status *status)
{
    int64_t *load = em_alloc(count, sizeof *load), only = count == in->view.config.num_experts ? in->expert : -1;
    em_table *table = em_book_add(in->book, name, "rrrr", heads, "%s", title);
    for (int64_t l = in->first_layer; l < in->past_layer && read(in, l, load, status); l++) {
        em_balance b = em_balance_of(load, count);
        for (int64_t i = 0; i < count; i++) {
            if (read == load_of_experts && only >= 0 && i != only) continue;
            em_table_whole(table, in->view.layer[l]);
            em_table_whole(table, i);
            em_table_whole(table, load[i]);
            em_table_real(table, 4, (double)load[i] / (double)b.total);
        }
    }
    free(load);
}

static void ranks(em_inspect *in, em_status *status)
{
    int64_t P = in->view.num_ranks, *load = em_alloc(P, sizeof *load);
    em_table *table =
        em_book_add(in->book, "ranks", "rrrrrrrrr", "layer,rows,most,most at,mean,over mean,variation,evenness,unused",
                    "rows that the dispatch of each layer brought to the ranks; the same figures");
    for (int64_t l = in->first_layer; l < in->past_layer && load_of_ranks(in, l, load, status); l++) {
        em_balance b = em_balance_of(load, P);
        em_table_whole(table, in->view.layer[l]);
        put_balance(table, &b);
    }
    free(load);
}

static void put_pairs(em_inspect *in, em_table *table, int64_t layer, const int64_t *pairs)
{
    int64_t E = in->view.config.num_experts;
    double tokens = (double)em_view_tokens(&in->view, layer);
    for (int64_t e = 0; e < E; e++)
        for (int64_t f = e + 1; f < E; f++) {
            double both = (double)pairs[e * E + f], alone = (double)pairs[e * E + e] * (double)pairs[f * E + f];
            if (both == 0 || (in->expert >= 0 && in->expert != e && in->expert != f)) continue;
            em_table_whole(table, in->view.layer[layer]);
            em_table_whole(table, e);
            em_table_whole(table, f);
            em_table_whole(table, pairs[e * E + f]);
            em_table_real(table, 4, both / tokens);
            em_table_real(table, 4, both * tokens / alone);
        }
}

static void pairs(em_inspect *in, em_status *status)
{
    int64_t E = in->view.config.num_experts;
    em_table *table = em_book_add(in->book, "pairs", "rrrrrr", "layer,expert,other,tokens,share,lift",
                                  "experts that a token chose together; share: of the tokens; lift: against what "
                                  "independent choices would give, 1: as often");
    for (int64_t l = in->first_layer; !status->code && l < in->past_layer; l++) {
        int64_t *count = em_zeroed(E * E, sizeof *count);
        if (em_analysis_pairs(&in->view, l, count, status)) put_pairs(in, table, l, count);
        free(count);
    }
}

/* The first of each expert's values. */
static void put_values(em_inspect *in, em_table *table, int64_t layer, const em_value_count *value, int64_t count)
{
    int64_t place = 0;
    for (int64_t i = 0; i < count; i++) {
        place = i > 0 && value[i - 1].expert == value[i].expert ? place + 1 : 0;
        if (place >= in->top || (in->expert >= 0 && value[i].expert != in->expert)) continue;
        em_table_whole(table, in->view.layer[layer]);
        em_table_whole(table, value[i].expert);
        em_table_whole(table, value[i].value);
        em_inspect_text(in, table, value[i].value);
        em_table_whole(table, value[i].tokens);
    }
}

static void values(em_inspect *in, em_status *status)
{
    em_table *table = em_book_add(in->book, "values", "rrrlr", "layer,expert,token id,text,tokens",
                                  "the token values that chose an expert most often, at most %lld of each (--top)",
                                  (long long)in->top);
    for (int64_t l = in->first_layer; !status->code && l < in->past_layer; l++) {
        int64_t count;
        em_value_count *value = em_analysis_values(&in->view, l, &count, status);
        if (value) put_values(in, table, l, value, count);
        free(value);
    }
}

void em_inspect_experts(em_inspect *in, em_status *status)
{
    em_book *book = in->book;
    int64_t E = in->view.config.num_experts, P = in->view.num_ranks;
    if (em_book_wants(book, "balance")) balance(in, status);
    if (em_book_wants(book, "loads") && !status->code)
        loads(in, "loads", "layer,expert,rows,share", "rows that each expert worked on", E, load_of_experts, status);
    if (em_book_wants(book, "ranks") && !status->code) ranks(in, status);
    if (em_book_wants(book, "rank_loads") && !status->code)
        loads(in, "rank_loads", "layer,rank,rows,share", "rows that the dispatch brought to each rank", P,
              load_of_ranks, status);
    if (em_book_wants(book, "pairs") && !status->code && em_inspect_can(in, "pairs", EM_EXPERT_INDICES, status))
        pairs(in, status);
    if (em_book_wants(book, "values") && !status->code && em_inspect_can(in, "values", EM_EXPERT_INDICES, status))
        values(in, status);
}
