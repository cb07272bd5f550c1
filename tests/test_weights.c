/* What each rank holds: everything once, nothing whole, the same numbers from a seed and from a file. */
#include "suite.h"

#include "layouts.h"

#include "expertmesh/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static em_config odd_config(em_ffn_kind kind)
{
    em_config config = em_preset_find("tiny")->config;
    config.emb_size = 40;
    config.ffn_size = 37; /* slices of 5 and a last one of 2 */
    config.num_experts = 3;
    config.num_q_heads = 9;
    config.num_kv_heads = 3;
    config.key_size = 6;
    config.vocab_size = 101;
    config.ffn_kind = kind;
    return config;
}

/* The sum over ranks of what is owned is the model, for any number of ranks: arithmetic, no rank needed. */
static void owned_once_on_any_number_of_ranks(void)
{
    for (int kind = 0; kind < 2; kind++)
        for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++) {
            em_config config = odd_config((em_ffn_kind)kind);
            em_source source;
            em_source_generate(&source, &config, 1, storage);
            for (int P = 1; P <= 40; P++) {
                em_layout layout = P % 2 ? draw_layout(&config, P) : em_layout_make(&config, P);
                int64_t owned = 0;
                for (int r = 0; r < P; r++) owned += em_weights_held(&source, &layout, r).owned;
                CU_ASSERT_EQUAL(owned, em_weights_model_bytes(&source));
                em_layout_free(&layout);
            }
            CU_ASSERT_EQUAL(em_weights_model_bytes(&source), em_model_size_of(&config).bytes[storage]);
            em_source_close(&source);
        }
}

static int64_t bytes_allocated(const em_weights *weights, const em_config *config)
{
    int64_t bytes = 0;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(config, t); layer++)
            for (int64_t p = 0; p < weights->places[t]; p++)
                bytes += em_matrix_bytes(&em_weights_of(weights, t, layer)[p]);
    return bytes;
}

/* What is really allocated is what was told, and no matrix is whole on a rank that shares it. */
static void held_is_what_was_told(void)
{
    em_config config = odd_config(EM_FFN_GLU);
    em_layout layout = em_layout_make(&config, suite_size());
    for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++) {
        em_source source;
        em_weights weights;
        em_status status = {0};
        em_source_generate(&source, &config, 7, storage);
        CU_ASSERT(em_weights_load(&weights, &source, &layout, suite_rank(), NULL, NULL, &status));
        em_held held = em_weights_held(&source, &layout, suite_rank());
        CU_ASSERT_EQUAL(bytes_allocated(&weights, &config), held.owned + held.repeated);
        em_tensor_shape up = em_tensor_shape_of(&config, EM_FFN_UP);
        int64_t neurons = 0;
        for (int64_t p = 0; p < weights.places[EM_FFN_UP]; p++)
            neurons += em_weights_of(&weights, EM_FFN_UP, 0)[p].rows;
        if (suite_size() > 1) CU_ASSERT(neurons < up.experts * up.rows);
        em_weights_free(&weights);
        em_source_close(&source);
    }
    em_layout_free(&layout);
}

/* A block of this rank's as float32 against the same place of the whole tensor. */
static void check_block(const em_matrix *block, const em_matrix *whole, int64_t first_row, int64_t first_col)
{
    float *mine = em_alloc(block->cols, sizeof *mine), *all = em_alloc(whole->cols, sizeof *all);
    for (int64_t i = 0; i < block->rows; i++) {
        em_matrix_rows(block, i, 1, mine);
        em_matrix_rows(whole, first_row + i, 1, all);
        CU_ASSERT_EQUAL(memcmp(mine, all + first_col, (size_t)block->cols * sizeof *mine), 0);
    }
    free(mine);
    free(all);
}

typedef struct comparison {
    const em_weights *mine, *whole; /* whole: all blocks, of a layout with one rank */
    const em_layout *layout;
} comparison;

static bool compare_block(void *context, const em_block *block)
{
    const comparison *c = context;
    /* the place on one rank is the unit's number */
    em_units units = {0};
    switch (block->tensor) {
    case EM_EMBEDDING: units = em_layout_vocab_units(c->layout, suite_rank()); break;
    case EM_ATTN_QUERY:
    case EM_ATTN_OUTPUT: units = em_layout_heads(c->layout, suite_rank()); break;
    case EM_ATTN_KEY:
    case EM_ATTN_VALUE: units = em_layout_kv_heads(c->layout, suite_rank()); break;
    case EM_FFN_GATE:
    case EM_FFN_UP:
    case EM_FFN_DOWN:
    case EM_FFN_UP_BIAS:
    case EM_FFN_DOWN_BIAS: units = em_layout_ffn_units(c->layout, suite_rank()); break;
    default: break;
    }
    int64_t place = units.count > 0 ? units.unit[block->place] : block->place;
    const em_matrix *mine = &em_weights_of(c->mine, block->tensor, block->layer)[block->place];
    const em_matrix *whole = &em_weights_of(c->whole, block->tensor, block->layer)[place];
    CU_ASSERT_EQUAL(mine->rows, whole->rows);
    CU_ASSERT_EQUAL(mine->cols, whole->cols);
    check_block(mine, whole, 0, 0);
    return true;
}

