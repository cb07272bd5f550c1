/* Each product of a layer, in every way to store and to compute; declared in bench.h.
 *
 * The matrices are many and different, and lie in memory, not in a cache: a product is run over one after another of them,
 * as a model does that has more layers than a cache holds. Packing the inputs is part of the product. */
#include "bench.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

em_shapes em_shapes_of(const em_config *c)
{
    em_layout layout = em_layout_make(c, 1);
    enum { MOST_BLOCKS = 64 }; /* of any vocabulary */
    int64_t blocks = layout.vocab_blocks < MOST_BLOCKS ? layout.vocab_blocks : MOST_BLOCKS;
    int64_t attention = c->num_q_heads + 2 * c->num_kv_heads, n = layout.slice_size, D = c->emb_size;
    int64_t block = layout.vocab_block;
    em_layout_free(&layout);
    return (em_shapes){
        EM_MOST_SHAPES,
        {{"query, key, value", attention, c->key_size, D},
         {"a head's attn_output", 1, D, c->key_size},
         {c->ffn_kind == EM_FFN_GLU ? "a slice's gate, up" : "a slice's up", c->ffn_kind == EM_FFN_GLU ? 2 : 1, n, D},
         {"a slice's down", 1, D, n},
         {"output blocks", blocks, block, D}}};
}

/* A shape many times over, in memory that a storage's shapes share. */
typedef struct pool {
    em_shape shape;
    int64_t copies;    /* of the shape */
    int64_t next;      /* copy to run */
    em_matrix *matrix; /* [copies, shape.matrices] views */
    float *scale;      /* [shape.rows] of all int8 matrices */
    float *x;          /* [EM_ROW_BLOCK, cols] */
    const float *row[EM_ROW_BLOCK];
    float *y;            /* [EM_ROW_BLOCK, shape.matrices * shape.rows] */
    em_product *product; /* [shape.matrices] */
    em_inputs inputs;
} pool;

static int64_t shape_bytes(const em_shape *shape, em_storage storage)
{
    int64_t line = 64, bytes = shape->rows * shape->cols * (int64_t)em_storage_bytes(storage);
    return shape->matrices * ((bytes + line - 1) / line * line);
}

static void open_pool(em_bench *bench, pool *p, const em_shape *shape, em_storage storage, char *memory, int64_t bytes)
{
    int64_t each = shape_bytes(shape, storage) / shape->matrices, width = shape->matrices * shape->rows;
    *p = (pool){.shape = *shape, .copies = bytes / (each * shape->matrices)};
    p->matrix = em_alloc(p->copies * shape->matrices, sizeof(em_matrix));
    p->scale = em_alloc(shape->rows, sizeof(float));
    for (int64_t i = 0; i < shape->rows; i++) p->scale[i] = 0x1p-7F;
    for (int64_t i = 0; i < p->copies * shape->matrices; i++)
        p->matrix[i] = (em_matrix){.storage = storage,
                                   .rows = shape->rows,
                                   .cols = shape->cols,
                                   .in_panels = true,
                                   .data = memory + i * each,
                                   .scale = p->scale,
                                   .num_groups = 1,
                                   .group_size = shape->cols};
    p->x = em_alloc(EM_ROW_BLOCK * shape->cols, sizeof(float));
    p->y = em_zeroed(EM_ROW_BLOCK * width, sizeof(float));
    p->product = em_alloc(shape->matrices, sizeof(em_product));
    for (int t = 0; t < EM_ROW_BLOCK; t++) p->row[t] = p->x + t * shape->cols;
    em_bench_inputs(bench, EM_ROW_BLOCK * shape->cols, p->x);
}

static void close_pool(pool *p)
{
    free(p->matrix);
    free(p->scale);
    free(p->x);
    free(p->y);
    free(p->product);
    em_inputs_free(&p->inputs);
}

/* One product of T rows after another; the seconds of the slowest rank. */
static double run_products(em_bench *bench, pool *p, int64_t T, em_compute compute, int64_t count)
{
    const em_shape *shape = &p->shape;
    double start = em_bench_start(bench);
    for (int64_t i = 0; i < count; i++) {
        em_inputs_pack(&p->inputs, compute, T, shape->cols, p->row);
        for (int64_t m = 0; m < shape->matrices; m++)
            p->product[m] = (em_product){p->matrix + p->next * shape->matrices + m, p->y + m * shape->rows,
                                         shape->matrices * shape->rows};
        em_products(&p->inputs, shape->matrices, p->product);
        p->next = (p->next + 1) % p->copies;
    }
    return em_bench_stop(bench, start);
}

/* What the products of one way to store and compute are held against. */
typedef struct bounds {
    double read, multiply;
    double sgemm[EM_MOST_SHAPES][2]; /* at 64 and at 256 rows */
} bounds;

enum { FEW_ROWS = 16 }; /* up to here memory is the limit */

