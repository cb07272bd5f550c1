/* Who owns what: every unit, for any number of ranks, and told the same from both sides. */
#include "suite.h"

#include "layouts.h"

#include "expertmesh/base.h"
#include "expertmesh/layout.h"

#include <stdlib.h>
#include <string.h>

static const int rank_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 24, 64, 65, 300};
enum { NUM_COUNTS = sizeof rank_counts / sizeof *rank_counts };

typedef em_units units_of(const em_layout *layout, int rank);

/* Runs follow each other from 0 to count without a gap. */
static void check_partition(const em_layout *layout, units_of *of, int64_t count)
{
    int64_t next = 0;
    for (int r = 0; r < layout->num_ranks; r++) {
        em_units units = of(layout, r);
        for (int64_t i = 0; i < units.count; i++) CU_ASSERT_EQUAL(units.unit[i], next++);
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
            em_layout_free(&layout);
        }
}

/* Owners told by units, and units told by owners. */
static void check_ownership(int64_t num_units, int num_ranks, const int64_t *first, const int *owner)
{
    int64_t *copy = em_alloc(num_units + 1, sizeof *copy), owned = 0;
    int *owners = em_alloc(first[num_units], sizeof *owners);
    memcpy(copy, first, (size_t)(num_units + 1) * sizeof *copy);
    memcpy(owners, owner, (size_t)first[num_units] * sizeof *owners);
    em_layout layout = {.num_ranks = num_ranks, .ffn = em_ownership_make(num_units, num_ranks, copy, owners)};
    for (int r = 0; r < num_ranks; r++) {
        em_units units = em_layout_ffn_units(&layout, r);
        owned += units.count;
        for (int64_t u = 0, next = 0; u < num_units; u++) {
            bool here = false;
            for (int64_t i = first[u]; i < first[u + 1]; i++) here |= owner[i] == r;
            CU_ASSERT_EQUAL(em_units_place(units, u), here ? next++ : -1);
        }
        CU_ASSERT_EQUAL(em_units_place(units, num_units), -1);
        for (int64_t i = 0; i < units.count; i++) {
            int64_t run = em_units_run(units, i);
            for (int64_t k = 0; k < run; k++) CU_ASSERT_EQUAL(units.unit[i + k], units.unit[i] + k);
            CU_ASSERT(i + run == units.count || units.unit[i + run] != units.unit[i] + run);
        }
    }
    CU_ASSERT_EQUAL(owned, first[num_units]);
    for (int64_t u = 0; u < num_units; u++) {
        int64_t owners_of = em_ownership_owners(&layout.ffn, u);
        CU_ASSERT_EQUAL(owners_of, first[u + 1] - first[u]);
        for (int64_t turn = 0; turn < 12; turn++)
            CU_ASSERT_EQUAL(em_ownership_owner(&layout.ffn, u, turn), owner[first[u] + turn % owners_of]);
    }
    em_layout_free(&layout);
}

static void any_owners_are_found(void)
{
    enum { MOST_UNITS = 60, MOST_RANKS = 9 };
    int64_t first[MOST_UNITS + 1] = {0};
    int owner[MOST_UNITS * MOST_RANKS];
    for (int i = 0; i < 300; i++) {
        int64_t num_units = draw_from(1, MOST_UNITS);
        int num_ranks = (int)draw_from(1, MOST_RANKS);
        for (int64_t u = 0; u < num_units; u++) {
            int64_t owners = draw_from(1, num_ranks), begin = draw_below(num_ranks);
            first[u + 1] = first[u] + owners;
            for (int64_t k = 0; k < owners; k++) owner[first[u] + k] = (int)((begin + k) % num_ranks);
        }
        check_ownership(num_units, num_ranks, first, owner);
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
            em_units heads = em_layout_heads(&layout, r), kv = em_layout_kv_heads(&layout, r);
            held += kv.count;
            for (int64_t i = 0; i < heads.count; i++) CU_ASSERT(em_units_place(kv, heads.unit[i] / 6) >= 0);
            for (int64_t i = 0; i < kv.count; i++) CU_ASSERT(em_layout_kv_owner(&layout, kv.unit[i]) <= r);
        }
        if (P <= 8) CU_ASSERT_EQUAL(held, 8);
        for (int64_t k = 0; k < 8; k++)
            CU_ASSERT(em_units_place(em_layout_kv_heads(&layout, em_layout_kv_owner(&layout, k)), k) >= 0);
        em_layout_free(&layout);
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
        em_layout_free(&layout);
        em_layout_free(&other);
    }
}

