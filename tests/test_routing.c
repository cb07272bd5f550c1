/* The plans of a batch, moved for real: the value of token g's element d is a formula, so each rank can say what it must
 * receive, and in which order, without asking any other. */
#include "layouts.h"
#include "plans.h"

#include "expertmesh/routing.h"

static const int64_t token_counts[] = {1, 2, 5, 17, 64, 1, 3, 9, 30, 8}; /* some below the number of ranks */
enum {
    NUM_COUNTS = sizeof token_counts / sizeof *token_counts,
    DIM = 7,
    MOST_NODES = 64,
    FIRST = 5
}; /* FIRST: number of the batch's first token in the run */

static float element(int64_t token, int64_t d)
{
    return (float)(token * 101 + d);
}

/* Choices that load experts unevenly: expert 0 often, the last one never. */
static int32_t choice(int64_t token, int64_t c, int64_t E)
{
    return (int32_t)((token % 3 == 0 ? c : token * 5 + c) % (E > 2 ? E - 1 : E));
}

typedef struct setting {
    em_config config;
    em_layout layout;
    int64_t T, S, E;
    em_range own;
    float *x; /* [T_r, DIM] */
    int32_t *expert;
} setting;

static setting make_setting(int64_t T)
{
    setting s = {.config = em_preset_find("tiny")->config, .T = T};
    s.layout = draw_below(2) ? draw_layout(&s.config, suite_size()) : em_layout_make(&s.config, suite_size());
    s.S = s.config.num_selected_experts;
    s.E = s.config.num_experts;
    s.own = em_layout_tokens(&s.layout, T, suite_rank());
    s.x = em_alloc(em_range_size(s.own) * DIM, sizeof(float));
    s.expert = em_alloc(T * s.S, sizeof(int32_t));
    for (int64_t t = s.own.begin; t < s.own.end; t++)
        for (int64_t d = 0; d < DIM; d++) s.x[(t - s.own.begin) * DIM + d] = element(t, d);
    for (int64_t key = 0; key < T * s.S; key++) s.expert[key] = choice(key / s.S, key % s.S, s.E);
    return s;
}

static void free_setting(setting *s)
{
    free(s->x);
    free(s->expert);
    em_layout_free(&s->layout);
}

static void gather_brings_all_tokens_in_order(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        setting s = make_setting(token_counts[i]);
        bool *needs = em_alloc(suite_size(), sizeof *needs);
        for (int r = 0; r < suite_size(); r++) needs[r] = r % 2 == 0; /* the others get nothing */
        em_exchange *plan = em_plan_gather(MPI_COMM_WORLD, &s.layout, s.T, needs);
        float *all = em_zeroed(s.T * DIM, sizeof *all);
        carry(plan, DIM, em_range_size(s.own), s.x, all);
        for (int64_t t = 0; t < s.T; t++)
            for (int64_t d = 0; d < DIM; d++)
                CU_ASSERT_EQUAL(all[t * DIM + d], needs[suite_rank()] ? element(t, d) : 0);
        free(all);
        free(needs);
        em_exchange_free(plan);
        free_setting(&s);
    }
}

static void embedding_rows_come_home(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        setting s = make_setting(token_counts[i]);
        int32_t *token = em_alloc(s.T, sizeof *token);
        for (int64_t t = 0; t < s.T; t++) token[t] = (int32_t)(t * 37 % s.config.vocab_size);
        /* a rank looks up its rows in global order: the value is that of the token's number */
        float *found = em_alloc(s.T * DIM, sizeof *found);
        int64_t n = 0;
        for (int64_t t = 0; t < s.T; t++)
            if (em_layout_vocab_owner(&s.layout, token[t]) == suite_rank()) {
                for (int64_t d = 0; d < DIM; d++) found[n * DIM + d] = element(token[t], d);
                n++;
            }
        em_exchange *plan = em_plan_embedding(MPI_COMM_WORLD, &s.layout, s.T, token);
        carry(plan, DIM, n, found, s.x);
        for (int64_t t = s.own.begin; t < s.own.end; t++)
            for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(s.x[(t - s.own.begin) * DIM + d], element(token[t], d));
        free(found);
        free(token);
        em_exchange_free(plan);
        free_setting(&s);
    }
}

/* Head u adds (u + 1) * element(t, d) to token t: exact in float, so the sum is known. */
static void sums_come_home(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        setting s = make_setting(token_counts[i]);
        em_cover cover = em_head_cover(&s.layout);
        int here = em_cover_count(&cover, suite_rank());
        int64_t H = s.config.num_q_heads, own = em_range_size(s.own) * DIM;
        float *parts = em_zeroed(here * s.T * DIM, sizeof *parts),
              *home = em_alloc(cover.num_nodes * own, sizeof *home);
        for (int node = 0; node < cover.num_nodes; node++)
            for (int64_t u = cover.node[node].begin; u < cover.node[node].end; u++)
                for (int64_t j = 0; cover.rank[node] == suite_rank() && j < s.T * DIM; j++)
                    parts[cover.place[node] * s.T * DIM + j] += (float)(u + 1) * element(j / DIM, j % DIM);
        em_exchange *plan = em_plan_sum_home(MPI_COMM_WORLD, &s.layout, s.T, &cover);
        carry(plan, DIM, here * s.T, parts, home);
        for (int64_t j = 0; j < own; j++) {
            const float *part[MOST_NODES];
            float sum;
            for (int node = 0; node < cover.num_nodes; node++) part[node] = home + node * own + j;
            CU_ASSERT_EQUAL(*em_tree_finish(H, cover.node, 1, part, &sum),
                            (float)(H * (H + 1) / 2) * element(s.own.begin + j / DIM, j % DIM));
        }
        free(parts);
        free(home);
        em_exchange_free(plan);
        em_cover_free(&cover);
        free_setting(&s);
    }
}

