/* Layouts with a name: units dealt to ranks and hosts by bytes; declared in layout.h. */
#include "expertmesh/layout.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

const char *const em_layout_names[EM_NUM_LAYOUTS] = {
    [EM_LAYOUT_CONTIGUOUS] = "contiguous", [EM_LAYOUT_SLICED] = "sliced", [EM_LAYOUT_SPREAD] = "spread"};

/* ---- dealing ---- */

/* What each of some takers shall get of `sum`, so that all hold as much where that can be: as water fills vessels. held,
 * want [count]. */
static void level(int count, const double *held, double sum, double *want)
{
    double low = DBL_MAX, height;
    for (int i = 0; i < count; i++) low = held[i] < low ? held[i] : low;
    /* raise the level until no vessel that stands above it is counted */
    for (double above = low;; above = height) {
        double in = 0, next = DBL_MAX;
        int filled = 0;
        for (int i = 0; i < count; i++) {
            if (held[i] <= above) {
                in += held[i];
                filled++;
            } else if (held[i] < next)
                next = held[i];
        }
        height = (sum + in) / filled;
        if (height <= next) break;
        height = next;
    }
    for (int i = 0; i < count; i++) want[i] = held[i] < height ? height - held[i] : 0;
}

/* Deal units [n] in order, in runs, so that taker i gets about want[i] of their bytes: each unit to the taker in whose part of
 * the whole its middle lies. */
static void deal(int64_t n, const double *bytes, int count, const double *want, int *taker)
{
    double sum = 0, wanted = 0, before = 0;
    int i = 0;
    for (int64_t u = 0; u < n; u++) sum += bytes[u];
    for (int k = 0; k < count; k++) wanted += want[k];
    double end = want[0];
    for (int64_t u = 0; u < n; before += bytes[u++]) {
        while (i + 1 < count && (before + bytes[u] / 2) * wanted >= end * sum) end += want[++i];
        taker[u] = i;
    }
}

/* ---- plans ---- */

typedef struct planning {
    const em_layout_plan *plan;
    em_layout *layout;
    double *held; /* [P] bytes that each rank owns so far */
} planning;

static double slice_bytes(const planning *p, int64_t unit)
{
    int64_t slice = unit % p->layout->slices_per_expert;
    return (double)em_range_size(em_layout_neurons(p->layout, slice)) * p->plan->bytes.neuron;
}

/* With its share of the key/value head. */
static double head_bytes(const planning *p)
{
    double sharing = (double)p->layout->num_q_heads / (double)p->layout->num_kv_heads;
    return p->plan->bytes.head + p->plan->bytes.kv_head / sharing;
}

static double block_bytes(const planning *p, int64_t unit)
{
    return (double)em_range_size(em_layout_vocab_rows(p->layout, unit)) * p->plan->bytes.vocab_row;
}

/* Ranks that may own, ascending. Returns how many. */
static int list_ranks(int num_ranks, const bool *may, int *rank)
{
    int count = 0;
    for (int r = 0; r < num_ranks; r++)
        if (!may || may[r]) rank[count++] = r;
    return count;
}

/* Deal units in runs, rank by rank, to those that hold less. Returns their owners. */
static int *deal_level(planning *p, int64_t n, const double *bytes, const bool *may)
{
    int P = p->plan->num_ranks, *rank = em_alloc(P, sizeof *rank), *owner = em_alloc(n, sizeof *owner);
    int count = list_ranks(P, may, rank);
    double *held = em_alloc(count, sizeof *held), *want = em_alloc(count, sizeof *want), sum = 0;
    for (int64_t u = 0; u < n; u++) sum += bytes[u];
    for (int i = 0; i < count; i++) held[i] = p->held[rank[i]];
    level(count, held, sum, want);
    deal(n, bytes, count, want, owner);
    for (int64_t u = 0; u < n; u++) owner[u] = rank[owner[u]];
    free(rank);
    free(held);
    free(want);
    return owner;
}

