#include "expertmesh/layout.h"

#include "expertmesh/base.h"

#include <stdlib.h>

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- units ---- */

int64_t em_units_place(em_units units, int64_t unit)
{
    int64_t begin = 0, end = units.count;
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (units.unit[middle] < unit)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin < units.count && units.unit[begin] == unit ? begin : -1;
}

int64_t em_units_run(em_units units, int64_t i)
{
    int64_t length = 1;
    while (i + length < units.count && units.unit[i + length] == units.unit[i] + length) length++;
    return length;
}

em_ownership em_ownership_make(int64_t num_units, int num_ranks, int64_t *first_owner, int *owner)
{
    em_ownership all = {.num_units = num_units, .first_owner = first_owner, .owner = owner};
    if (!first_owner) {
        all.first_owner = em_alloc(num_units + 1, sizeof(int64_t));
        for (int64_t u = 0; u <= num_units; u++) all.first_owner[u] = u;
    }
    int64_t owned = all.first_owner[num_units], *next = em_alloc(num_ranks, sizeof *next);
    all.first_unit = em_zeroed(num_ranks + 1, sizeof(int64_t));
    all.unit = em_alloc(owned, sizeof(int64_t));
    for (int64_t i = 0; i < owned; i++) all.first_unit[owner[i] + 1]++;
    for (int r = 0; r < num_ranks; r++) {
        next[r] = all.first_unit[r];
        all.first_unit[r + 1] += next[r];
    }
    for (int64_t u = 0; u < num_units; u++)
        for (int64_t i = all.first_owner[u]; i < all.first_owner[u + 1]; i++) all.unit[next[owner[i]]++] = u;
    free(next);
    return all;
}

static void free_ownership(em_ownership *ownership)
{
    free(ownership->first_owner);
    free(ownership->owner);
    free(ownership->first_unit);
    free(ownership->unit);
}

em_units em_ownership_units(const em_ownership *ownership, int rank)
{
    int64_t first = ownership->first_unit[rank];
    return (em_units){ownership->first_unit[rank + 1] - first, ownership->unit + first};
}

int64_t em_ownership_owners(const em_ownership *ownership, int64_t unit)
{
    return ownership->first_owner[unit + 1] - ownership->first_owner[unit];
}

int em_ownership_owner(const em_ownership *ownership, int64_t unit, int64_t turn)
{
    return ownership->owner[ownership->first_owner[unit] + turn % em_ownership_owners(ownership, unit)];
}

/* ---- shares ---- */

em_range em_share(int64_t count, int num_ranks, int rank)
{
    return (em_range){count * rank / num_ranks, count * (rank + 1) / num_ranks};
}

int em_share_owner(int64_t count, int num_ranks, int64_t i)
{
    /* the smallest r with i < floor(count * (r + 1) / P) */
    return (int)(((i + 1) * num_ranks - 1) / count);
}

/* ---- layouts ---- */

em_layout em_layout_cut(const em_config *config, int num_ranks)
{
    enum { SLICES = 8, VOCAB_UNITS = 256, SMALLEST_BLOCK = 16 };
    em_layout layout = {.num_ranks = num_ranks,
                        .num_q_heads = config->num_q_heads,
                        .num_kv_heads = config->num_kv_heads,
                        .num_experts = config->num_experts,
                        .ffn_size = config->ffn_size,
                        .vocab_size = config->vocab_size};
    layout.slice_size = ceil_div(config->ffn_size, SLICES);
    layout.slices_per_expert = ceil_div(config->ffn_size, layout.slice_size);
    int64_t block = ceil_div(config->vocab_size, VOCAB_UNITS);
    layout.vocab_block = block > SMALLEST_BLOCK ? block : SMALLEST_BLOCK;
    layout.vocab_blocks = ceil_div(config->vocab_size, layout.vocab_block);
    return layout;
}

void em_layout_free(em_layout *layout)
{
    free_ownership(&layout->heads);
    free_ownership(&layout->ffn);
    free_ownership(&layout->vocabulary);
    free_ownership(&layout->kv_heads);
    *layout = (em_layout){0};
}

bool em_layout_idle(const em_layout *layout, int rank)
{
    return em_layout_heads(layout, rank).count + em_layout_ffn_units(layout, rank).count +
               em_layout_vocab_units(layout, rank).count ==
           0;
}

em_units em_layout_heads(const em_layout *layout, int rank)
{
    return em_ownership_units(&layout->heads, rank);
}

em_units em_layout_kv_heads(const em_layout *layout, int rank)
{
    return em_ownership_units(&layout->kv_heads, rank);
}

int em_layout_kv_owner(const em_layout *layout, int64_t kv_head)
{
    return em_ownership_owner(&layout->kv_heads, kv_head, 0);
}

em_units em_layout_ffn_units(const em_layout *layout, int rank)
{
    return em_ownership_units(&layout->ffn, rank);
}

int64_t em_layout_num_experts(const em_layout *layout, int rank)
{
    em_units units = em_layout_ffn_units(layout, rank);
    int64_t count = 0, last = -1;
    for (int64_t i = 0; i < units.count; i++) {
        int64_t expert = units.unit[i] / layout->slices_per_expert;
        count += expert != last;
        last = expert;
    }
    return count;
}

int em_layout_ffn_owner(const em_layout *layout, int64_t unit)
{
    return em_ownership_owner(&layout->ffn, unit, 0);
}

int64_t em_layout_turns(const em_layout *layout, int64_t expert)
{
    int64_t most = 1;
    for (int64_t slice = 0; slice < layout->slices_per_expert; slice++) {
        int64_t owners = em_ownership_owners(&layout->ffn, expert * layout->slices_per_expert + slice);
        most = owners > most ? owners : most;
    }
    return most;
}

em_range em_layout_neurons(const em_layout *layout, int64_t slice)
{
    return (em_range){slice * layout->slice_size, min64((slice + 1) * layout->slice_size, layout->ffn_size)};
}

em_units em_layout_vocab_units(const em_layout *layout, int rank)
{
    return em_ownership_units(&layout->vocabulary, rank);
}

em_range em_layout_vocab_rows(const em_layout *layout, int64_t unit)
{
    return (em_range){unit * layout->vocab_block, min64((unit + 1) * layout->vocab_block, layout->vocab_size)};
}

int64_t em_layout_vocab_held(const em_layout *layout, int rank)
{
    em_units units = em_layout_vocab_units(layout, rank);
    int64_t rows = 0;
    for (int64_t i = 0; i < units.count; i++) rows += em_range_size(em_layout_vocab_rows(layout, units.unit[i]));
    return rows;
}

int em_layout_vocab_owner(const em_layout *layout, int64_t token)
{
    return em_ownership_owner(&layout->vocabulary, token / layout->vocab_block, 0);
}

em_range em_layout_tokens(const em_layout *layout, int64_t num_tokens, int rank)
{
    return em_share(num_tokens, layout->num_ranks, rank);
}

int em_layout_token_owner(const em_layout *layout, int64_t num_tokens, int64_t token)
{
    return em_share_owner(num_tokens, layout->num_ranks, token);
}
