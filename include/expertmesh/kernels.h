/* expertmesh/kernels.h: the arithmetic, on plain arrays. No MPI, no files.
 *
 * Arrays are float32, row-major, shapes first. Each function's result is a function of its arguments alone, with a fixed
 * order of summing, so equal calls give equal bits on any number of threads; and what comes out for one row does not depend
 * on the rows beside it. That is why products run through loops of our own (tiles.h) and not through a BLAS, whose last bits change
 * with the number of rows. It costs nothing. On a Xeon (Sapphire Rapids, 2 cores, 2026-11-23; 4,096 neurons of 6,144
 * weights, weights from memory, medians of 7 in one run), for 1, 4, 16, 64 and 256 rows, one core:
 *   bf16 x bf16, GFLOP/s   16, 62, 240, 541, 790   oneDNN 2.6.3, packed: 12, 48, 188, 478, 537
 *   int8 x int8            31, 120, 452, 1146, 1565   oneDNN: 24, 95, 373, 1138, 1585 (two cores: 3254 against its 3929)
 *   f32 x f32              9, 34, 102, 160, 188
 *   f32 x bf16             17, 70, 157, 183, 185
 *   f32 x int8             35, 114, 126, 177, 195
 * ours with the rounding of activations and the scales, oneDNN's without. Without AMX, on an EPYC (Zen 5, 2026-11-28, one core
 * of a busy host, medians of 7, four turns of ours and two of oneDNN), times the rate of oneDNN:
 *   bf16 x bf16   1.4, 1.5, 1.1, 1.2, 1.1
 *   int8 x int8   1.2, 1.5, 1.0, 1.0, 1.0
 *   f32 x f32     1.7, 1.5, 1.1, 1.1, 1.0
 * So there is no oneDNN here. Against OpenBLAS 0.3.21 with its SkylakeX kernels, float32 had 2.4, 1.4 (16 rows), 1.16 and
 * 1.00 times its rate, before blocks of 256 inputs gave another 10 %. */
#ifndef EXPERTMESH_KERNELS_H
#define EXPERTMESH_KERNELS_H

#include "expertmesh/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A matrix as it is stored; bf16 and int8 are never expanded whole.
 * Rows lie one after another, or, as products want them, in panels of 16 neurons: panel p holds rows [16p, 16p + width),
 * width 16 or what is left, as [cols, width]; of bf16, in whole panels, two neighbouring columns lie beside each other,
 * [cols / 2, 16, 2], of int8 four, [cols / 4, 16, 4]; what is left as [left, 16]. An int8 number in row o, column j weighs
 * q * scale[o, (j + group_offset) / group_size]. */
typedef struct em_matrix {
    em_storage storage;
    int64_t rows, cols;
    bool in_panels;
    void *data;           /* owned; NULL: this rank holds no such part */
    float *scale;         /* [rows, num_groups] of an int8 matrix, owned */
    int64_t num_groups;   /* scale groups that its columns touch */
    int64_t group_size;   /* columns in a whole group */
    int64_t group_offset; /* columns of the first group that lie before column 0 (on another rank) */
} em_matrix;

/* Space for the numbers (not the scales) of a matrix whose other fields are set. */
void em_matrix_allocate(em_matrix *matrix);
void em_matrix_free(em_matrix *matrix);
int64_t em_matrix_bytes(const em_matrix *matrix); /* numbers and scales */

/* Put rows [first, first + count), given as [count, cols] `stride` numbers apart, to their places. Where the matrix has
 * panels, first is a multiple of 16, and so is count, or the rows are its last. False where a number is NaN or infinite. */
bool em_matrix_put(em_matrix *matrix, int64_t first, int64_t count, const void *rows, int64_t stride);

/* Rows [first, first + count) as float32, exactly as they weigh: out [count, cols]. */
void em_matrix_rows(const em_matrix *matrix, int64_t first, int64_t count, float *out);

/* The loops, from the plainest set of instructions on. Their bits differ, so the ranks of one run use one set. */
typedef enum em_isa { EM_ISA_PLAIN, EM_ISA_AVX2, EM_ISA_AVX512, EM_ISA_AMX, EM_NUM_ISAS } em_isa;

/* The best set that this processor has, or the one that the environment variable EXPERTMESH_ISA names (plain, avx2,
 * avx512, amx). EM_USAGE when that is not here. */
bool em_isa_choose(em_isa *isa, em_status *status);
/* Choose this one from now on, as the ranks of a run that goes on must; false where it is not here, or not what
 * EXPERTMESH_ISA names. */
bool em_isa_fix(em_isa isa);
const char *em_isa_name(em_isa isa); /* "plain", "avx2", "avx512", "amx" */
bool em_isa_parse(const char *name, em_isa *isa);
/* Use this one in this process from now on. Before the first call: what em_isa_choose says. */
void em_isa_use(em_isa isa);
em_isa em_isa_in_use(void);

/* How products are computed: of the activations as they are, float32, with any weights; or faster, of activations rounded
 * to bf16 with bf16 weights, or to 8 bits (each row by its largest) with int8 weights. */
typedef enum em_compute { EM_COMPUTE_F32, EM_COMPUTE_BF16, EM_COMPUTE_INT8, EM_NUM_COMPUTES } em_compute;

