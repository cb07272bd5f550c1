#include "expertmesh/random.h"

#include "draws.h"

#include <math.h>
#include <string.h>

/* The sets that this program was built with; NULL: none of its own, or not for this kind of processor. */
static const em_draws *const sets[EM_NUM_ISAS] = {
    &em_draws_plain,
#ifdef EM_TILES_X86
    &em_draws_avx2,
    &em_draws_avx512,
#endif
};

typedef void make_groups(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *out);

/* count numbers of `size` bytes from place first on. Whole groups go straight to out, the ends by way of a spare one. */
static void make(make_groups *groups, size_t size, const em_stream *stream, em_rule rule, int64_t first, int64_t count,
                 char *out)
{
    char spare[EM_GROUP * sizeof(float)];
    for (int64_t end = first + count; first < end;) {
        int64_t skip = first % EM_BLOCK_DRAWS, whole = skip == 0 ? (end - first) / EM_GROUP : 0;
        int64_t take = EM_GROUP - skip < end - first ? EM_GROUP - skip : end - first;
        uint64_t block = (uint64_t)(first / EM_BLOCK_DRAWS);
        if (whole > 0) {
            take = whole * EM_GROUP;
            groups(stream, block, whole, rule, out);
        } else {
            groups(stream, block, 1, rule, spare);
            memcpy(out, spare + (size_t)skip * size, (size_t)take * size);
        }
        out += (size_t)take * size;
        first += take;
    }
}

static const em_draws *draws_in_use(void)
{
    int best = (int)em_isa_in_use();
    while (!sets[best]) best--; /* the plain one is always there */
    return sets[best];
}

void em_random_draws(uint64_t seed, em_tensor tensor, int64_t layer, int64_t first, int64_t count, uint16_t *out)
{
    em_stream stream = {seed, (uint32_t)tensor, (uint32_t)layer};
    make(draws_in_use()->u16, sizeof *out, &stream, (em_rule){0}, first, count, (char *)out);
}

static bool is_norm(em_tensor tensor)
{
    return tensor == EM_FINAL_NORM || (tensor >= EM_ATTN_NORM_PRE && tensor <= EM_FFN_NORM_POST);
}

/* The numbers of a tensor lie this far around their middle. */
static float width_of(em_tensor tensor, int64_t inputs)
{
    bool is_bias = tensor == EM_FFN_UP_BIAS || tensor == EM_FFN_DOWN_BIAS;
    return is_norm(tensor) || is_bias ? 0.1F : (float)sqrt(3.0 / (double)inputs);
}

void em_random_fill(const em_config *config, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert,
                    em_range rows, em_range cols, em_matrix *out)
{
    const em_draws *draws = draws_in_use();
    make_groups *const groups[EM_NUM_STORAGES] = {draws->f32, draws->bf16, draws->int8};
    em_tensor_shape shape = em_tensor_shape_of(config, tensor);
    float width = width_of(tensor, shape.cols);
    em_rule rule = {is_norm(tensor) ? 1 : 0, width / 32768};
    em_stream stream = {seed, (uint32_t)tensor, (uint32_t)layer};
    size_t size = em_storage_bytes(out->storage);
    /* whole rows are one run */
    int64_t runs = out->cols == shape.cols ? 1 : out->rows,
            length = out->cols == shape.cols ? out->rows * out->cols : out->cols;
    for (int64_t i = 0; i < runs; i++) {
        int64_t first = (expert * shape.rows + rows.begin + i) * shape.cols + cols.begin;
        make(groups[out->storage], size, &stream, rule, first, length, (char *)out->data + (size_t)(i * length) * size);
    }
    for (int64_t i = 0; out->storage == EM_INT8 && i < out->rows; i++) out->scale[i] = width / 127;
}
