/* Random weights: the generator against its published vectors, and every number a function of its place alone. */
#include "suite.h"

#include "draw.h"

#include "expertmesh/random.h"

#include <Random123/philox.h>
#include <stdlib.h>
#include <string.h>

/* ---- the generator ---- */

/* Known answers of Philox-4x32-10, from Random123's own tests (kat_vectors). The third are digits of pi. */
static void philox_gives_its_published_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        philox4x32_ctr_t counter;
        philox4x32_key_t key;
        memcpy(counter.v, known[i].counter, sizeof known[i].counter);
        memcpy(key.v, known[i].key, sizeof known[i].key);
        philox4x32_ctr_t answer = philox4x32_R(10, counter, key);
        CU_ASSERT_EQUAL(memcmp(answer.v, known[i].answer, sizeof known[i].answer), 0);
    }
}

/* Counter and key 0 are what seed 0, the first tensor, layer 0 and block 0 make; low half of a word first. */
static void the_first_draws_are_the_first_answer(void)
{
    static const uint16_t expected[8] = {0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00};
    uint16_t draws[8];
    em_random_draws(0, EM_EMBEDDING, 0, 0, 8, draws);
    CU_ASSERT_EQUAL(memcmp(draws, expected, sizeof draws), 0);
}

/* Key: seed, low and high. Counter: block, low and high; tensor; layer. Places 8b to 8b + 7 are block b. */
static void draws_are_blocks_of_the_generator(void)
{
    for (int i = 0; i < 2000; i++) {
        uint64_t seed = draw_bits(), block = draw_bits() >> draw_from(4, 63);
        em_tensor tensor = (em_tensor)draw_below(EM_NUM_TENSORS);
        int64_t layer = draw_below(1000);
        uint16_t draws[8];
        em_random_draws(seed, tensor, layer, (int64_t)block * 8, 8, draws);
        philox4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)tensor, (uint32_t)layer}};
        philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
        philox4x32_ctr_t bits = philox4x32_R(10, counter, key);
        for (int w = 0; w < 4; w++) {
            CU_ASSERT_EQUAL(draws[2 * w], bits.v[w] & 0xffff);
            CU_ASSERT_EQUAL(draws[2 * w + 1], bits.v[w] >> 16);
        }
    }
}

static void any_range_is_part_of_the_whole(void)
{
    enum { ALL = 500 };
    uint16_t whole[ALL], part[ALL + 1];
    em_random_draws(7, EM_FFN_UP, 3, 0, ALL, whole);
    for (int i = 0; i < 3000; i++) {
        int64_t first = draw_below(ALL), count = draw_from(0, ALL - first);
        part[count] = 0xabcd;
        em_random_draws(7, EM_FFN_UP, 3, first, count, part);
        CU_ASSERT_EQUAL(memcmp(part, whole + first, (size_t)count * sizeof *part), 0);
        CU_ASSERT_EQUAL(part[count], 0xabcd);
    }
}

/* Far beyond 32 bits: places of Grok-1's experts are. */
static void places_are_counted_in_64_bits(void)
{
    uint16_t here[16], later[16], across[16];
    int64_t far = INT64_C(1) << 35; /* block 2^32 */
    em_random_draws(1, EM_FFN_UP, 0, 0, 16, here);
    em_random_draws(1, EM_FFN_UP, 0, far, 16, later);
    em_random_draws(1, EM_FFN_UP, 0, far - 5, 16, across);
    CU_ASSERT_NOT_EQUAL(memcmp(here, later, sizeof here), 0);
    CU_ASSERT_EQUAL(memcmp(across + 5, later, 11 * sizeof *later), 0);
}

/* ---- weights ---- */

static em_config small_config(em_ffn_kind kind)
{
    em_config c = em_preset_find("tiny")->config;
    c.emb_size = 37;
    c.ffn_size = 53;
    c.num_experts = 3;
    c.ffn_kind = kind;
    return c;
}

