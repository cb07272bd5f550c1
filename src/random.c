#include "expertmesh/random.h"

#include <Random123/philox.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 8 }; /* in one block of 128 bits */

static void draw_block(uint64_t seed, em_tensor tensor, int64_t layer, uint64_t block, uint16_t out[DRAWS])
{
    philox4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)tensor, (uint32_t)layer}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t bits = philox4x32(counter, key);
    for (int i = 0; i < 4; i++) {
        out[2 * i] = (uint16_t)bits.v[i];
        out[2 * i + 1] = (uint16_t)(bits.v[i] >> 16);
    }
}

void em_random_draws(uint64_t seed, em_tensor tensor, int64_t layer, int64_t first, int64_t count, uint16_t *out)
{
    uint16_t block[DRAWS];
    for (int64_t i = first, end = first + count; i < end;) {
        int64_t skip = i % DRAWS, take = DRAWS - skip < end - i ? DRAWS - skip : end - i;
        draw_block(seed, tensor, layer, (uint64_t)(i / DRAWS), block);
        memcpy(out + (i - first), block + skip, (size_t)take * sizeof *out);
        i += take;
    }
}

static float centred(uint16_t draw, float width)
{
    return ((float)draw - 32767.5F) * (width / 32768);
}

typedef struct rule {
    float middle, width;
} rule;

static rule rule_of(em_tensor tensor, int64_t inputs)
{
    switch (tensor) {
    case EM_FINAL_NORM:
    case EM_ATTN_NORM_PRE:
    case EM_ATTN_NORM_POST:
    case EM_FFN_NORM_PRE:
    case EM_FFN_NORM_POST: return (rule){1, 0.1F};
    case EM_FFN_UP_BIAS:
    case EM_FFN_DOWN_BIAS: return (rule){0, 0.1F};
    default: return (rule){0, (float)sqrt(3.0 / (double)inputs)};
    }
}

static void fill_row(rule r, const uint16_t *draw, int64_t row, em_matrix *out)
{
    int64_t n = out->cols;
    if (out->storage == EM_F32) {
        float *numbers = (float *)out->data + row * n;
        for (int64_t j = 0; j < n; j++) numbers[j] = r.middle + centred(draw[j], r.width);
    } else if (out->storage == EM_BF16) {
        uint16_t *numbers = (uint16_t *)out->data + row * n;
        for (int64_t j = 0; j < n; j++) numbers[j] = em_f32_to_bf16(r.middle + centred(draw[j], r.width));
    } else {
        int8_t *numbers = (int8_t *)out->data + row * n;
        for (int64_t j = 0; j < n; j++) numbers[j] = (int8_t)(((int32_t)draw[j] * 255 >> 16) - 127);
        out->scale[row] = r.width / 127;
    }
}

void em_random_fill(const em_config *config, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert,
                    em_range rows, em_range cols, em_matrix *out)
{
    em_tensor_shape shape = em_tensor_shape_of(config, tensor);
    rule r = rule_of(tensor, shape.cols);
    uint16_t *draw = em_alloc(out->cols, sizeof *draw);
    for (int64_t i = 0; i < em_range_size(rows); i++) {
        int64_t first = (expert * shape.rows + rows.begin + i) * shape.cols + cols.begin;
        em_random_draws(seed, tensor, layer, first, out->cols, draw);
        fill_row(r, draw, i, out);
    }
    free(draw);
}
