/* expertmesh/kernels.h: the arithmetic, on plain arrays. No MPI, no files.
 *
 * Arrays are float32, row-major, shapes first. Each function's result is a function of its arguments alone: one thread, a
 * fixed order of summing, so equal calls give equal bits; and what comes out for one row does not depend on the rows
 * beside it. That is why products run through loops of our own (tiles.h) and not through a BLAS, whose last bits change
 * with the number of rows. It costs nothing: on a Xeon with AVX-512 (Sapphire Rapids, 2026-11-23, one core, 3,072 neurons
 * of 6,144 weights, the best of 7 in one run, OpenBLAS 0.3.21 with its SkylakeX kernels as 1.00) float32 reached 2.4 at 1
 * row, 1.4 at 16, 1.16 at 64, 1.00 at 256; bf16 weights 4.1, 1.9, 1.3, 1.01; int8 7.5, 3.0, 1.5, 1.10. */
#ifndef EXPERTMESH_KERNELS_H
#define EXPERTMESH_KERNELS_H

#include "expertmesh/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A matrix as it is stored; bf16 and int8 are never expanded whole.
 * Rows lie one after another, or, as products want them, in panels of 16 neurons: panel p holds rows [16p, 16p + width),
 * width 16 or what is left, as [cols, width]; of bf16, in whole panels, two neighbouring columns lie beside each other,
 * [cols / 2, 16, 2]. An int8 number in row o, column j weighs q * scale[o, (j + group_offset) / group_size]. */
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

/* Put rows [first, first + count), given as [count, cols] one after another, to their places. Where the matrix has panels,
 * first is a multiple of 16, and so is count, or the rows are its last. */
void em_matrix_put(em_matrix *matrix, int64_t first, int64_t count, const void *rows);

/* Rows [first, first + count) as float32, exactly as they weigh: out [count, cols]. */
void em_matrix_rows(const em_matrix *matrix, int64_t first, int64_t count, float *out);

/* The loops of products, from the plainest set of instructions on. Their bits differ, so the ranks of one run use one set. */
typedef enum em_isa { EM_ISA_PLAIN, EM_ISA_AVX2, EM_ISA_AVX512, EM_NUM_ISAS } em_isa;

/* The best set that this processor has, or the one that the environment variable EXPERTMESH_ISA names (plain, avx2,
 * avx512). EM_USAGE when that is not here. */
bool em_isa_choose(em_isa *isa, em_status *status);
/* Use this one in this process from now on. Before the first call: what em_isa_choose says. */
void em_isa_use(em_isa isa);

/* y[t, n] = sum over d of w[n, d] x[t, d]: the weighted sums of all neurons of w for T inputs, in float32.
 *   x [T, w.cols], rows ldx apart;  y [T, w.rows], rows ldy apart. T may be 0.
 * The bits of y[t] depend on w and x[t] alone, not on T: each sum runs over blocks of at most 1,024 inputs of one scale
 * group, in order within a block, and the blocks are added in order. */
void em_matmul(int64_t T, const em_matrix *w, const float *x, int64_t ldx, float *y, int64_t ldy);

/* The same over float32 panels that lie elsewhere: w holds `panels` panels [K, 16], panel_stride floats apart;
 * x [T, K], rows ldx apart; y [T, panels * 16], rows ldy apart. */
void em_panel_product(int64_t T, int64_t panels, int64_t K, const float *w, int64_t panel_stride, const float *x,
                      int64_t ldx, float *y, int64_t ldy);
enum { EM_PANEL = 16 };

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