static void experts_of_a_rank_are_counted(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        em_layout layout = em_layout_make(&em_preset_find("tiny")->config, rank_counts[i]);
        for (int r = 0; r < layout.num_ranks; r++) {
            em_units units = em_layout_ffn_units(&layout, r);
            int64_t found = 0;
            for (int64_t e = 0; e < layout.num_experts; e++) {
                bool here = false;
                for (int64_t k = 0; k < units.count; k++) here |= units.unit[k] / layout.slices_per_expert == e;
                found += here;
            }
            CU_ASSERT_EQUAL(em_layout_num_experts(&layout, r), found);
        }
        em_layout_free(&layout);
    }
}

static void vocabulary_knows_its_owner(void)
{
    em_config config = em_preset_find("tiny")->config;
    for (config.vocab_size = 1; config.vocab_size < 5000; config.vocab_size = config.vocab_size * 3 + 1)
        for (int P = 1; P < 30; P += 4) {
            em_layout layout = em_layout_make(&config, P);
            int64_t held = 0;
            for (int64_t v = 0; v < config.vocab_size; v++) {
                em_units units = em_layout_vocab_units(&layout, em_layout_vocab_owner(&layout, v));
                int64_t place = em_units_place(units, v / layout.vocab_block);
                CU_ASSERT_FATAL(place >= 0);
                em_range rows = em_layout_vocab_rows(&layout, units.unit[place]);
                CU_ASSERT(rows.begin <= v && v < rows.end);
            }
            for (int r = 0; r < P; r++) held += em_layout_vocab_held(&layout, r);
            CU_ASSERT_EQUAL(held, config.vocab_size);
            em_layout_free(&layout);
        }
}

/* ---- layouts by name ---- */

/* Hosts of so many ranks each, the last perhaps of fewer. */
static void make_hosts(int num_ranks, int per_host, int *host)
{
    for (int r = 0; r < num_ranks; r++) host[r] = r / per_host * per_host;
}

/* Every unit once, by ranks that may; a bare count of owners. */
static void check_owned_once(const em_ownership *o, int num_ranks, const bool *may)
{
    int64_t owned = 0;
    for (int r = 0; r < num_ranks; r++) {
        int64_t count = em_ownership_units(o, r).count;
        owned += count;
        if (may && !may[r]) CU_ASSERT_EQUAL(count, 0);
    }
    CU_ASSERT_EQUAL(owned, o->num_units);
    for (int64_t u = 0; u < o->num_units; u++) CU_ASSERT_EQUAL(em_ownership_owners(o, u), 1);
}

static void named_layouts_own_all_once(void)
{
    enum { MOST_RANKS = 40 };
    int host[MOST_RANKS];
    bool attention[MOST_RANKS], experts[MOST_RANKS];
    em_config config = em_preset_find("tiny")->config;
    for (int i = 0; i < 400; i++) {
        int P = (int)draw_from(1, MOST_RANKS);
        make_hosts(P, (int)draw_from(1, P), host);
        for (int r = 0; r < P; r++) {
            attention[r] = draw_below(3) == 0;
            experts[r] = draw_below(3) == 0;
        }
        attention[draw_below(P)] = experts[draw_below(P)] = true;
        config.num_experts = draw_from(1, 20);
        config.num_selected_experts = 1;
        config.ffn_size = draw_from(1, 100);
        em_layout_plan plan = {.kind = (em_layout_kind)draw_below(EM_NUM_LAYOUTS),
                               .num_ranks = P,
                               .host = host,
                               .attention = i % 2 ? attention : NULL,
                               .experts = i % 3 ? experts : NULL,
                               .bytes = {(double)draw_from(1, 9), 1, (double)draw_from(1, 9), (double)draw_from(1, 9)}};
        em_layout layout = em_layout_plan_make(&config, &plan);
        check_owned_once(&layout.heads, P, plan.attention);
        check_owned_once(&layout.ffn, P, plan.experts);
        check_owned_once(&layout.vocabulary, P, NULL);
        em_layout_free(&layout);
    }
}