const char *em_compute_name(em_compute compute); /* "f32", "bf16", "int8" */
bool em_compute_parse(const char *name, em_compute *compute);
/* Does the set in use have it? EM_USAGE where not. */
bool em_compute_here(em_compute compute, em_status *status);
/* The mode itself where it fits the weights; else f32. */
em_compute em_compute_fit(em_compute compute, em_storage storage);

/* How many threads this process's products and stages use, 1 at first. Work is divided by panels and rows, so no bit
 * depends on it. */
void em_threads_use(int count);
int em_threads(void);
int64_t em_threads_bytes(int count); /* their scratch */

enum { EM_PANEL = 16, EM_ROW_BLOCK = 256 }; /* most rows in one product: bounds what is packed */

/* Rows on their way into products: packed once for all matrices that read them. Starts zeroed; keeps its memory from one
 * packing to the next. Read any field; change none. */
typedef struct em_inputs {
    em_compute compute;
    int64_t num_rows, width; /* T, K */
    int64_t stride;          /* bytes from row to row, of bf16 and int8 */
    char *packed;            /* f32: tiles of rows, each [K, rows of the tile]; else [T, stride] */
    float *row_scale;        /* [T] of int8 */
    em_room room;            /* that holds packed */
} em_inputs;

/* Pack T rows of K numbers; row[t] says where each lies. T at most EM_ROW_BLOCK. */
void em_inputs_pack(em_inputs *inputs, em_compute compute, int64_t T, int64_t K, const float *const *row);
void em_inputs_free(em_inputs *inputs);
/* Bytes that packing so much takes, at most. */
int64_t em_inputs_bytes(int64_t T, int64_t K);

/* y[t, n] = sum over d of w[n, d] x[t, d]: the weighted sums of all neurons of w: y [T, w.rows], rows ldy apart.
 * w has panels, and the storage that the inputs' mode asks for. */
typedef struct em_product {
    const em_matrix *w;
    float *y;
    int64_t ldy;
} em_product;

/* Several products of the same inputs, on all threads. The bits of y[t] depend on w and x[t] alone: each sum runs over
 * blocks of at most 256 inputs (1,024 of 16 or 8 bits) of one scale group, in order within a block, and the blocks are added in order. */
void em_products(const em_inputs *x, int64_t count, const em_product *product);
/* Panels [first, past) of one of them, on the calling thread; y begins with neuron 16 * first. */
void em_product_panels(const em_inputs *x, const em_matrix *w, int64_t first, int64_t past, float *y, int64_t ldy);

/* One product of float32 rows ldx apart, any number of them; w has panels or not. */
void em_matmul(int64_t T, const em_matrix *w, const float *x, int64_t ldx, float *y, int64_t ldy);

/* The same over float32 panels that lie elsewhere, on the calling thread: w holds `panels` panels [K, 16], panel_stride
 * floats apart; x [T, K], rows ldx apart; y [T, panels * 16], rows ldy apart. */
void em_panel_product(int64_t T, int64_t panels, int64_t K, const float *w, int64_t panel_stride, const float *x,
                      int64_t ldx, float *y, int64_t ldy);

/* Exact: 16 bits before, 16 zero bits after. And to nearest, ties to even; NaN stays NaN. */
float em_bf16_to_f32(uint16_t value);
uint16_t em_f32_to_bf16(float value);

/* y += x. */
void em_add(int64_t count, const float *x, float *y);
/* y += factor * x. */
void em_add_scaled(int64_t count, float factor, const float *x, float *y);

/* Sum over count products, in 8 double lanes folded in a fixed order: the bits depend on a, b and count alone. */
double em_dot(int64_t count, const float *a, const float *b);

/* RMSNorm (Zhang and Sennrich 2019): y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * scale. x and y [T, D] may be the same. */
void em_rms_norm(int64_t T, int64_t D, const float *x, const float *scale, double eps, float *y);

/* In place over count numbers. */
void em_softmax(int64_t count, float *x);
/* x becomes cap * tanh(x / cap). */
void em_soft_cap(int64_t count, float cap, float *x);
/* GELU, tanh form (Hendrycks and Gimpel 2016): 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
void em_gelu(int64_t count, float *x);
/* GELU itself: x/2 (1 + erf(x / sqrt(2))). One number at a time. */
void em_gelu_erf(int64_t count, float *x);

/* RoPE (Su et al. 2021) on half-split pairs (i, i + C/2), angle = position * base^(-2i/C).
 * table [T, C]: cosines of the C/2 angles, then their sines. x [T, heads, C], tokens ldx apart, is turned in place. */
void em_rope_table(int64_t T, int64_t C, const int32_t *position, double base, float *table);
void em_rope(int64_t T, int64_t heads, int64_t C, const float *table, float *x, int64_t ldx);

/* The indices of the count largest of n numbers, best first; of equals the lower index comes first, NaN
 * last; -1 past n. */
void em_top(int64_t n, const float *x, int64_t count, int32_t *index);

/* The index of the first NaN or infinity, or -1. */
int64_t em_first_not_finite(int64_t count, const float *x);
int64_t em_first_not_finite_bf16(int64_t count, const uint16_t *x);

#ifdef __cplusplus
}
#endif
#endif