static em_matrix new_matrix(em_storage storage, int64_t rows, int64_t cols)
{
    return (em_matrix){.storage = storage,
                       .rows = rows,
                       .cols = cols,
                       .data = em_zeroed(rows * cols, em_storage_bytes(storage)),
                       .scale = em_zeroed(rows, sizeof(float)),
                       .num_groups = 1,
                       .group_size = cols};
}

/* A block of one expert's part of a tensor. Freed with em_matrix_free. */
static em_matrix fill(const em_config *c, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert,
                      em_storage storage, em_range rows, em_range cols)
{
    em_matrix m = new_matrix(storage, em_range_size(rows), em_range_size(cols));
    em_random_fill(c, seed, tensor, layer, expert, rows, cols, &m);
    return m;
}

static em_matrix fill_whole(const em_config *c, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert,
                            em_storage storage)
{
    em_tensor_shape shape = em_tensor_shape_of(c, tensor);
    return fill(c, seed, tensor, layer, expert, storage, (em_range){0, shape.rows}, (em_range){0, shape.cols});
}

static bool is_norm(em_tensor t)
{
    return t == EM_FINAL_NORM || (t >= EM_ATTN_NORM_PRE && t <= EM_FFN_NORM_POST);
}

static bool is_bias(em_tensor t)
{
    return t == EM_FFN_UP_BIAS || t == EM_FFN_DOWN_BIAS;
}

/* The number that random.h promises at a place, in double. */
static double promised(em_tensor tensor, int64_t inputs, uint16_t u)
{
    double width = is_norm(tensor) || is_bias(tensor) ? 0.1 : sqrt(3.0 / (double)inputs);
    return (is_norm(tensor) ? 1 : 0) + ((double)u - 32767.5) * width / 32768;
}

static void check_promise(const em_config *c, em_tensor tensor, int64_t expert)
{
    em_tensor_shape shape = em_tensor_shape_of(c, tensor);
    int64_t count = shape.rows * shape.cols, layer = 1;
    uint16_t *u = em_alloc(count, sizeof *u);
    em_random_draws(99, tensor, layer, expert * count, count, u);
    em_matrix f32 = fill_whole(c, 99, tensor, layer, expert, EM_F32);
    em_matrix bf16 = fill_whole(c, 99, tensor, layer, expert, EM_BF16);
    for (int64_t i = 0; i < count; i++) {
        double exact = promised(tensor, shape.cols, u[i]);
        float got = ((float *)f32.data)[i];
        CU_ASSERT(fabs((double)got - exact) <= 0x1p-22 * fabs(exact));
        CU_ASSERT_EQUAL(((uint16_t *)bf16.data)[i], em_f32_to_bf16(got));
    }
    free(u);
    em_matrix_free(&f32);
    em_matrix_free(&bf16);
}

static void weights_are_the_promised_numbers(void)
{
    for (int kind = 0; kind < 2; kind++) {
        em_config c = small_config(kind ? EM_FFN_GLU : EM_FFN_MLP);
        for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
            em_tensor_shape shape = em_tensor_shape_of(&c, t);
            for (int64_t e = 0; shape.present && e < shape.experts; e++) check_promise(&c, t, e);
        }
    }
}

static void int8_weights_are_integers_with_one_scale(void)
{
    em_config c = small_config(EM_FFN_GLU);
    em_tensor_shape shape = em_tensor_shape_of(&c, EM_FFN_DOWN);
    int64_t count = shape.rows * shape.cols, expert = 2;
    uint16_t *u = em_alloc(count, sizeof *u);
    em_random_draws(5, EM_FFN_DOWN, 0, expert * count, count, u);
    em_matrix m = fill_whole(&c, 5, EM_FFN_DOWN, 0, expert, EM_INT8);
    double scale = sqrt(3.0 / (double)shape.cols) / 127;
    for (int64_t i = 0; i < count; i++) CU_ASSERT_EQUAL(((int8_t *)m.data)[i], (int)floor(255.0 * u[i] / 65536) - 127);
    for (int64_t o = 0; o < shape.rows; o++) CU_ASSERT(fabs((double)m.scale[o] - scale) <= 0x1p-22 * scale);
    em_matrix_free(&m);
    free(u);
}

