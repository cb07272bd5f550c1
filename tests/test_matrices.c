/* Matrices of every storage, what is put into them, and their products with float32 rows, against naive double sums over
 * random shapes. */
#include "matrices.h"

/* ---- products ---- */

static void check_panels(int64_t T, int64_t panels, int64_t K, int exponent)
{
    int64_t stride = K * EM_PANEL + draw_below(40), ldx = K + draw_below(4), ldy = panels * EM_PANEL + draw_below(4);
    int64_t size_w = extent(panels, K * EM_PANEL, stride), size_x = extent(T, K, ldx);
    int64_t size_y = extent(T, panels * EM_PANEL, ldy);
    float *w = field(size_w), *x = field(size_x), *y = field(size_y);
    draw_rows(panels, K * EM_PANEL, stride, exponent, w);
    draw_rows(T, K, ldx, exponent, x);
    for (int64_t t = 0; t < T; t++) /* what was there must not matter */
        for (int64_t n = 0; n < panels * EM_PANEL; n++) y[t * ldy + n] = NAN;
    em_panel_product(T, panels, K, w, stride, x, ldx, y, ldy);
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < panels * EM_PANEL; n++)
            check_sum(K, x + t * ldx, w + n / EM_PANEL * stride + n % EM_PANEL, EM_PANEL, y[t * ldy + n]);
    check_gaps(T, panels * EM_PANEL, ldy, y);
    drop(w, size_w);
    drop(x, size_x);
    drop(y, size_y);
}

static void panels_are_sums_of_products(void)
{
    for (int i = 0; i < 60; i++) check_panels(draw_from(1, 40), draw_from(1, 9), draw_from(1, 80), i % 3 * 30);
    check_panels(0, 2, 5, 0);
    check_panels(7, 0, 5, 0);
    check_panels(1, 9, 1, 0);
    check_panels(13, 3, 2500, 0); /* more inputs than one block of a sum */
}

/* ---- matrices ---- */

static void check_rows(const em_matrix *m, const float *weights)
{
    int64_t first = draw_below(m->rows), count = draw_from(0, m->rows - first);
    float *out = field(count * m->cols);
    em_matrix_rows(m, first, count, out);
    CU_ASSERT(same_bits(count * m->cols, out, weights + first * m->cols));
    drop(out, count * m->cols);
}

static void check_matmul(const em_matrix *m, const float *weights, int64_t T)
{
    int64_t ldx = m->cols + draw_below(4), ldy = m->rows + draw_below(4);
    int64_t size_x = extent(T, m->cols, ldx), size_y = extent(T, m->rows, ldy);
    float *x = field(size_x), *y = field(size_y);
    draw_rows(T, m->cols, ldx, 8, x);
    em_matmul(T, m, x, ldx, y, ldy);
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < m->rows; n++) check_sum(m->cols, x + t * ldx, weights + n * m->cols, 1, y[t * ldy + n]);
    check_gaps(T, m->rows, ldy, y);
    drop(x, size_x);
    drop(y, size_y);
}

/* In panels or not, alone or beside others: a row's result has the same bits. */
static void check_independence(const em_matrix *m, const em_matrix *panels, int64_t T)
{
    float *x = field(T * m->cols), *y = field(T * m->rows), *other = field(T * m->rows);
    draw_rows(T, m->cols, m->cols, 8, x);
    em_matmul(T, m, x, m->cols, y, m->rows);
    em_matmul(T, panels, x, m->cols, other, m->rows);
    CU_ASSERT(same_bits(T * m->rows, y, other));
    for (int64_t t = 0; t < T; t++) em_matmul(1, panels, x + t * m->cols, m->cols, other + t * m->rows, m->rows);
    CU_ASSERT(same_bits(T * m->rows, y, other));
    drop(x, T * m->cols);
    drop(y, T * m->rows);
    drop(other, T * m->rows);
}

static void check_matrix(em_storage storage, int64_t T, int64_t rows, int64_t cols, int64_t group_size, int64_t first)
{
    float *weights = field(rows * cols);
    em_matrix m = draw_matrix(storage, rows, cols, group_size, first, weights);
    int64_t scales = storage == EM_INT8 ? 4 * rows * m.num_groups : 0;
    CU_ASSERT_EQUAL(em_matrix_bytes(&m), rows * cols * (int64_t)em_storage_bytes(storage) + scales);
    check_rows(&m, weights);
    check_matmul(&m, weights, T);
    em_matrix panels = in_panels(&m);
    check_rows(&panels, weights);
    check_matmul(&panels, weights, T);
    check_independence(&m, &panels, T);
    free(panels.data);
    em_matrix_free(&m);
    CU_ASSERT_PTR_NULL(m.data);
    CU_ASSERT_PTR_NULL(m.scale);
    CU_ASSERT_EQUAL(em_matrix_bytes(&m), 0);
    drop(weights, rows * cols);
}

