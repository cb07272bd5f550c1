/* A batch through a whole model: the bits on these ranks are those of one rank. */
#include "suite.h"

#include "layouts.h"

#include "expertmesh/generate.h"

#include <stdlib.h>
#include <string.h>

static em_batch make_batch(const int *lengths, int count, int64_t vocabulary)
{
    em_batch batch = {0};
    em_status status = {0};
    for (int s = 0; s < count; s++) {
        char text[2048] = "";
        for (int i = 0; i < lengths[s]; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", (int)((s * 41 + i * 7) % vocabulary));
        CU_ASSERT(em_batch_add_tokens(&batch, text, "test", EM_USAGE, &status));
    }
    return batch;
}

/* What follows each prompt after a run on the ranks of comm, and the tokens it generates, [sequence, position]. */
typedef struct story {
    em_outcome after;
    em_profile profile;
    int32_t token[8][256];
} story;

static void keep_token(void *context, int64_t sequence, int64_t position, int32_t token)
{
    story *t = context;
    t->token[sequence][position] = token;
}

/* A model's weights and how they are worked with. */
typedef struct setting {
    const em_config *config;
    em_storage storage;
    em_compute compute;
} setting;

/* On another number of threads each time, and with another layout. */
static void run_on(MPI_Comm comm, const setting *s, const em_batch *batch, const em_generation *generation, story *told)
{
    static int turn;
    em_manner manner = {.compute = s->compute, .threads = 1 + turn % 4, .flat = turn % 2 == 1};
    turn++;
    em_source source;
    em_model model;
    em_status status = {0};
    int64_t rows;
    em_listener listener = {.token = keep_token, .token_context = told};
    memset(told, 0, sizeof *told);
    em_source_generate(&source, s->config, 5, s->storage);
    int ranks;
    MPI_Comm_size(comm, &ranks);
    em_layout layout = draw_layout(s->config, ranks);
    CU_ASSERT(em_model_open(&model, comm, &source, &layout, em_generation_extent(batch, generation), manner, NULL, NULL,
                            &status));
    em_profile_open(&told->profile, s->config->num_layers, s->config->num_experts, model.num_ranks);
    CU_ASSERT(em_generate(&model, batch, generation, NULL, &told->profile, &listener, &told->after, &rows, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    em_model_close(&model);
    em_layout_free(&layout);
    em_source_close(&source);
}

static void free_told(story *told)
{
    em_outcome_free(&told->after);
    em_profile_close(&told->profile);
}

static void check_one_way(const setting *s, const em_batch *batch, const em_generation *generation)
{
    static story all, one;
    const em_config *config = s->config;
    run_on(MPI_COMM_WORLD, s, batch, generation, &all);
    run_on(MPI_COMM_SELF, s, batch, generation, &one);
    size_t count = (size_t)(batch->num_sequences * EM_NUM_BEST);
    CU_ASSERT_EQUAL(all.after.num_sequences, batch->num_sequences);
    CU_ASSERT_EQUAL(memcmp(all.after.token, one.after.token, count * sizeof(int32_t)), 0);
    CU_ASSERT_EQUAL(memcmp(all.after.logit, one.after.logit, count * sizeof(float)), 0);
    CU_ASSERT_EQUAL(memcmp(all.token, one.token, sizeof one.token), 0);
    int64_t loads = config->num_layers * config->num_experts, routed = 0;
    CU_ASSERT_EQUAL(memcmp(all.profile.load, one.profile.load, (size_t)loads * sizeof(int64_t)), 0);
    for (int64_t i = 0; i < loads; i++) routed += all.profile.load[i];
    int64_t rows = em_generation_rows(batch, generation);
    if (generation->stop_token < 0) CU_ASSERT_EQUAL(routed, config->num_layers * rows * config->num_selected_experts);
    free_told(&all);
    free_told(&one);
}

/* Weights of this storage in every way to compute that fits them and that this processor has. */
static bool next_way(setting *s)
{
    em_status status = {0};
    while (++s->compute < EM_NUM_COMPUTES)
        if (em_compute_fit(s->compute, s->storage) == s->compute && em_compute_here(s->compute, &status)) return true;
    return false;
}

static void check_same_bits(const em_config *config, em_storage storage, const em_batch *batch,
                            const em_generation *generation)
{
    setting s = {config, storage, EM_COMPUTE_F32};
    do check_one_way(&s, batch, generation);
    while (next_way(&s));
}

static const em_generation none = {.stop_token = -1, .sampling = {.top_p = 1}};

static void same_bits_as_on_one_rank(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_batch batch = make_batch((int[]){9, 1, 130, 4}, 4, config.vocab_size);
    for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++)
        for (int kind = 0; kind < 2; kind++) {
            config.ffn_kind = (em_ffn_kind)kind;
            check_same_bits(&config, storage, &batch, &none);
        }
    em_batch_free(&batch);
}

static void same_bits_with_fewer_tokens_than_ranks(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_batch batch = make_batch((int[]){1}, 1, config.vocab_size);
    check_same_bits(&config, EM_F32, &batch, &none);
    em_batch_free(&batch);
}

static void same_bits_at_odd_shapes(void)
{
    em_config config = em_preset_find("tiny")->config;
    config.emb_size = 31;
    config.num_q_heads = 5;
    config.num_kv_heads = 1;
    config.key_size = 2;
    config.num_experts = 1;
    config.num_selected_experts = 1;
    config.ffn_size = 3;
    config.vocab_size = 4; /* fewer than the best that are asked for */
    em_batch batch = make_batch((int[]){3, 2}, 2, config.vocab_size);
    check_same_bits(&config, EM_BF16, &batch, &none);
    em_batch_free(&batch);
}

/* Greedy and drawn, with and without a stop, prompts whole and in chunks. */
static void generation_has_the_same_bits(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_batch batch = make_batch((int[]){3, 1, 20}, 3, config.vocab_size);
    em_generation g = {.count = 12, .stop_token = -1, .sampling = {.top_p = 1}};
    check_same_bits(&config, EM_F32, &batch, &g);
    g.prefill_chunk = 5;
    check_same_bits(&config, EM_BF16, &batch, &g);
    g.sampling = (em_sampling){.temperature = 0.8, .top_k = 40, .top_p = 0.9, .seed = 3};
    g.stop_token = 17;
    check_same_bits(&config, EM_INT8, &batch, &g);
    em_batch_free(&batch);
}

/* A sequence that is generated, then run whole as a prompt: the last step of the one and the pass of the other give the
 * same token with the same bits, for no sum's order depends on what else is in a step. */
static void check_one_pass(const setting *s)
{
    static story told, again;
    em_batch batch = make_batch((int[]){4, 9}, 2, s->config->vocab_size), whole = {0};
    em_generation g = {.count = 10, .stop_token = -1, .prefill_chunk = 6, .sampling = {.top_p = 1}};
    run_on(MPI_COMM_WORLD, s, &batch, &g, &told);
    /* prompt 0 again, with what was generated but for the last token */
    char text[512] = "";
    em_status status = {0};
    for (int64_t i = 0; i < 4 + 9; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", i < 4 ? batch.token_id[i] : told.token[0][i]);
    CU_ASSERT(em_batch_add_tokens(&whole, text, "test", EM_USAGE, &status));
    run_on(MPI_COMM_WORLD, s, &whole, &none, &again);
    CU_ASSERT_EQUAL(again.after.token[0], told.token[0][13]);
    free_told(&told);
    free_told(&again);
    em_batch_free(&batch);
    em_batch_free(&whole);
}

static void generated_tokens_are_those_of_one_pass(void)
{
    em_config config = em_preset_find("tiny")->config;
    for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++) {
        setting s = {&config, storage, EM_COMPUTE_F32};
        do check_one_pass(&s);
        while (next_way(&s));
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"same bits as on one rank", same_bits_as_on_one_rank},
        {"same bits with fewer tokens than ranks", same_bits_with_fewer_tokens_than_ranks},
        {"same bits at odd shapes", same_bits_at_odd_shapes},
        {"generation has the same bits", generation_has_the_same_bits},
        {"generated tokens are those of one pass", generated_tokens_are_those_of_one_pass},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "model", tests);
}