/* Bit for bit: the plain formula, one rounding after the other. */
static float in_float(em_tensor tensor, int64_t inputs, uint16_t u)
{
    float width = is_norm(tensor) || is_bias(tensor) ? 0.1F : (float)sqrt(3.0 / (double)inputs);
    volatile float around = ((float)u - 32767.5F) * (width / 32768);
    return (is_norm(tensor) ? 1.0F : 0.0F) + around;
}

static void check_set(const em_config *c, em_tensor tensor, int64_t first_col)
{
    em_tensor_shape shape = em_tensor_shape_of(c, tensor);
    em_range rows = {0, shape.rows}, cols = {first_col, shape.cols};
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        em_matrix m = fill(c, 17, tensor, 1, 0, s, rows, cols);
        uint16_t *u = em_alloc(m.cols, sizeof *u);
        for (int64_t i = 0; i < m.rows; i++) {
            em_random_draws(17, tensor, 1, i * shape.cols + first_col, m.cols, u);
            for (int64_t j = 0; j < m.cols; j++) {
                float number = in_float(tensor, shape.cols, u[j]);
                int64_t at = i * m.cols + j;
                if (s == EM_F32) CU_ASSERT_EQUAL(memcmp((float *)m.data + at, &number, sizeof number), 0);
                if (s == EM_BF16) CU_ASSERT_EQUAL(((uint16_t *)m.data)[at], em_f32_to_bf16(number));
                if (s == EM_INT8) CU_ASSERT_EQUAL(((int8_t *)m.data)[at], (u[j] * 255 >> 16) - 127);
            }
        }
        free(u);
        em_matrix_free(&m);
    }
}

/* Whatever instructions this processor has: the same draws, and the bits of the formula, in whole groups and odd ends. */
static void every_instruction_set_gives_the_same_bits(void)
{
    enum { COUNT = 1000 };
    uint16_t plain[COUNT], draws[COUNT];
    em_config c = small_config(EM_FFN_MLP);
    em_isa best = em_isa_in_use();
    for (em_isa isa = EM_ISA_PLAIN; isa <= best; isa++) {
        em_isa_use(isa);
        em_random_draws(3, EM_FFN_UP, 1, 5, COUNT, draws);
        if (isa == EM_ISA_PLAIN) memcpy(plain, draws, sizeof draws);
        CU_ASSERT_EQUAL(memcmp(plain, draws, sizeof draws), 0);
        for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
            for (int64_t col = 0; em_tensor_shape_of(&c, t).present && col < 20; col += 9) check_set(&c, t, col);
    }
}

static void check_block(const em_config *c, em_tensor tensor, int64_t expert, em_storage storage)
{
    em_tensor_shape shape = em_tensor_shape_of(c, tensor);
    int64_t top = draw_below(shape.rows), left = draw_below(shape.cols);
    em_range rows = {top, draw_from(top, shape.rows)}, cols = {left, draw_from(left + 1, shape.cols)};
    em_matrix whole = fill_whole(c, 3, tensor, 1, expert, storage);
    em_matrix block = fill(c, 3, tensor, 1, expert, storage, rows, cols);
    size_t size = em_storage_bytes(storage), width = (size_t)block.cols * size;
    for (int64_t i = 0; i < block.rows; i++) {
        const char *from = (const char *)whole.data + (size_t)((top + i) * whole.cols + left) * size;
        CU_ASSERT_EQUAL(memcmp((const char *)block.data + (size_t)i * width, from, width), 0);
        if (storage == EM_INT8) CU_ASSERT_EQUAL(block.scale[i], whole.scale[top + i]);
    }
    em_matrix_free(&whole);
    em_matrix_free(&block);
}

static void any_block_is_part_of_the_whole(void)
{
    for (int i = 0; i < 600; i++) {
        em_config c = small_config(i % 2 ? EM_FFN_GLU : EM_FFN_MLP);
        em_tensor tensor = (em_tensor)draw_below(EM_NUM_TENSORS);
        em_tensor_shape shape = em_tensor_shape_of(&c, tensor);
        if (!shape.present) continue;
        check_block(&c, tensor, draw_below(shape.experts),
                    shape.quantised ? (em_storage)draw_below(EM_NUM_STORAGES) : EM_F32);
    }
}

