/* inspect T.h5 neurons: how active the neurons of each expert are. */
#include "inspect.h"

/* The tables that are wanted; NULL: not. */
typedef struct tables {
    em_table *activity, *top, *dead;
} tables;

static void put_activity(em_table *table, int64_t layer, int64_t expert, const em_activity *a)
{
    em_expert_activity e = em_activity_of(a, expert);
    em_table_whole(table, layer);
    em_table_whole(table, expert);
    em_table_whole(table, e.tokens);
    em_table_real(table, 4, e.mean_size);
    em_table_real(table, 4, e.rms);
    em_table_real(table, 4, e.largest);
    em_table_real(table, 4, e.sparsity);
    em_table_whole(table, e.dead);
}

static void put_top(em_inspect *in, em_table *table, int64_t layer, int64_t expert, const em_activity *a)
{
    int64_t count = in->top < a->F ? in->top : a->F, *neuron = em_alloc(count, sizeof *neuron);
    em_activity_top(a, expert, count, neuron);
    for (int64_t i = 0; a->tokens[expert] > 0 && i < count; i++) {
        int64_t at = expert * a->F + neuron[i];
        em_table_whole(table, layer);
        em_table_whole(table, expert);
        em_table_whole(table, neuron[i]);
        em_table_real(table, 4, a->sizes[at] / (double)a->tokens[expert]);
        em_table_real(table, 4, (double)a->largest[at]);
        em_table_whole(table, in->view.token[a->largest_token[at]]);
        em_table_real(table, 4, (double)a->active[at] / (double)a->tokens[expert]);
    }
    free(neuron);
}

static void put_dead(em_table *table, int64_t layer, int64_t expert, const em_activity *a)
{
    for (int64_t n = 0; a->tokens[expert] > 0 && n < a->F; n++) {
        if (a->active[expert * a->F + n] > 0) continue;
        em_table_whole(table, layer);
        em_table_whole(table, expert);
        em_table_whole(table, n);
    }
}

static void put_layer(em_inspect *in, const tables *t, int64_t layer, em_status *status)
{
    em_activity a;
    if (!em_activity_read(&a, &in->view, layer, status)) return;
    for (int64_t e = 0; e < a.E; e++) {
        if (in->expert >= 0 && e != in->expert) continue;
        if (t->activity) put_activity(t->activity, in->view.layer[layer], e, &a);
        if (t->top) put_top(in, t->top, in->view.layer[layer], e, &a);
        if (t->dead) put_dead(t->dead, in->view.layer[layer], e, &a);
    }
    em_activity_free(&a);
}

void em_inspect_neurons(em_inspect *in, em_status *status)
{
    em_book *book = in->book;
    tables t = {0};
    if (!em_view_need(&in->view, EM_FFN_HIDDEN, status) || !em_view_need(&in->view, EM_EXPERT_INDICES, status)) return;
    if (em_book_wants(book, "activity"))
        t.activity =
            em_book_add(book, "activity", "rrrrrrrr", "layer,expert,tokens,mean size,rms,largest,sparsity,dead",
                        "outputs of each expert's %lld first-layer neurons; sparsity: the part of them that is "
                        "near zero, at most %g of their token's root mean square; dead: neurons near zero for "
                        "every token",
                        (long long)in->view.config.ffn_size, EM_NEAR_ZERO);
    if (em_book_wants(book, "top"))
        t.top = em_book_add(book, "top", "rrrrrrr", "layer,expert,neuron,mean size,largest,largest token,active",
                            "the %lld neurons of each expert with the largest mean size (--top); active: part of the "
                            "expert's tokens for which they are not near zero",
                            (long long)in->top);
    if (em_book_wants(book, "dead"))
        t.dead = em_book_add(book, "dead", "rrr", "layer,expert,neuron", "neurons near zero for every token");
    if (!t.activity && !t.top && !t.dead) return;
    for (int64_t l = in->first_layer; !status->code && l < in->past_layer; l++) put_layer(in, &t, l, status);
}
