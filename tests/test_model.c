/* A batch through a whole model: the bits on these ranks are those of one rank. */
#include "suite.h"

#include "expertmesh/model.h"

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

/* The outcome of a run on the ranks of comm. */
static em_outcome run_on(MPI_Comm comm, const em_config *config, em_storage storage, const em_batch *batch,
                         em_profile *profile)
{
    em_source source;
    em_model model;
    em_status status = {0};
    em_outcome outcome = {0};
    em_source_generate(&source, config, 5, storage);
    CU_ASSERT(em_model_open(&model, comm, &source, batch->num_tokens, NULL, NULL, &status));
    em_profile_open(profile, config->num_layers, config->num_experts);
    CU_ASSERT(em_model_run(&model, batch, NULL, profile, &outcome, NULL, NULL, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    em_model_close(&model);
    em_source_close(&source);
    return outcome;
}

static void check_same_bits(const em_config *config, em_storage storage, const em_batch *batch)
{
    em_profile here, alone;
    em_outcome all = run_on(MPI_COMM_WORLD, config, storage, batch, &here);
    em_outcome one = run_on(MPI_COMM_SELF, config, storage, batch, &alone);
    size_t count = (size_t)(one.num_sequences * EM_NUM_BEST);
    CU_ASSERT_EQUAL(all.num_sequences, batch->num_sequences);
    CU_ASSERT_EQUAL(memcmp(all.token, one.token, count * sizeof *one.token), 0);
    CU_ASSERT_EQUAL(memcmp(all.logit, one.logit, count * sizeof *one.logit), 0);
    int64_t loads = config->num_layers * config->num_experts;
    CU_ASSERT_EQUAL(memcmp(here.load, alone.load, (size_t)loads * sizeof *here.load), 0);
    int64_t routed = 0;
    for (int64_t i = 0; i < loads; i++) routed += here.load[i];
    CU_ASSERT_EQUAL(routed, config->num_layers * batch->num_tokens * config->num_selected_experts);
    em_outcome_free(&all);
    em_outcome_free(&one);
    em_profile_close(&here);
    em_profile_close(&alone);
}

static void same_bits_as_on_one_rank(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_batch batch = make_batch((int[]){9, 1, 130, 4}, 4, config.vocab_size);
    for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++)
        for (int kind = 0; kind < 2; kind++) {
            config.ffn_kind = (em_ffn_kind)kind;
            check_same_bits(&config, storage, &batch);
        }
    em_batch_free(&batch);
}

static void same_bits_with_fewer_tokens_than_ranks(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_batch batch = make_batch((int[]){1}, 1, config.vocab_size);
    check_same_bits(&config, EM_F32, &batch);
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
    check_same_bits(&config, EM_BF16, &batch);
    em_batch_free(&batch);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"same bits as on one rank", same_bits_as_on_one_rank},
        {"same bits with fewer tokens than ranks", same_bits_with_fewer_tokens_than_ranks},
        {"same bits at odd shapes", same_bits_at_odd_shapes},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "model", tests);
}
