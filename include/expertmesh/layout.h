/* expertmesh/layout.h: who owns which unit and which tokens. Pure arithmetic: no MPI call.
 *
 * A unit is the smallest thing that is owned; its arithmetic is the same calls in the same order wherever it lives:
 *   attention unit   one query head: its rows of attn_query, its columns of attn_output
 *   FFN unit         one slice of one expert: a fixed run of its neurons; unit = expert * slices_per_expert + slice
 *   vocabulary unit  a fixed block of rows of the embedding
 * Units are cut by the model's numbers alone. Each rank owns one contiguous run of each kind, perhaps empty. Tokens lie
 * in contiguous blocks, rank by rank. Ranks may be fewer or more than units, and need not divide them. */
#ifndef EXPERTMESH_LAYOUT_H
#define EXPERTMESH_LAYOUT_H

#include "expertmesh/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* [begin, end); empty where they are equal. */
typedef struct em_range {
    int64_t begin, end;
} em_range;

static inline int64_t em_range_size(em_range range)
{
    return range.end - range.begin;
}

typedef struct em_layout {
    int num_ranks;             /* P */
    int64_t num_q_heads;       /* H */
    int64_t num_kv_heads;      /* K */
    int64_t num_experts;       /* E */
    int64_t ffn_size;          /* F */
    int64_t slice_size;        /* neurons in an expert slice; the last of an expert may be shorter */
    int64_t slices_per_expert; /* at most 8, none of them empty */
    int64_t vocab_size;        /* V */
    int64_t vocab_block;       /* rows of the embedding in a vocabulary unit; the last may be shorter */
    int64_t vocab_blocks;
} em_layout;

em_layout em_layout_make(const em_config *config, int num_ranks);

/* The part of rank r when count things go to ranks in contiguous runs whose sizes differ by at most one; and the rank
 * that holds thing i. */
em_range em_share(int64_t count, int num_ranks, int rank);
int em_share_owner(int64_t count, int num_ranks, int64_t i);

/* Query heads of a rank. Heads that share a key/value head stay together while P <= K. */
em_range em_layout_heads(const em_layout *layout, int rank);
/* Key/value heads that these need. Past P = K, neighbours may repeat one. */
em_range em_layout_kv_heads(const em_layout *layout, int rank);
/* The rank that counts as the owner of a key/value head: the lowest that holds it. */
int em_layout_kv_owner(const em_layout *layout, int64_t kv_head);

/* FFN units of a rank; the slices of one expert among them; the experts of which it owns any slice. */
em_range em_layout_ffn_units(const em_layout *layout, int rank);
em_range em_layout_slices(const em_layout *layout, int rank, int64_t expert);
em_range em_layout_experts(const em_layout *layout, int rank);
/* Neurons of a slice of an expert. */
em_range em_layout_neurons(const em_layout *layout, int64_t slice);

/* Vocabulary units of a rank, the rows of one unit, and the rank that holds a token's row. */
em_range em_layout_vocab_units(const em_layout *layout, int rank);
em_range em_layout_vocab_rows(const em_layout *layout, int64_t unit);
int em_layout_vocab_owner(const em_layout *layout, int64_t token);

/* Tokens of a rank when a batch has num_tokens. */
em_range em_layout_tokens(const em_layout *layout, int64_t num_tokens, int rank);
int em_layout_token_owner(const em_layout *layout, int64_t num_tokens, int64_t token);

#ifdef __cplusplus
}
#endif
#endif
