/* export: what a trace says of the router's choices, in the forms that other tools take. */
#include "commands.h"

#include "../book.h"
#include "../outfile.h"
#include "expertmesh/analysis.h"

#include <stdlib.h>
#include <string.h>

static const em_option options[] = {
    {"output", "FILE", "write there, not to standard output; a name that ends with .json gets JSON", 'o'},
    {"format", "csv|json", "in this form (what the file's name says; csv)", 0},
    {"force", NULL, "replace the file if it is there", 0},
    {NULL, NULL, NULL, 0},
};

/* ---- counts ---- */

/* A line a layer, a column an expert. */
static void counts_csv(const em_view *view, const int64_t *load, int64_t layer, FILE *out)
{
    int64_t E = view->config.num_experts;
    if (layer == 0) {
        fprintf(out, "layer");
        for (int64_t e = 0; e < E; e++) fprintf(out, ",expert_%lld", (long long)e);
        fprintf(out, "\n");
    }
    fprintf(out, "%lld", (long long)view->layer[layer]);
    for (int64_t e = 0; e < E; e++) fprintf(out, ",%lld", (long long)load[e]);
    fprintf(out, "\n");
}

/* As SGLang's --init-expert-location reads it, and whose matrix EPLB takes: {"logical_count": [layers, experts]}
 * (python/sglang/srt/eplb/expert_location.py; deepseek-ai/eplb, rebalance_experts); and the layers' numbers. */
static void counts_json(const em_view *view, const int64_t *load, int64_t layer, FILE *out)
{
    int64_t E = view->config.num_experts, L = view->num_layers;
    fprintf(out, layer == 0 ? "{\"logical_count\": [\n" : ",\n");
    for (int64_t e = 0; e < E; e++) fprintf(out, "%s%lld", e > 0 ? ", " : "  [", (long long)load[e]);
    fprintf(out, "]");
    if (layer + 1 < L) return;
    fprintf(out, "\n], \"layers\": [");
    for (int64_t l = 0; l < L; l++) fprintf(out, "%s%lld", l > 0 ? ", " : "", (long long)view->layer[l]);
    fprintf(out, "]}\n");
}

static bool export_counts(const em_view *view, em_output form, FILE *out, em_status *status)
{
    int64_t *load = em_alloc(view->config.num_experts, sizeof *load);
    bool good = true;
    for (int64_t l = 0; good && l < view->num_layers; l++) {
        good = em_view_read_layer(view, EM_EXPERT_LOAD, l, load, status);
        if (good) (form == EM_OUTPUT_JSON ? counts_json : counts_csv)(view, load, l, out);
    }
    free(load);
    return good;
}

/* ---- routing ---- */

enum { TOGETHER = 4096 }; /* tokens read at a time */

/* Some tokens of a layer. */
typedef struct piece {
    int64_t layer, first, count; /* places in the trace */
    int32_t token_id[TOGETHER], sequence[TOGETHER], position[TOGETHER];
    int32_t *expert; /* [count, S] */
    float *weight;   /* [count, S]; NULL: not recorded */
} piece;

static bool read_piece(const em_view *view, piece *p, em_status *status)
{
    return em_view_read(view, EM_TOKEN_IDS, 0, p->first, p->count, p->token_id, status) &&
           em_view_read(view, EM_SEQUENCE, 0, p->first, p->count, p->sequence, status) &&
           em_view_read(view, EM_POSITION, 0, p->first, p->count, p->position, status) &&
           em_view_read(view, EM_EXPERT_INDICES, p->layer, p->first, p->count, p->expert, status) &&
           em_analysis_check_choices(view, p->layer, p->expert, p->count * view->config.num_selected_experts, status) &&
           (!p->weight || em_view_read(view, EM_EXPERT_WEIGHTS, p->layer, p->first, p->count, p->weight, status));
}

static const char routing_head[] = "layer,token,choice,expert,weight,token_id,sequence,position\n";

static void write_piece(const em_view *view, const piece *p, em_output form, bool *first, FILE *out)
{
    static const char csv[] = "%lld,%lld,%lld,%d,%s,%d,%d,%d\n";
    static const char json[] =
        "%s  {\"layer\": %lld, \"token\": %lld, \"choice\": %lld, \"expert\": %d, \"weight\": %s, "
        "\"token_id\": %d, \"sequence\": %d, \"position\": %d}";
    int64_t S = view->config.num_selected_experts;
    for (int64_t i = 0; i < p->count * S; i++) {
        int64_t t = i / S;
        long long layer = view->layer[p->layer], token = view->token[p->first + t], choice = i % S;
        char weight[32] = "";
        if (p->weight) snprintf(weight, sizeof weight, "%.9g", (double)p->weight[i]);
        if (form == EM_OUTPUT_JSON)
            fprintf(out, json, *first ? "" : ",\n", layer, token, choice, p->expert[i], p->weight ? weight : "null",
                    p->token_id[t], p->sequence[t], p->position[t]);
        else
            fprintf(out, csv, layer, token, choice, p->expert[i], weight, p->token_id[t], p->sequence[t],
                    p->position[t]);
        *first = false;
    }
}