static bool same(const em_config *c, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert)
{
    em_matrix first = fill_whole(c, 1, EM_FFN_GATE, 0, 0, EM_F32);
    em_matrix other = fill_whole(c, seed, tensor, layer, expert, EM_F32);
    size_t bytes = (size_t)(first.rows * first.cols) * sizeof(float);
    int64_t equal = 0;
    for (int64_t i = 0; i < first.rows * first.cols; i++) equal += ((float *)first.data)[i] == ((float *)other.data)[i];
    bool all = memcmp(first.data, other.data, bytes) == 0;
    CU_ASSERT(all || equal < first.rows * first.cols / 20); /* different means unrelated */
    em_matrix_free(&first);
    em_matrix_free(&other);
    return all;
}

/* ffn_gate and ffn_up have one shape, so nothing but the key and the counter tells them apart. */
static void every_place_has_its_own_numbers(void)
{
    em_config c = small_config(EM_FFN_GLU);
    CU_ASSERT(same(&c, 1, EM_FFN_GATE, 0, 0));
    CU_ASSERT_FALSE(same(&c, 2, EM_FFN_GATE, 0, 0));
    CU_ASSERT_FALSE(same(&c, 1 + (UINT64_C(1) << 32), EM_FFN_GATE, 0, 0));
    CU_ASSERT_FALSE(same(&c, 1, EM_FFN_UP, 0, 0));
    CU_ASSERT_FALSE(same(&c, 1, EM_FFN_GATE, 1, 0));
    CU_ASSERT_FALSE(same(&c, 1, EM_FFN_GATE, 0, 1));
}

/* Uniform in (-a, a): mean 0, variance a^2 / 3, which is 1 / inputs; five standard errors of each. */
static void mean_and_variance_are_those_of_the_rule(void)
{
    em_config c = em_preset_find("tiny")->config;
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        em_matrix m = fill_whole(&c, 11, EM_FFN_UP, 1, 5, s);
        int64_t count = m.rows * m.cols;
        float *numbers = em_alloc(count, sizeof *numbers);
        em_matrix_rows(&m, 0, m.rows, numbers);
        double n = (double)count, sum = 0, squares = 0, largest = 0, variance = 1 / (double)m.cols;
        for (int64_t i = 0; i < count; i++) {
            sum += (double)numbers[i];
            squares += (double)numbers[i] * (double)numbers[i];
            largest = fmax(largest, fabs((double)numbers[i]));
        }
        CU_ASSERT(fabs(sum / n) < 5 * sqrt(variance / n));
        CU_ASSERT(fabs(squares / n - variance) <
                  5 * variance * sqrt(0.8 / n) + 0.01 * variance); /* int8 steps add 1% */
        CU_ASSERT(largest <= sqrt(3 * variance) * (1 + 0x1p-8) && largest > 0.99 * sqrt(3 * variance));
        free(numbers);
        em_matrix_free(&m);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"Philox gives its published answers", philox_gives_its_published_answers},
        {"the first draws are the first answer", the_first_draws_are_the_first_answer},
        {"draws are blocks of the generator", draws_are_blocks_of_the_generator},
        {"any range is part of the whole", any_range_is_part_of_the_whole},
        {"places are counted in 64 bits", places_are_counted_in_64_bits},
        {"weights are the promised numbers", weights_are_the_promised_numbers},
        {"int8 weights are integers with one scale", int8_weights_are_integers_with_one_scale},
        {"every instruction set gives the same bits", every_instruction_set_gives_the_same_bits},
        {"any block is part of the whole", any_block_is_part_of_the_whole},
        {"every place has its own numbers", every_place_has_its_own_numbers},
        {"mean and variance are those of the rule", mean_and_variance_are_those_of_the_rule},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "random", tests);
}