static void file_name(char *name, size_t room)
{
    int id = (int)getpid();
    MPI_Bcast(&id, 1, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(name, room, "test-weights-%d.h5", id);
}

/* Written by all ranks together, read back in parts, on several threads: the bits that the seed gives. */
static void file_and_seed_give_the_same(void)
{
    for (int kind = 0; kind < 2; kind++)
        for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++) {
            em_config config = odd_config((em_ffn_kind)kind);
            em_layout layout = draw_layout(&config, suite_size()), single = em_layout_make(&config, 1);
            em_status status = {0};
            char name[64];
            file_name(name, sizeof name);
            CU_ASSERT(em_weights_write(MPI_COMM_WORLD, &config, 7, storage, name, NULL, NULL, &status));
            em_source file, seed;
            em_weights mine, whole;
            CU_ASSERT(em_source_open(&file, name, &status));
            char *written = em_config_json(&file.config), *wanted = em_config_json(&config);
            CU_ASSERT_STRING_EQUAL(written, wanted); /* their bytes may differ between the fields */
            free(written);
            free(wanted);
            em_source_generate(&seed, &config, 7, storage);
            em_threads_use(3);
            CU_ASSERT(em_weights_load(&mine, &file, &layout, suite_rank(), NULL, NULL, &status));
            em_threads_use(1);
            CU_ASSERT(em_weights_load(&whole, &seed, &single, 0, NULL, NULL, &status));
            CU_ASSERT_STRING_EQUAL(status.text, "");
            em_weights_blocks(&config, &layout, suite_rank(), compare_block, &(comparison){&mine, &whole, &layout});
            em_weights_free(&mine);
            em_weights_free(&whole);
            em_source_close(&file);
            em_source_close(&seed);
            em_layout_free(&layout);
            em_layout_free(&single);
            MPI_Barrier(MPI_COMM_WORLD);
            if (suite_rank() == 0) unlink(name);
        }
}

/* On one rank, blocks put together are the matrix that one call makes. */
static void blocks_are_parts_of_one_matrix(void)
{
    em_config config = odd_config(EM_FFN_MLP);
    em_layout layout = em_layout_make(&config, 1);
    em_source seed;
    em_weights weights;
    em_status status = {0};
    em_source_generate(&seed, &config, 11, EM_F32);
    CU_ASSERT(em_weights_load(&weights, &seed, &layout, 0, NULL, NULL, &status));
    const em_matrix *query = em_weights_of(&weights, EM_ATTN_QUERY, 1),
                    *output = em_weights_of(&weights, EM_ATTN_OUTPUT, 1);
    em_source whole;
    em_config one_head = config; /* one head as wide as all: one block is the whole matrix */
    one_head.key_size = config.key_size * config.num_q_heads;
    one_head.num_q_heads = one_head.num_kv_heads = 1;
    em_layout one_layout = em_layout_make(&one_head, 1);
    em_weights one;
    em_source_generate(&whole, &one_head, 11, EM_F32);
    CU_ASSERT(em_weights_load(&one, &whole, &one_layout, 0, NULL, NULL, &status));
    for (int64_t h = 0; h < config.num_q_heads; h++) {
        check_block(&query[h], em_weights_of(&one, EM_ATTN_QUERY, 1), h * config.key_size, 0);
        check_block(&output[h], em_weights_of(&one, EM_ATTN_OUTPUT, 1), 0, h * config.key_size);
    }
    em_weights_free(&weights);
    em_weights_free(&one);
    em_source_close(&seed);
    em_source_close(&whole);
    em_layout_free(&layout);
    em_layout_free(&one_layout);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"owned once on any number of ranks", owned_once_on_any_number_of_ranks},
        {"held is what was told", held_is_what_was_told},
        {"file and seed give the same", file_and_seed_give_the_same},
        {"blocks are parts of one matrix", blocks_are_parts_of_one_matrix},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "weights", tests);
}
