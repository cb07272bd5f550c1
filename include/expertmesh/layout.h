/* expertmesh/layout.h: who owns which unit and which tokens. Pure arithmetic: no MPI call.
 *
 * A unit is the smallest thing that is owned; its arithmetic is the same calls in the same order wherever it lives:
 *   attention unit   one query head: its rows of attn_query, its columns of attn_output
 *   FFN unit         one slice of one expert: a fixed run of its neurons; unit = expert * slices_per_expert + slice
 *   vocabulary unit  a fixed block of rows of the embedding
 * Units are cut by the model's numbers alone. A rank may own any of them, or none; ranks may be fewer or more than units, and
 * need not divide them. An FFN unit may have several owners (replicas), which take rows in turn by global token; every
 * other unit has one. Tokens lie in contiguous blocks, rank by rank. */
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

/* The numbers of some units, ascending. Borrowed. */
typedef struct em_units {
    int64_t count;
    const int64_t *unit; /* [count] */
} em_units;

/* The place of a unit among them; -1 where it is not. */
int64_t em_units_place(em_units units, int64_t unit);
/* How many of them, from place i on, follow each other without a gap. */
int64_t em_units_run(em_units units, int64_t i);

/* Who owns the units of one kind. */
typedef struct em_ownership {
    int64_t num_units;
    int64_t
        *first_owner; /* [num_units + 1] the owners of unit u are owner[first_owner[u]] to owner[first_owner[u + 1]] */
    int *owner;       /* ranks, in the order in which they take rows */
    int64_t *first_unit; /* [P + 1] the units of rank r are unit[first_unit[r]] to unit[first_unit[r + 1]] */
    int64_t *unit;       /* ascending */
} em_ownership;

/* From the owners of each unit, in memory of malloc that passes to it; first_owner NULL: each has one. */
em_ownership em_ownership_make(int64_t num_units, int num_ranks, int64_t *first_owner, int *owner);

/* Units of a rank. Number of owners of a unit; the one of them that takes the rows of turn t. */
em_units em_ownership_units(const em_ownership *ownership, int rank);
int64_t em_ownership_owners(const em_ownership *ownership, int64_t unit);
int em_ownership_owner(const em_ownership *ownership, int64_t unit, int64_t turn);

/* Freed with em_layout_free. */
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
    em_ownership heads;      /* H units, one owner each */
    em_ownership ffn;        /* E * slices_per_expert units */
    em_ownership vocabulary; /* vocab_blocks units, one owner each */
    em_ownership kv_heads;   /* K; a rank holds those that its query heads need; ranks ascend */
} em_layout;

/* Layouts with a name. */
typedef enum em_layout_kind {
    EM_LAYOUT_CONTIGUOUS, /* runs of neighbouring slices, rank by rank: few experts lie on several ranks */
    EM_LAYOUT_SLICED,     /* runs of neighbouring experts, host by host; the ranks of a host share each by slices */
    EM_LAYOUT_SPREAD,     /* neighbouring experts on different hosts; the ranks of a host share each by slices */
    EM_NUM_LAYOUTS,
    EM_LAYOUT_DEFAULT = EM_LAYOUT_SLICED
} em_layout_kind;

extern const char *const em_layout_names[EM_NUM_LAYOUTS];

/* Bytes of units in all layers. */
typedef struct em_unit_bytes {
    double head, kv_head;
    double neuron;    /* of one expert; a slice has several */
    double vocab_row; /* a vocabulary unit has several */
} em_unit_bytes;

/* What a layout is for. All borrowed. */
typedef struct em_layout_plan {
    em_layout_kind kind;
    int num_ranks;
    const int *host;       /* [P] the lowest rank on each rank's host; NULL: one host */
    const bool *attention; /* [P] may a rank own heads? NULL: all may */
    const bool *experts;   /* [P] and slices? At least one rank may each. */
    em_unit_bytes bytes;
} em_layout_plan;

/* A layout with a name. What a rank owns in all, in bytes, is as equal over the ranks as the runs of whole units allow: slices
 * are dealt first, then heads and vocabulary, each in runs rank by rank, to those that hold less. Heads that share a
 * key/value head stay together while there are as many of these as ranks that may own heads. */
em_layout em_layout_plan_make(const em_config *config, const em_layout_plan *plan);

/* A layout from a map in JSON (README). Parts that it leaves out are laid out by the plan. source opens the message. */
bool em_layout_read(const em_config *config, const em_layout_plan *plan, const char *json, const char *source,
                    em_layout *layout, em_status *status);
/* The map of a layout, which em_layout_read reads. Freed with free. */
char *em_layout_json(const em_layout *layout);

/* Contiguous, for weights of one storage type. */
em_layout em_layout_make(const em_config *config, int num_ranks);
void em_layout_free(em_layout *layout);

/* A layout piece by piece: the units of a model, owned by no one; then whoever likes sets heads, ffn or vocabulary; then
 * the rest is dealt by a plan. */
em_layout em_layout_cut(const em_config *config, int num_ranks);
void em_layout_complete(em_layout *layout, const em_layout_plan *plan);

/* Does a rank own no unit? */
bool em_layout_idle(const em_layout *layout, int rank);

/* The part of rank r when count things go to ranks in contiguous runs whose sizes differ by at most one; and the rank
 * that holds thing i. */
em_range em_share(int64_t count, int num_ranks, int rank);
int em_share_owner(int64_t count, int num_ranks, int64_t i);

/* Query heads of a rank; the key/value heads that these need, which ranks may repeat. */
em_units em_layout_heads(const em_layout *layout, int rank);
em_units em_layout_kv_heads(const em_layout *layout, int rank);
/* The rank that counts as the owner of a key/value head: the lowest that holds it. */
int em_layout_kv_owner(const em_layout *layout, int64_t kv_head);

/* FFN units of a rank; how many experts it owns any slice of. */
em_units em_layout_ffn_units(const em_layout *layout, int rank);
int64_t em_layout_num_experts(const em_layout *layout, int rank);
/* The rank that counts as the owner of an FFN unit, whose other owners repeat it: the first of them. */
int em_layout_ffn_owner(const em_layout *layout, int64_t unit);
/* Neurons of a slice of an expert. */
em_range em_layout_neurons(const em_layout *layout, int64_t slice);

/* An expert takes rows in turns: the row of a token whose number in the run is t has turn t mod em_layout_turns. Of each slice
 * the owner number (turn mod its owners) takes it. The turns are as many as the most owners that a slice of it has. */
int64_t em_layout_turns(const em_layout *layout, int64_t expert);

/* Vocabulary units of a rank, and how many rows of the embedding they are; the rows of one unit, and the rank that holds
 * a token's row. */
em_units em_layout_vocab_units(const em_layout *layout, int rank);
int64_t em_layout_vocab_held(const em_layout *layout, int rank);
em_range em_layout_vocab_rows(const em_layout *layout, int64_t unit);
int em_layout_vocab_owner(const em_layout *layout, int64_t token);

/* Tokens of a rank when a batch has num_tokens. */
em_range em_layout_tokens(const em_layout *layout, int64_t num_tokens, int rank);
int em_layout_token_owner(const em_layout *layout, int64_t num_tokens, int64_t token);

#ifdef __cplusplus
}
#endif
#endif