/* Where the numbers divide: each host has a run of experts, each rank of it the same slices of all of them. */
static void sliced_shares_experts_in_a_host(void)
{
    int host[8];
    em_config config = em_preset_find("grok1")->config; /* 8 experts of 8 slices */
    make_hosts(8, 4, host);
    em_layout layout = em_layout_plan_make(
        &config, &(em_layout_plan){.kind = EM_LAYOUT_SLICED, .num_ranks = 8, .host = host, .bytes = {1, 1, 1, 1}});
    for (int64_t u = 0; u < 64; u++)
        CU_ASSERT_EQUAL(em_layout_ffn_owner(&layout, u), u / 8 / 4 * 4 + u % 8 / 2); /* expert u / 8, slice u % 8 */
    em_layout_free(&layout);
}

static void spread_parts_neighbours(void)
{
    int host[12];
    em_config config = em_preset_find("grok1")->config;
    for (int per_host = 1; per_host <= 6; per_host++) {
        make_hosts(12, per_host, host);
        em_layout layout = em_layout_plan_make(
            &config, &(em_layout_plan){.kind = EM_LAYOUT_SPREAD, .num_ranks = 12, .host = host, .bytes = {1, 1, 1, 1}});
        for (int64_t e = 0; e + 1 < config.num_experts; e++)
            CU_ASSERT_NOT_EQUAL(host[em_layout_ffn_owner(&layout, e * 8)],
                                host[em_layout_ffn_owner(&layout, e * 8 + 8)]);
        em_layout_free(&layout);
    }
}

/* Slices that do not divide leave some ranks with less, which then get the heads and the vocabulary. Where these suffice, as
 * here, a rank's bytes are off by the two ends of its run of blocks, each by half a block at most. */
static void bytes_are_levelled(void)
{
    em_config config = em_preset_find("grok1")->config;
    const em_unit_bytes bytes = {3, 3, 0.1, 0.05}; /* a slice 409.6, a block of the vocabulary 25.6 */
    for (int P = 1; P <= 8; P++) {
        em_layout layout = em_layout_plan_make(&config, &(em_layout_plan){.num_ranks = P, .bytes = bytes});
        double least = 1e300, most = 0;
        for (int r = 0; r < P; r++) {
            double held = (double)em_layout_heads(&layout, r).count * (3 + 3.0 / 6) +
                          (double)em_layout_ffn_units(&layout, r).count * 4096 * 0.1 +
                          (double)em_layout_vocab_held(&layout, r) * 0.05;
            least = held < least ? held : least;
            most = held > most ? held : most;
        }
        CU_ASSERT(most - least <= 2 * 25.6 + 1e-6);
        em_layout_free(&layout);
    }
}

/* A map that is written is read again as the same layout. */
static void maps_come_back(void)
{
    const em_config *config = &em_preset_find("tiny")->config;
    for (int i = 0; i < 200; i++) {
        int P = (int)draw_from(1, 12);
        em_layout layout = draw_layout(config, P), again;
        em_status status = {0};
        em_layout_plan plan = {.num_ranks = P, .bytes = {1, 1, 1, 1}};
        char *map = em_layout_json(&layout), *other = NULL;
        CU_ASSERT_FATAL(em_layout_read(config, &plan, map, "map", &again, &status));
        for (int64_t u = 0; u < layout.ffn.num_units; u++) {
            CU_ASSERT_EQUAL(em_ownership_owners(&again.ffn, u), em_ownership_owners(&layout.ffn, u));
            for (int64_t t = 0; t < 12; t++)
                CU_ASSERT_EQUAL(em_ownership_owner(&again.ffn, u, t), em_ownership_owner(&layout.ffn, u, t));
        }
        CU_ASSERT_EQUAL(memcmp(again.heads.owner, layout.heads.owner, sizeof(int[6])), 0);
        other = em_layout_json(&again);
        CU_ASSERT_STRING_EQUAL(other, map);
        free(map);
        free(other);
        em_layout_free(&layout);
        em_layout_free(&again);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"every unit is owned once", every_unit_is_owned_once},
        {"any owners are found", any_owners_are_found},
        {"shares differ by one and know their owner", shares_differ_by_one_and_know_their_owner},
        {"groups of heads stay together", groups_stay_together},
        {"slices cover an expert", slices_cover_an_expert},
        {"experts of a rank are counted", experts_of_a_rank_are_counted},
        {"the vocabulary knows its owner", vocabulary_knows_its_owner},
        {"named layouts own all once", named_layouts_own_all_once},
        {"sliced shares experts in a host", sliced_shares_experts_in_a_host},
        {"spread parts neighbours", spread_parts_neighbours},
        {"bytes are levelled", bytes_are_levelled},
        {"maps come back", maps_come_back},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "layout", tests);
}