/* Runs of heads that share a key/value head, or single heads. */
static void deal_heads(planning *p)
{
    int64_t H = p->layout->num_q_heads, K = p->layout->num_kv_heads, may = 0;
    for (int r = 0; r < p->plan->num_ranks; r++) may += !p->plan->attention || p->plan->attention[r];
    int64_t together = may > K ? 1 : H / K, n = H / together;
    double *bytes = em_alloc(n, sizeof *bytes);
    for (int64_t u = 0; u < n; u++) bytes[u] = (double)together * head_bytes(p);
    int *group = deal_level(p, n, bytes, p->plan->attention), *owner = em_alloc(H, sizeof *owner);
    for (int64_t h = 0; h < H; h++) owner[h] = group[h / together];
    p->layout->heads = em_ownership_make(H, p->plan->num_ranks, NULL, owner);
    free(group);
    free(bytes);
}

static void deal_vocabulary(planning *p)
{
    int64_t n = p->layout->vocab_blocks;
    double *bytes = em_alloc(n, sizeof *bytes);
    for (int64_t u = 0; u < n; u++) bytes[u] = block_bytes(p, u);
    p->layout->vocabulary = em_ownership_make(n, p->plan->num_ranks, NULL, deal_level(p, n, bytes, NULL));
    free(bytes);
}

/* ---- experts ---- */

/* Hosts of the ranks that may own slices. A rank alone counts as a host where the layout knows none. */
typedef struct hosts {
    int count;
    int *of_rank; /* [P] -1: owns no slices */
    int *ranks;   /* [count] of them on each */
} hosts;

static hosts find_hosts(const em_layout_plan *plan)
{
    int P = plan->num_ranks, *number = em_alloc(P, sizeof *number);
    hosts all = {0, em_alloc(P, sizeof(int)), em_zeroed(P, sizeof(int))};
    for (int r = 0; r < P; r++) number[r] = -1;
    for (int r = 0; r < P; r++) {
        bool alone = plan->kind == EM_LAYOUT_CONTIGUOUS;
        int host = alone ? r : plan->host ? plan->host[r] : 0;
        all.of_rank[r] = -1;
        if (plan->experts && !plan->experts[r]) continue;
        if (number[host] < 0) number[host] = all.count++;
        all.of_rank[r] = number[host];
        all.ranks[number[host]]++;
    }
    free(number);
    return all;
}

/* The host of each unit: runs of neighbours, as long as the host has ranks. */
static void deal_runs(const hosts *all, int64_t n, const double *bytes, int *host)
{
    double *want = em_alloc(all->count, sizeof *want);
    for (int h = 0; h < all->count; h++) want[h] = all->ranks[h];
    deal(n, bytes, all->count, want, host);
    free(want);
}

/* One expert after another to the next host, which gets as many turns in a round as it has ranks. Where experts are fewer
 * than hosts, parts of them. */
static void deal_in_turn(const hosts *all, const em_layout *layout, int *host)
{
    int64_t E = layout->num_experts, slices = layout->slices_per_expert, turns = 0;
    int64_t part = slices / ((all->count + E - 1) / E);
    if (part == 0) part = 1;
    int *turn = em_alloc(layout->num_ranks, sizeof *turn);
    for (int round = 0; round < layout->num_ranks; round++)
        for (int h = 0; h < all->count; h++)
            if (all->ranks[h] > round) turn[turns++] = h;
    for (int64_t u = 0, next = -1; u < E * slices; u++) {
        if (u % slices % part == 0) next++;
        host[u] = turn[next % turns];
    }
    free(turn);
}

/* Units of one host, slice by slice, in runs to its ranks. */
static void share_in_host(const hosts *all, int h, const em_layout *layout, const double *bytes, const int *host,
                          int *owner)
{
    int64_t E = layout->num_experts, slices = layout->slices_per_expert, n = 0;
    int64_t *unit = em_alloc(E * slices, sizeof *unit);
    double *size = em_alloc(E * slices, sizeof *size), *want = em_alloc(all->ranks[h], sizeof *want);
    int *taker = em_alloc(E * slices, sizeof *taker), *rank = em_alloc(all->ranks[h], sizeof *rank), count = 0;
    for (int64_t s = 0; s < slices; s++)
        for (int64_t e = 0; e < E; e++)
            if (host[e * slices + s] == h) {
                size[n] = bytes[e * slices + s];
                unit[n++] = e * slices + s;
            }
    for (int r = 0; r < layout->num_ranks; r++)
        if (all->of_rank[r] == h) {
            want[count] = 1;
            rank[count++] = r;
        }
    deal(n, size, count, want, taker);
    for (int64_t i = 0; i < n; i++) owner[unit[i]] = rank[taker[i]];
    free(unit);
    free(size);
    free(want);
    free(taker);
    free(rank);
}

