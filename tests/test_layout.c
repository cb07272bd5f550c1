/* Who owns what: every unit exactly once, in contiguous runs, for any number of ranks. */
#include "suite.h"

#include "expertmesh/layout.h"

static const int rank_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 24, 64, 65, 300};
enum { NUM_COUNTS = sizeof rank_counts / sizeof *rank_counts };

typedef em_range range_of(const em_layout *layout, int rank);

/* Runs follow each other from 0 to count without a gap. */
static void check_partition(const em_layout *layout, range_of *of, int64_t count)
{
    int64_t next = 0;
    for (int r = 0; r < layout->num_ranks; r++) {
        em_range run = of(layout, r);
        if (em_range_size(run) == 0) continue;
        CU_ASSERT_EQUAL(run.begin, next);
        CU_ASSERT(run.end > run.begin);
        next = run.end;
    }
    CU_ASSERT_EQUAL(next, count);
}

static void every_unit_is_owned_once(void)
{
    for (int p = 0; p < EM_NUM_PRESETS; p++)
        for (int i = 0; i < NUM_COUNTS; i++) {
            em_layout layout = em_layout_make(&em_presets[p].config, rank_counts[i]);
            check_partition(&layout, em_layout_heads, layout.num_q_heads);
            check_partition(&layout, em_layout_ffn_units, layout.num_experts * layout.slices_per_expert);
            check_partition(&layout, em_layout_vocab_units, layout.vocab_blocks);
        }
}

static void shares_differ_by_one_and_know_their_owner(void)
{
    for (int64_t count = 1; count < 70; count++)
        for (int P = 1; P < 40; P++)
            for (int r = 0; r < P; r++) {
                em_range share = em_share(count, P, r);
                CU_ASSERT(em_range_size(share) == count / P || em_range_size(share) == count / P + 1);
                for (int64_t i = share.begin; i < share.end; i++) CU_ASSERT_EQUAL(em_share_owner(count, P, i), r);
            }
}

/* Query heads that share a key/value head lie on one rank while there are no more ranks than key/value heads. */
static void groups_stay_together(void)
{
    const em_config *config = &em_preset_find("grok1")->config;
    for (int P = 1; P <= 60; P++) {
        em_layout layout = em_layout_make(config, P);
        int64_t held = 0;
        for (int r = 0; r < P; r++) {
            em_range heads = em_layout_heads(&layout, r), kv = em_layout_kv_heads(&layout, r);
            held += em_range_size(kv);
            for (int64_t h = heads.begin; h < heads.end; h++) CU_ASSERT(kv.begin <= h / 6 && h / 6 < kv.end);
            for (int64_t k = kv.begin; k < kv.end; k++) CU_ASSERT(em_layout_kv_owner(&layout, k) <= r);
        }
        if (P <= 8) CU_ASSERT_EQUAL(held, 8);
        for (int64_t k = 0; k < 8; k++) {
            em_range kv = em_layout_kv_heads(&layout, em_layout_kv_owner(&layout, k));
            CU_ASSERT(kv.begin <= k && k < kv.end);
        }
    }
}

/* Slices cover the neurons; none is empty; they do not depend on the number of ranks. */
static void slices_cover_an_expert(void)
{
    em_config config = em_preset_find("tiny")->config;
    for (config.ffn_size = 1; config.ffn_size < 300; config.ffn_size += 7) {
        em_layout layout = em_layout_make(&config, 3), other = em_layout_make(&config, 17);
        CU_ASSERT_EQUAL(layout.slice_size, other.slice_size);
        CU_ASSERT(layout.slices_per_expert <= 8);
        int64_t next = 0;
        for (int64_t s = 0; s < layout.slices_per_expert; s++) {
            em_range neurons = em_layout_neurons(&layout, s);
            CU_ASSERT_EQUAL(neurons.begin, next);
            CU_ASSERT(em_range_size(neurons) > 0);
            next = neurons.end;
        }
        CU_ASSERT_EQUAL(next, config.ffn_size);
    }
}

static void slices_of_an_expert_meet_its_ranks(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        em_layout layout = em_layout_make(&em_preset_find("tiny")->config, rank_counts[i]);
        for (int64_t e = 0; e < layout.num_experts; e++) {
            int64_t found = 0;
            for (int r = 0; r < layout.num_ranks; r++) {
                int64_t here = em_range_size(em_layout_slices(&layout, r, e));
                em_range experts = em_layout_experts(&layout, r);
                CU_ASSERT_EQUAL(here > 0, experts.begin <= e && e < experts.end);
                found += here;
            }
            CU_ASSERT_EQUAL(found, layout.slices_per_expert);
        }
    }
}

static void vocabulary_knows_its_owner(void)
{
    em_config config = em_preset_find("tiny")->config;
    for (config.vocab_size = 1; config.vocab_size < 5000; config.vocab_size = config.vocab_size * 3 + 1)
        for (int P = 1; P < 30; P += 4) {
            em_layout layout = em_layout_make(&config, P);
            for (int64_t v = 0; v < config.vocab_size; v++) {
                em_range units = em_layout_vocab_units(&layout, em_layout_vocab_owner(&layout, v));
                CU_ASSERT(em_layout_vocab_rows(&layout, units.begin).begin <= v);
                CU_ASSERT(v < em_layout_vocab_rows(&layout, units.end - 1).end);
            }
        }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"every unit is owned once", every_unit_is_owned_once},
        {"shares differ by one and know their owner", shares_differ_by_one_and_know_their_owner},
        {"groups of heads stay together", groups_stay_together},
        {"slices cover an expert", slices_cover_an_expert},
        {"slices of an expert meet its ranks", slices_of_an_expert_meet_its_ranks},
        {"the vocabulary knows its owner", vocabulary_knows_its_owner},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "layout", tests);
}
