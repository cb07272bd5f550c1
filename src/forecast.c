#include "forecast.h"

#include <stdlib.h>
#include <string.h>

em_forecast em_forecast_open(const em_config *config, const em_layout *layout, const int *host, bool flat)
{
    enum { MOST_RANKS = 4096 }; /* of which pairs are counted */
    int P = layout->num_ranks, next = 0;
    em_forecast f = {.config = config, .layout = layout, .host = host, .exact = true};
    f.covers = em_expert_covers(layout);
    f.heads = em_head_cover(layout);
    f.member = em_alloc(P, sizeof(int));
    f.members = em_zeroed(P, sizeof(int));
    f.first_member = em_alloc(P, sizeof(int));
    for (int h = 0; h < P; h++) {
        int first = next;
        for (int r = 0; host[h] == h && r < P; r++)
            if (host[r] == h) f.member[next++] = r;
        for (int i = first; i < next; i++) {
            f.members[f.member[i]] = next - first;
            f.first_member[f.member[i]] = first;
        }
    }
    f.once = !flat && f.members[0] < P;
    f.rows = em_zeroed((config->num_layers + 1) * EM_NUM_PHASES * EM_NUM_REACHES, sizeof(double));
    f.dispatched = P <= MOST_RANKS ? em_zeroed((int64_t)P * P, sizeof(double)) : NULL;
    return f;
}

void em_forecast_close(em_forecast *f)
{
    em_covers_free(&f->covers);
    em_cover_free(&f->heads);
    free(f->member);
    free(f->members);
    free(f->first_member);
    free(f->rows);
    free(f->dispatched);
    *f = (em_forecast){0};
}

static void count(em_forecast *f, int64_t layer, em_phase phase, em_reach reach, double rows)
{
    f->rows[(layer * EM_NUM_PHASES + phase) * EM_NUM_REACHES + reach] += rows;
}

/* Rows that go to one rank alone. */
static void count_alone(em_forecast *f, int64_t layer, em_phase phase, int from, int to, double rows)
{
    bool inside = f->host[from] == f->host[to];
    if (from != to) count(f, layer, phase, inside ? EM_INSIDE_HOSTS : EM_BETWEEN_HOSTS, rows);
}

/* The rank of a host that keeps row `row` of any rank of another, for all of the host. */
static int keeper_of(const em_forecast *f, int rank, int64_t row)
{
    return f->member[f->first_member[rank] + row % f->members[rank]];
}

/* Row number `row` of rank `from` is read by a rank, so many times. What crosses the network once a host is counted by
 * count_crossing. */
static void count_reading(em_forecast *f, int64_t layer, em_phase phase, int from, int64_t row, int to, double times)
{
    if (f->host[from] == f->host[to] || !f->once)
        count_alone(f, layer, phase, from, to, times);
    else if (keeper_of(f, to, row) != to)
        count(f, layer, phase, EM_INSIDE_HOSTS, times);
}

/* ---- rows that every owner of some units needs ---- */

static void gather(em_forecast *f, int64_t layer, em_phase phase, int64_t T, const em_ownership *units)
{
    int P = f->layout->num_ranks;
    bool *host_needs = em_zeroed(P, sizeof *host_needs), *needs = em_alloc(P, sizeof *needs);
    for (int r = 0; r < P; r++) {
        needs[r] = em_ownership_units(units, r).count > 0;
        host_needs[f->host[r]] = host_needs[f->host[r]] || needs[r];
    }
    for (int from = 0; from < P; from++) {
        int64_t own = em_range_size(em_layout_tokens(f->layout, T, from));
        for (int64_t row = 0; row < own; row++)
            for (int to = 0; to < P; to++)
                if (needs[to]) count_reading(f, layer, phase, from, row, to, 1);
        for (int h = 0; f->once && h < P; h++)
            if (host_needs[h] && h != f->host[from]) count(f, layer, phase, EM_BETWEEN_HOSTS, (double)own);
    }
    free(host_needs);
    free(needs);
}

/* ---- rows of the embedding, and sums of heads ---- */

static void embed(em_forecast *f, int64_t T, const int32_t *token_id)
{
    const em_layout *layout = f->layout;
    int64_t outside = f->config->num_layers;
    for (int64_t t = 0; t < T; t++) {
        int owner = em_layout_token_owner(layout, T, t);
        if (token_id[t] >= 0) {
            count_alone(f, outside, EM_PHASE_EMBEDDING, em_layout_vocab_owner(layout, token_id[t]), owner, 1);
            continue;
        }
        f->exact = false;
        for (int r = 0; r < layout->num_ranks; r++)
            count_alone(f, outside, EM_PHASE_EMBEDDING, r, owner,
                        (double)em_layout_vocab_held(layout, r) / (double)layout->vocab_size);
    }
}