static void matrices_of_every_storage_multiply(void)
{
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        for (int i = 0; i < 60; i++) {
            int64_t cols = draw_from(1, 90);
            check_matrix(s, draw_from(0, 40), draw_from(1, 150), cols, cols, 0);
        }
        check_matrix(s, 1, 1, 1, 1, 0);
        check_matrix(s, 0, 3, 5, 5, 0);
    }
}

/* An expert's slice holds some of a neuron's columns: its first group may begin on another rank, its last end there. */
static void columns_of_int8_groups_find_their_scales(void)
{
    for (int i = 0; i < 150; i++) {
        int64_t group_size = draw_from(1, 12), inputs = group_size * draw_from(1, 9);
        int64_t first = draw_below(inputs), cols = draw_from(1, inputs - first);
        check_matrix(EM_INT8, draw_from(0, 4), draw_from(1, 20), cols, group_size, first);
    }
}

/* More inputs than one block of a sum, more rows than one tile, more panels than are worked on together. */
static void large_matrices_are_cut_in_blocks(void)
{
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        check_matrix(s, 2, 201, 3001, 3001, 0);
        check_matrix(s, 53, 37, 2049, 2049, 0);
    }
    check_matrix(EM_INT8, 27, 301, 2999, 768, 769);
    check_matrix(EM_F32, 2 * EM_ROW_BLOCK + 1, 20, 30, 30, 0); /* more rows than one packing */
}

/* ---- what is not finite ---- */

/* Bits of the largest finite numbers, of what is not finite, and of others; of bf16 the upper 16. */
static const uint32_t finite_bits[] = {0x7f7fffff, 0xff7fffff, 0, 0x80000000, 0x00800000, 0x00010001, 0x3f808080};
static const uint32_t not_finite_bits[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff, 0x7f810000, 0x7f800001};

static void set_number(em_storage storage, void *data, int64_t place, uint32_t bits)
{
    if (storage == EM_F32)
        ((uint32_t *)data)[place] = bits;
    else if (storage == EM_BF16)
        ((uint16_t *)data)[place] = (uint16_t)(bits >> 16);
    else
        ((int8_t *)data)[place] = (int8_t)(bits >> 24);
}

/* Rows `stride` numbers apart, between which there is nothing finite. */
static void check_put(em_storage storage, bool in_panels, int64_t rows, int64_t cols)
{
    int64_t stride = cols + draw_below(20), size = (int64_t)em_storage_bytes(storage);
    em_matrix m = {.storage = storage, .rows = rows, .cols = cols, .in_panels = in_panels};
    char *from = em_alloc(rows * stride, (size_t)size);
    em_matrix_allocate(&m);
    for (int64_t i = 0; i < rows * stride; i++)
        set_number(storage, from, i, i % stride < cols ? finite_bits[draw_below(7)] : not_finite_bits[draw_below(6)]);
    CU_ASSERT(em_matrix_put(&m, 0, rows, from, stride));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            set_number(storage, from, i * stride + j, not_finite_bits[draw_below(6)]);
            CU_ASSERT_EQUAL(em_matrix_put(&m, 0, rows, from, stride), storage == EM_INT8);
            set_number(storage, from, i * stride + j, finite_bits[draw_below(7)]);
        }
    CU_ASSERT(em_matrix_put(&m, 0, rows, from, stride));
    em_matrix_free(&m);
    free(from);
}

static void what_is_not_finite_is_found_in_every_place(void)
{
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++)
        for (int i = 0; i < 12; i++) check_put(s, i % 3 > 0, draw_from(1, 40), draw_from(1, 150));
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"panels are sums of products", panels_are_sums_of_products},
        {"matrices of every storage multiply", matrices_of_every_storage_multiply},
        {"columns of int8 groups find their scales", columns_of_int8_groups_find_their_scales},
        {"large matrices are cut in blocks", large_matrices_are_cut_in_blocks},
        {"what is not finite is found in every place", what_is_not_finite_is_found_in_every_place},
        {NULL, NULL},
    };
    skip_without_isa();
    return suite_main(argc, argv, "matrices", tests);
}
