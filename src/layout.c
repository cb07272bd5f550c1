#include "expertmesh/layout.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

em_layout em_layout_make(const em_config *config, int num_ranks)
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

em_range em_share(int64_t count, int num_ranks, int rank)
{
    return (em_range){count * rank / num_ranks, count * (rank + 1) / num_ranks};
}

int em_share_owner(int64_t count, int num_ranks, int64_t i)
{
    /* the smallest r with i < floor(count * (r + 1) / P) */
    return (int)(((i + 1) * num_ranks - 1) / count);
}

em_range em_layout_heads(const em_layout *layout, int rank)
{
    int64_t H = layout->num_q_heads, K = layout->num_kv_heads;
    if (layout->num_ranks > K) return em_share(H, layout->num_ranks, rank);
    em_range groups = em_share(K, layout->num_ranks, rank);
    return (em_range){groups.begin * (H / K), groups.end * (H / K)};
}

em_range em_layout_kv_heads(const em_layout *layout, int rank)
{
    em_range heads = em_layout_heads(layout, rank);
    int64_t sharing = layout->num_q_heads / layout->num_kv_heads;
    if (em_range_size(heads) == 0) return (em_range){heads.begin / sharing, heads.begin / sharing};
    return (em_range){heads.begin / sharing, (heads.end - 1) / sharing + 1};
}

int em_layout_kv_owner(const em_layout *layout, int64_t kv_head)
{
    int64_t first_head = kv_head * (layout->num_q_heads / layout->num_kv_heads);
    if (layout->num_ranks > layout->num_kv_heads)
        return em_share_owner(layout->num_q_heads, layout->num_ranks, first_head);
    return em_share_owner(layout->num_kv_heads, layout->num_ranks, kv_head);
}

em_range em_layout_ffn_units(const em_layout *layout, int rank)
{
    return em_share(layout->num_experts * layout->slices_per_expert, layout->num_ranks, rank);
}

em_range em_layout_slices(const em_layout *layout, int rank, int64_t expert)
{
    em_range units = em_layout_ffn_units(layout, rank);
    int64_t first = expert * layout->slices_per_expert, past = first + layout->slices_per_expert;
    int64_t begin = units.begin > first ? units.begin : first, end = min64(units.end, past);
    if (begin >= end) return (em_range){0, 0};
    return (em_range){begin - first, end - first};
}

em_range em_layout_experts(const em_layout *layout, int rank)
{
    em_range units = em_layout_ffn_units(layout, rank);
    int64_t first = units.begin / layout->slices_per_expert;
    if (em_range_size(units) == 0) return (em_range){first, first};
    return (em_range){first, (units.end - 1) / layout->slices_per_expert + 1};
}

em_range em_layout_neurons(const em_layout *layout, int64_t slice)
{
    return (em_range){slice * layout->slice_size, min64((slice + 1) * layout->slice_size, layout->ffn_size)};
}

em_range em_layout_vocab_units(const em_layout *layout, int rank)
{
    return em_share(layout->vocab_blocks, layout->num_ranks, rank);
}

em_range em_layout_vocab_rows(const em_layout *layout, int64_t unit)
{
    return (em_range){unit * layout->vocab_block, min64((unit + 1) * layout->vocab_block, layout->vocab_size)};
}

int em_layout_vocab_owner(const em_layout *layout, int64_t token)
{
    return em_share_owner(layout->vocab_blocks, layout->num_ranks, token / layout->vocab_block);
}

em_range em_layout_tokens(const em_layout *layout, int64_t num_tokens, int rank)
{
    return em_share(num_tokens, layout->num_ranks, rank);
}

int em_layout_token_owner(const em_layout *layout, int64_t num_tokens, int64_t token)
{
    return em_share_owner(num_tokens, layout->num_ranks, token);
}