static void deal_slices(planning *p)
{
    int64_t n = p->layout->num_experts * p->layout->slices_per_expert;
    hosts all = find_hosts(p->plan);
    double *bytes = em_alloc(n, sizeof *bytes);
    int *host = em_alloc(n, sizeof *host), *owner = em_alloc(n, sizeof *owner);
    for (int64_t u = 0; u < n; u++) bytes[u] = slice_bytes(p, u);
    if (p->plan->kind == EM_LAYOUT_SPREAD)
        deal_in_turn(&all, p->layout, host);
    else
        deal_runs(&all, n, bytes, host);
    for (int h = 0; h < all.count; h++) share_in_host(&all, h, p->layout, bytes, host, owner);
    p->layout->ffn = em_ownership_make(n, p->plan->num_ranks, NULL, owner);
    free(all.of_rank);
    free(all.ranks);
    free(bytes);
    free(host);
}

/* ---- key/value heads ---- */

/* The ranks of the query heads that share each key/value head, ascending. */
static void share_kv_heads(em_layout *layout)
{
    int64_t K = layout->num_kv_heads, H = layout->num_q_heads, sharing = H / K, count = 0;
    int64_t *first = em_alloc(K + 1, sizeof *first);
    int *owner = em_alloc(H, sizeof *owner);
    int64_t *holds = em_alloc(layout->num_ranks, sizeof *holds); /* the last key/value head that a rank was seen with */
    for (int r = 0; r < layout->num_ranks; r++) holds[r] = -1;
    for (int64_t k = 0; k < K; k++) {
        first[k] = count;
        for (int64_t h = k * sharing; h < (k + 1) * sharing; h++) {
            int r = layout->heads.owner[h];
            if (holds[r] == k) continue;
            holds[r] = k;
            int64_t i = count++;
            for (; i > first[k] && owner[i - 1] > r; i--) owner[i] = owner[i - 1];
            owner[i] = r;
        }
    }
    first[K] = count;
    free(holds);
    layout->kv_heads = em_ownership_make(K, layout->num_ranks, first, owner);
}

/* ---- layouts ---- */

void em_layout_complete(em_layout *layout, const em_layout_plan *plan)
{
    planning p = {plan, layout, em_zeroed(plan->num_ranks, sizeof(double))};
    if (!layout->ffn.owner) deal_slices(&p);
    for (int64_t u = 0; u < layout->ffn.num_units; u++)
        for (int64_t i = layout->ffn.first_owner[u]; i < layout->ffn.first_owner[u + 1]; i++)
            p.held[layout->ffn.owner[i]] += slice_bytes(&p, u);
    if (!layout->heads.owner) deal_heads(&p);
    for (int64_t h = 0; h < layout->num_q_heads; h++) p.held[layout->heads.owner[h]] += head_bytes(&p);
    if (!layout->vocabulary.owner) deal_vocabulary(&p);
    share_kv_heads(layout);
    free(p.held);
}

em_layout em_layout_plan_make(const em_config *config, const em_layout_plan *plan)
{
    em_layout layout = em_layout_cut(config, plan->num_ranks);
    em_layout_complete(&layout, plan);
    return layout;
}

em_layout em_layout_make(const em_config *config, int num_ranks)
{
    double D = (double)config->emb_size, C = (double)config->key_size, L = (double)config->num_layers;
    em_unit_bytes bytes = {2 * L * C * D, 2 * L * C * D, (config->ffn_kind == EM_FFN_GLU ? 3 : 2) * L * D, D};
    return em_layout_plan_make(config, &(em_layout_plan){.num_ranks = num_ranks, .bytes = bytes});
}