static bool export_routing(const em_view *view, em_output form, FILE *out, em_status *status)
{
    int64_t S = view->config.num_selected_experts;
    piece *p = em_zeroed(1, sizeof *p);
    p->expert = em_alloc(TOGETHER * S, sizeof *p->expert);
    p->weight = view->recorded[EM_EXPERT_WEIGHTS] ? em_alloc(TOGETHER * S, sizeof *p->weight) : NULL;
    bool good = em_view_need(view, EM_EXPERT_INDICES, status), first = true;
    if (good) fputs(form == EM_OUTPUT_JSON ? "[\n" : routing_head, out);
    for (p->layer = 0; good && p->layer < view->num_layers; p->layer++) {
        int64_t tokens = em_view_tokens(view, p->layer);
        for (p->first = 0; good && p->first < tokens; p->first += p->count) {
            p->count = tokens - p->first < TOGETHER ? tokens - p->first : TOGETHER;
            good = read_piece(view, p, status);
            if (good) write_piece(view, p, form, &first, out);
        }
    }
    if (good && form == EM_OUTPUT_JSON) fputs("\n]\n", out);
    free(p->weight);
    free(p->expert);
    free(p);
    return good;
}

/* ---- the command ---- */

typedef bool export_to(const em_view *view, em_output form, FILE *out, em_status *status);

/* What is to be written into a file. */
typedef struct exported {
    const em_view *view;
    export_to *export_it;
    em_output form;
} exported;

static bool fill_file(FILE *out, void *what, em_status *status)
{
    const exported *e = what;
    return e->export_it(e->view, e->form, out, status);
}

static bool read_form(const em_call *call, em_output *form, em_status *status)
{
    const char *path = em_option_value(call, "output"), *end = path ? strrchr(path, '.') : NULL;
    const char *text = em_option_value(call, "format");
    if (!text) text = end && strcmp(end, ".json") == 0 ? "json" : "csv";
    *form = strcmp(text, "json") == 0 ? EM_OUTPUT_JSON : EM_OUTPUT_CSV;
    if (*form == EM_OUTPUT_JSON || strcmp(text, "csv") == 0) return true;
    return em_fail(status, EM_USAGE, "--format: \"%s\" is not csv or json", text);
}

static bool read_kind(const em_call *call, export_to **export_it, em_status *status)
{
    static const char *const kinds[] = {"counts", "routing"};
    const char *kind = call->num_arguments > 1 ? call->argument[1] : "counts";
    *export_it = strcmp(kind, "routing") == 0 ? export_routing : export_counts;
    if (*export_it == export_routing || strcmp(kind, "counts") == 0) return true;
    const char *nearest = em_nearest(kind, kinds, 2);
    return em_fail(status, EM_USAGE, "export: what is \"%s\"? %s%s", kind,
                   nearest ? "the nearest is " : "there are counts and routing", nearest ? nearest : "");
}

static void export(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    export_to *export_it;
    em_output form;
    if (!read_kind(call, &export_it, status) || !read_form(call, &form, status)) return;
    if (call->rank == 0 && (!path || em_outfile_check(call, path, status))) {
        em_view view;
        if (em_view_open(&view, call->argument[0], status)) {
            exported e = {&view, export_it, form};
            if (path)
                em_outfile_write(path, fill_file, &e, status);
            else
                fill_file(stdout, &e, status);
            em_view_close(&view);
        }
    }
    em_agree(call->comm, status);
}

const em_command em_command_export = {
    .name = "export",
    .usage = "T.h5 [counts | routing] [-o FILE]",
    .meaning = "Give a trace's expert counts, or every choice of the router, to other tools, as CSV or JSON.",
    .more =
        "counts: rows that each expert worked on: a line a layer and a column an expert; as JSON an object whose\n"
        "logical_count is that matrix, as tools that place experts take it. routing: one row a layer, token and\n"
        "choice, with the expert, its weight, and the token's value, prompt and position. Of a trace that is still\n"
        "being written: what is whole.",
    .options = options,
    .num_arguments = 1,
    .most_arguments = 2,
    .words = "counts routing",
    .run = export,
};
