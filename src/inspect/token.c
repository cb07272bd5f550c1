/* inspect T.h5 token N: a token's way through the layers. */
#include "inspect.h"

#include <string.h>

static void about(em_inspect *in, int64_t place, em_status *status)
{
    static const em_quantity quantity[] = {EM_TOKEN_IDS, EM_SEQUENCE, EM_POSITION};
    int32_t value[3] = {0};
    em_table *table = em_book_add(in->book, "token", "rrlrr", "token,token id,text,sequence,position",
                                  "a token of the run, its prompt and its place in that");
    for (int i = 0; i < 3 && !status->code; i++) em_view_read(&in->view, quantity[i], 0, place, 1, &value[i], status);
    em_table_whole(table, in->number);
    em_table_whole(table, value[0]);
    em_inspect_text(in, table, value[0]);
    em_table_whole(table, value[1]);
    em_table_whole(table, value[2]);
}

/* Norms that the path tells, where they were recorded. */
static const em_quantity norms[] = {EM_RESID_PRE, EM_ATTN_OUT, EM_RESID_MID, EM_FFN_OUT, EM_RESID_POST};
enum { NUM_NORMS = sizeof norms / sizeof *norms };

static void put_choices(em_inspect *in, em_table *table, int64_t layer, int64_t place, em_status *status)
{
    int64_t S = in->view.config.num_selected_experts;
    bool chosen = in->view.recorded[EM_EXPERT_INDICES], weighed = in->view.recorded[EM_EXPERT_WEIGHTS];
    int32_t *expert = em_zeroed(S, sizeof *expert);
    float *weight = em_zeroed(S, sizeof *weight);
    if (chosen && em_view_read(&in->view, EM_EXPERT_INDICES, layer, place, 1, expert, status))
        em_analysis_check_choices(&in->view, layer, expert, S, status);
    if (weighed) em_view_read(&in->view, EM_EXPERT_WEIGHTS, layer, place, 1, weight, status);
    for (int64_t c = 0; c < S; c++) {
        if (chosen)
            em_table_whole(table, expert[c]);
        else
            em_table_none(table);
        em_table_real(table, 4, weighed ? (double)weight[c] : (double)NAN);
    }
    free(weight);
    free(expert);
}

static em_table *path_table(em_inspect *in)
{
    int64_t S = in->view.config.num_selected_experts, columns = 1 + 2 * S + NUM_NORMS;
    char *sides = em_zeroed(columns + 1, 1), *heads = em_text("layer");
    memset(sides, 'r', (size_t)columns);
    for (int64_t i = 0; i < S + NUM_NORMS; i++) {
        char *longer = i < S ? em_text("%s,expert %lld,weight %lld", heads, (long long)i, (long long)i)
                             : em_text("%s,%s", heads, em_quantities[norms[i - S]].name);
        free(heads);
        heads = longer;
    }
    em_table *table = em_book_add(in->book, "path", sides, heads,
                                  "chosen experts, best first, with the router's weights; and 2-norms: of the residual "
                                  "stream before the layer, between attention and experts and after it, and of what "
                                  "attention and the experts add");
    free(heads);
    free(sides);
    return table;
}

/* What was not recorded is told; where none of it was there is no path. */
static void check_path(em_inspect *in, em_status *status)
{
    em_quantity parts[NUM_NORMS + 2] = {EM_EXPERT_INDICES, EM_EXPERT_WEIGHTS};
    int missing = 0;
    memcpy(parts + 2, norms, sizeof norms);
    for (int i = 0; i < NUM_NORMS + 2; i++) missing += !in->view.recorded[parts[i]];
    for (int i = 0; i < NUM_NORMS + 2; i++) {
        if (in->view.recorded[parts[i]]) continue;
        em_view_need(&in->view, parts[i], status);
        if (missing < NUM_NORMS + 2 || !em_book_insists(in->book, "path")) em_inspect_excuse(in, status);
    }
}

static void path(em_inspect *in, int64_t place, em_status *status)
{
    check_path(in, status);
    em_table *table = path_table(in);
    for (int64_t l = in->first_layer; l < in->past_layer && !status->code; l++) {
        if (place >= em_view_tokens(&in->view, l)) break; /* not written yet */
        em_table_whole(table, in->view.layer[l]);
        put_choices(in, table, l, place, status);
        for (int i = 0; i < NUM_NORMS; i++) {
            double norm = (double)NAN;
            if (in->view.recorded[norms[i]] && !status->code)
                em_analysis_norms(&in->view, norms[i], l, place, 1, &norm, status);
            em_table_real(table, 5, norm);
        }
    }
}

static void next(em_inspect *in, int64_t place, em_status *status)
{
    if (place >= em_view_tokens(&in->view, in->view.num_layers)) return;
    int64_t count = in->top < in->view.config.vocab_size ? in->top : in->view.config.vocab_size;
    int32_t *id = em_alloc(count, sizeof *id);
    double *logit = em_alloc(count, sizeof *logit), *probability = em_alloc(count, sizeof *probability);
    em_table *table = em_book_add(in->book, "next", "rlrr", "token id,text,logit,probability",
                                  "the likeliest next tokens, at most %lld (--top)", (long long)in->top);
    bool good = em_analysis_next(&in->view, place, count, id, logit, probability, status);
    for (int64_t i = 0; good && i < count; i++) {
        em_table_whole(table, id[i]);
        em_inspect_text(in, table, id[i]);
        em_table_real(table, 6, logit[i]);
        em_table_real(table, 4, probability[i]);
    }
    free(probability);
    free(logit);
    free(id);
}

void em_inspect_token(em_inspect *in, em_status *status)
{
    int64_t place;
    if (!em_view_find_token(&in->view, in->number, "inspect token", &place, status)) return;
    if (em_book_wants(in->book, "path")) path(in, place, status);
    if (em_book_wants(in->book, "token") && !status->code) about(in, place, status);
    if (em_book_wants(in->book, "next") && !status->code && em_inspect_can(in, "next", EM_LOGITS, status))
        next(in, place, status);
}