static void sum_heads(em_forecast *f, int64_t layer, int64_t T)
{
    for (int node = 0; node < f->heads.num_nodes; node++)
        for (int to = 0; to < f->layout->num_ranks; to++) {
            int64_t own = em_range_size(em_layout_tokens(f->layout, T, to));
            count_alone(f, layer, EM_PHASE_SUM, f->heads.rank[node], to, (double)own);
        }
}

/* ---- experts ---- */

/* A token on its way to experts: its owner, its number in the run, its row with its owner. */
typedef struct traveller {
    int64_t token, row;
    int owner;
} traveller;

/* It is sent to an expert, `times` times, and what comes of it goes home. */
static void visit(em_forecast *f, int64_t layer, const traveller *t, int64_t expert, double times)
{
    const em_cover *cover = &f->covers.cover[em_covers_group(&f->covers, expert, t->token)];
    for (int node = 0; node < cover->num_nodes; node++) {
        int rank = cover->rank[node];
        count_alone(f, layer, EM_PHASE_COMBINE, rank, t->owner, times);
        if (cover->place[node] > 0) continue;
        count_reading(f, layer, EM_PHASE_DISPATCH, t->owner, t->row, rank, times);
        if (f->dispatched) f->dispatched[(int64_t)t->owner * f->layout->num_ranks + rank] += times;
    }
}

/* Mark the hosts that an expert's ranks are on in a token's turn: mark [P]. */
static void mark_hosts(const em_forecast *f, const traveller *t, int64_t expert, int64_t mark_with, int64_t *mark,
                       int64_t *hits)
{
    const em_cover *cover = &f->covers.cover[em_covers_group(&f->covers, expert, t->token)];
    for (int node = 0; node < cover->num_nodes; node++) {
        int host = f->host[cover->rank[node]];
        if (mark[host] == mark_with) continue;
        mark[host] = mark_with;
        hits[host]++;
    }
}

/* A token crosses the network once to each other host that its experts are on. chosen [S]; NULL: an even choice. */
static void cross(em_forecast *f, int64_t layer, const traveller *t, const int32_t *chosen)
{
    int P = f->layout->num_ranks;
    int64_t E = f->config->num_experts, S = f->config->num_selected_experts;
    int64_t *mark = em_alloc(P, sizeof *mark), *hits = em_zeroed(P, sizeof *hits); /* experts on each host */
    for (int h = 0; h < P; h++) mark[h] = -1;
    for (int64_t i = 0; i < (chosen ? S : E); i++) mark_hosts(f, t, chosen ? chosen[i] : i, i, mark, hits);
    for (int h = 0; h < P; h++) {
        if (h == f->host[t->owner] || hits[h] == 0) continue;
        double missed = chosen ? 0 : 1; /* how likely none of S different experts is there */
        for (int64_t i = 0; !chosen && i < S; i++)
            missed *= hits[h] + i < E ? (double)(E - hits[h] - i) / (double)(E - i) : 0;
        count(f, layer, EM_PHASE_DISPATCH, EM_BETWEEN_HOSTS, 1 - missed);
    }
    free(mark);
    free(hits);
}

/* chosen [T, S]; NULL: not known. */
static void route(em_forecast *f, int64_t layer, int64_t first_token, int64_t T, const int32_t *chosen)
{
    int64_t E = f->config->num_experts, S = f->config->num_selected_experts;
    for (int64_t i = 0; i < T; i++) {
        int owner = em_layout_token_owner(f->layout, T, i);
        traveller t = {first_token + i, i - em_layout_tokens(f->layout, T, owner).begin, owner};
        for (int64_t c = 0; chosen && c < S; c++) visit(f, layer, &t, chosen[i * S + c], 1);
        for (int64_t e = 0; !chosen && e < E; e++) visit(f, layer, &t, e, (double)S / (double)E);
        if (f->once) cross(f, layer, &t, chosen ? chosen + i * S : NULL);
    }
    if (!chosen) f->exact = false;
}

void em_forecast_step(em_forecast *f, int64_t first_token, int64_t T, const int32_t *token_id, const int32_t *expert)
{
    int64_t L = f->config->num_layers, S = f->config->num_selected_experts;
    embed(f, T, token_id);
    for (int64_t layer = 0; layer < L; layer++) {
        gather(f, layer, EM_PHASE_GATHER, T, &f->layout->heads);
        sum_heads(f, layer, T);
        route(f, layer, first_token, T, expert ? expert + layer * T * S : NULL);
    }
    gather(f, L, EM_PHASE_OUTPUT, T, &f->layout->vocabulary);
}