static em_routing *routing_of(const setting *s, const em_covers *covers)
{
    return em_routing_make(MPI_COMM_WORLD, &s->layout, covers, FIRST, s->T, s->S, s->expert);
}

/* Does this rank own any slice of an expert in one of its turns, by the layout alone? */
static bool takes_part(const setting *s, int64_t expert, int64_t turn)
{
    bool here = false;
    for (int64_t slice = 0; slice < s->layout.slices_per_expert; slice++)
        here |= em_ownership_owner(&s->layout.ffn, expert * s->layout.slices_per_expert + slice, turn) == suite_rank();
    return here;
}

/* Rows lie by expert, then by global token, then by choice: not merely somewhere. */
static void dispatch_orders_rows_by_expert_and_token(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        setting s = make_setting(token_counts[i]);
        em_covers covers = em_expert_covers(&s.layout);
        em_routing *routing = routing_of(&s, &covers);
        float *rows = em_alloc(routing->num_rows * DIM, sizeof *rows);
        carry(routing->dispatch, DIM, em_range_size(s.own), s.x, rows);
        int64_t row = 0;
        for (int64_t e = 0; e < s.E; e++)
            for (int64_t turn = 0, turns = em_layout_turns(&s.layout, e); turn < turns; turn++) {
                CU_ASSERT_EQUAL(routing->first_row[covers.first[e] + turn], row);
                for (int64_t key = 0; takes_part(&s, e, turn) && key < s.T * s.S; key++) {
                    if (s.expert[key] != e || (FIRST + key / s.S) % turns != turn) continue;
                    CU_ASSERT_EQUAL(routing->row_key[row], key);
                    for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(rows[row * DIM + d], element(key / s.S, d));
                    row++;
                }
            }
        CU_ASSERT_EQUAL(routing->num_rows, row);
        free(rows);
        em_routing_free(routing);
        em_covers_free(&covers);
        free_setting(&s);
    }
}

/* Slice s of expert e makes (e + 1) * 16 + s of a row's element 0 plus key: every key must get the sum over its expert's
 * slices, at its own place. */
static void combine_brings_each_choice_its_sum(void)
{
    for (int i = 0; i < NUM_COUNTS; i++) {
        setting s = make_setting(token_counts[i]);
        em_covers covers = em_expert_covers(&s.layout);
        em_routing *routing = routing_of(&s, &covers);
        float *outputs = em_zeroed(routing->num_outputs, sizeof *outputs);
        float *parts = em_alloc(routing->num_parts, sizeof *parts);
        for (int64_t g = 0; g < covers.num_groups; g++) {
            const em_cover *cover = &covers.cover[g];
            int64_t rows = routing->first_row[g + 1] - routing->first_row[g];
            for (int node = 0; node < cover->num_nodes; node++)
                for (int64_t r = 0; cover->rank[node] == suite_rank() && r < rows; r++)
                    for (int64_t slice = cover->node[node].begin; slice < cover->node[node].end; slice++) {
                        int32_t key = routing->row_key[routing->first_row[g] + r];
                        outputs[routing->first_output[g] + cover->place[node] * rows + r] +=
                            (float)((s.expert[key] + 1) * 16 + slice + key);
                    }
        }
        CU_ASSERT_EQUAL(routing->outputs[suite_rank()], routing->num_outputs);
        carry(routing->combine, 1, routing->num_outputs, outputs, parts);
        int64_t slices = s.layout.slices_per_expert;
        for (int64_t k = 0; k < em_range_size(s.own) * s.S; k++) {
            int64_t key = s.own.begin * s.S + k, e = s.expert[key];
            int64_t g = routing->own_group[k], turns = em_layout_turns(&s.layout, e);
            CU_ASSERT_EQUAL(g, covers.first[e] + (FIRST + key / s.S) % turns);
            const em_cover *cover = &covers.cover[g];
            const float *part[MOST_NODES];
            float sum;
            for (int node = 0; node < cover->num_nodes; node++) part[node] = parts + routing->first_part[k] + node;
            CU_ASSERT_EQUAL(*em_tree_finish(slices, cover->node, 1, part, &sum),
                            (float)(slices * ((e + 1) * 16 + key) + slices * (slices - 1) / 2));
        }
        free(outputs);
        free(parts);
        em_routing_free(routing);
        em_covers_free(&covers);
        free_setting(&s);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"gather brings all tokens in order", gather_brings_all_tokens_in_order},
        {"embedding rows come home", embedding_rows_come_home},
        {"sums come home", sums_come_home},
        {"dispatch orders rows by expert and token", dispatch_orders_rows_by_expert_and_token},
        {"combine brings each choice its sum", combine_brings_each_choice_its_sum},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "routing", tests);
}