static void add_figure(em_bench *bench, const pool *p, int64_t T, const char *way, const em_series *rate,
                       const bounds *limits, double sgemm)
{
    bool few = T <= FEW_ROWS;
    em_figure *figure = em_figures_add(&bench->figures, em_bench_groups[EM_BENCH_PRODUCTS], few ? "GB/s" : "GFLOP/s",
                                       rate, "%s, %s, %lld row%s", p->shape.what, way, (long long)T, T == 1 ? "" : "s");
    if (few)
        em_figure_limit(figure, limits->read / 1e9, "read");
    else if (isfinite(sgemm))
        em_figure_limit(figure, sgemm / 1e9, "sgemm");
    else
        em_figure_limit(figure, limits->multiply / 1e9, "multiply");
}

/* Bytes or operations a second at T rows: each run long enough for a clock, or several times through all copies. */
static void measure(em_bench *bench, pool *p, int64_t T, em_storage storage, em_compute compute, const bounds *limits,
                    double sgemm)
{
    const double enough = 0.015; /* half the seconds of a run */
    enum { PASSES = 4 };         /* through little memory: no more than that */
    char way[64];
    const em_shape *shape = &p->shape;
    double bytes = (double)(shape->matrices * shape->rows * shape->cols) * (double)em_storage_bytes(storage);
    double operations = 2.0 * (double)(T * shape->matrices * shape->rows * shape->cols);
    int64_t count = 1;
    while (run_products(bench, p, T, compute, count) < enough && count < PASSES * p->copies) count *= 2;
    em_series rate = {.count = 0};
    for (int run = 0; run < bench->runs; run++) {
        em_bench_inputs(bench, T * shape->cols, p->x);
        double seconds = run_products(bench, p, T, compute, count);
        em_series_add(&rate, (T <= FEW_ROWS ? bytes : operations) * (double)(count * bench->num_ranks) / seconds / 1e9);
    }
    snprintf(way, sizeof way, "%s weights, %s compute", em_storage_name(storage), em_compute_name(compute));
    add_figure(bench, p, T, way, &rate, limits, sgemm);
}

static void measure_shapes(em_bench *bench, em_storage storage, em_compute compute, bounds *limits, char *memory,
                           int64_t bytes)
{
    static const int64_t rows[] = {1, 4, 16, 64, 256};
    em_shapes shapes = em_shapes_of(&bench->config);
    em_bench_say(bench, "products: %s weights, %s compute", em_storage_name(storage), em_compute_name(compute));
    limits->read = em_probe_read(bench);
    for (int s = 0; s < shapes.count; s++) {
        pool p;
        open_pool(bench, &p, &shapes.shape[s], storage, memory, bytes);
        for (int i = 0; i < 5; i++)
            measure(bench, &p, rows[i], storage, compute, limits,
                    rows[i] > FEW_ROWS ? limits->sgemm[s][i - 3] : (double)NAN);
        close_pool(&p);
    }
}

/* Numbers of a size in [0.5, 1), of either sign, or of 8 bits but for -128. */
static void fill_weights(em_bench *bench, em_storage storage, char *memory, int64_t bytes)
{
    static const uint64_t keep[] = {UINT64_C(0x807fffff807fffff), UINT64_C(0x807f807f807f807f), UINT64_MAX};
    static const uint64_t set[] = {UINT64_C(0x3f0000003f000000), UINT64_C(0x3f003f003f003f00),
                                   UINT64_C(0x0101010101010101)};
    uint64_t first = em_bench_draw(bench), *number = (uint64_t *)(void *)memory;
#pragma omp parallel num_threads(bench->threads)
    {
        em_bench own = {.draw = first + 977 * (uint64_t)omp_get_thread_num()};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < bytes / 8; i++) number[i] = (em_bench_draw(&own) & keep[storage]) | set[storage];
    }
}

static void measure_storage(em_bench *bench, em_storage storage, bounds *limits)
{
    em_shapes shapes = em_shapes_of(&bench->config);
    int64_t bytes = bench->memory / bench->num_ranks;
    for (int s = 0; s < shapes.count; s++)
        if (bytes < shape_bytes(&shapes.shape[s], storage)) bytes = shape_bytes(&shapes.shape[s], storage);
    char *memory = em_bench_memory(bytes);
    fill_weights(bench, storage, memory, bytes);
    for (em_compute compute = EM_COMPUTE_F32; compute < EM_NUM_COMPUTES; compute++)
        if (em_compute_fit(compute, storage) == compute && em_bench_computes(bench, compute))
            measure_shapes(bench, storage, compute, limits, memory, bytes);
    free(memory);
}

void em_bench_products(em_bench *bench)
{
    em_shapes shapes = em_shapes_of(&bench->config);
    bounds limits = {.multiply = em_probe_multiply(bench)};
    em_bench_say(bench, "products: sgemm");
    for (int s = 0; s < shapes.count; s++)
        for (int i = 0; i < 2; i++)
            limits.sgemm[s][i] = em_probe_sgemm(bench, i == 0 ? 64 : 256,
                                                shapes.shape[s].matrices * shapes.shape[s].rows, shapes.shape[s].cols);
    for (em_storage storage = EM_F32; storage < EM_NUM_STORAGES; storage++)
        if (bench->storages[storage]) measure_storage(bench, storage, &limits);
}
