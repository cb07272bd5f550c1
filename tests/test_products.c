/* Products of packed rows against naive double sums, in every storage and way to compute: random shapes and magnitudes, rows
 * scattered in memory, alone and together, on 1 to 4 threads. Bounds are what the arithmetic allows, not what was seen. */
#include "matrices.h"

#include <float.h>

/* ---- packed inputs ---- */

/* Rows that each lie by themselves, so that the sanitizers see what is read beyond one; in no order in memory. */
typedef struct scattered {
    int64_t T, K;
    float **row;
} scattered;

static scattered draw_scattered(int64_t T, int64_t K, int exponent)
{
    scattered r = {T, K, calloc((size_t)T + 1, sizeof *r.row)};
    for (int64_t i = 0; i < T; i++) r.row[i] = malloc((size_t)K * sizeof(float));
    for (int64_t i = T - 1; i > 0; i--) {
        int64_t other = draw_below(i + 1);
        float *kept = r.row[i];
        r.row[i] = r.row[other];
        r.row[other] = kept;
    }
    for (int64_t i = 0; i < T; i++) draw_rows(1, K, K, exponent, r.row[i]);
    return r;
}

static void scale_rows(const scattered *r, float factor)
{
    for (int64_t t = 0; t < r->T; t++)
        for (int64_t k = 0; k < r->K; k++) r->row[t][k] *= factor;
}

static void free_rows(scattered *r)
{
    for (int64_t t = 0; t < r->T; t++) free(r->row[t]);
    free(r->row);
}

static void pack(em_inputs *x, em_compute compute, const scattered *r)
{
    em_inputs_pack(x, compute, r->T, r->K, (const float *const *)r->row);
    CU_ASSERT(x->compute == compute && x->num_rows == r->T && x->width == r->K);
}

/* What a packing leaves behind must not matter to the next. */
static void poison(em_inputs *x, int64_t K)
{
    scattered r = draw_scattered(EM_ROW_BLOCK, K, 0);
    scale_rows(&r, NAN);
    pack(x, EM_COMPUTE_F32, &r);
    free_rows(&r);
}

/* The number that a packed row holds in place of input k, without the row's scale. */
static double packed_number(const em_inputs *x, int64_t t, int64_t k)
{
    const char *row = x->packed + t * x->stride;
    uint16_t half;
    if (x->compute == EM_COMPUTE_INT8) return ((const int8_t *)row)[k];
    memcpy(&half, row + 2 * k, sizeof half);
    return (double)em_bf16_to_f32(half);
}

/* To bf16: the nearest. To 8 bits: the nearest multiple of the row's largest / 127, which is a float's rounding away. */
static void check_packed(const em_inputs *x, const scattered *r)
{
    for (int64_t t = 0; x->compute != EM_COMPUTE_F32 && t < r->T; t++) {
        float most = 0;
        for (int64_t k = 0; k < r->K; k++) most = fmaxf(most, fabsf(r->row[t][k]));
        if (x->compute == EM_COMPUTE_INT8) CU_ASSERT_EQUAL(x->row_scale[t], most / 127);
        for (int64_t k = 0; k < r->K; k++) {
            double got = packed_number(x, t, k), number = (double)r->row[t][k];
            if (x->compute == EM_COMPUTE_BF16) {
                CU_ASSERT_EQUAL(got, (double)em_bf16_to_f32(em_f32_to_bf16(r->row[t][k])));
                continue;
            }
            CU_ASSERT(fabs(got) <= 127 && (most == 0 ? got == 0 : near(got, number * 127 / (double)most, 0.5001)));
        }
        const char *row = x->packed + t * x->stride;
        for (int64_t i = r->K * (x->compute == EM_COMPUTE_BF16 ? 2 : 1); i < x->stride; i++) CU_ASSERT_EQUAL(row[i], 0);
    }
}

/* Sizes at which tiles, strips and steps begin and end. */
static int64_t draw_height(void)
{
    static const int64_t heights[] = {0,  1,  2,  3,  5,  6,  7,  8,  9,  12, 13, 15,
                                      16, 17, 23, 24, 25, 31, 32, 33, 63, 65, 96};
    return heights[draw_below(sizeof heights / sizeof *heights)];
}

static int64_t draw_width(void)
{
    static const int64_t widths[] = {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256};
    return draw_below(2) ? widths[draw_below(sizeof widths / sizeof *widths)] : draw_from(1, 200);
}

static void inputs_are_rounded_to_the_nearest(void)
{
    static const float sizes[] = {1, 1e30F, 1e-30F, 1e-38F, 1e-43F, 0};
    em_inputs x = {0};
    poison(&x, 300);
    for (int i = 0; i < 60; i++)
        for (em_compute c = EM_COMPUTE_BF16; c < EM_NUM_COMPUTES; c++) {
            scattered r = draw_scattered(draw_height(), draw_width(), i % 3 * 8);
            scale_rows(&r, sizes[i % 6]);
            pack(&x, c, &r);
            check_packed(&x, &r);
            free_rows(&r);
        }
    em_inputs_free(&x);
    CU_ASSERT_PTR_NULL(x.packed);
}

/* Halfway between two numbers of 8 bits lies the even one: of a row whose largest is 127 each is its own. */
static void ties_in_8_bits_go_to_the_even(void)
{
    enum { WIDTH = 509 };
    float row[WIDTH];
    const float *place = row;
    em_inputs x = {0};
    for (int i = 0; i < WIDTH; i++) row[i] = (float)(i - 254) / 2;
    em_inputs_pack(&x, EM_COMPUTE_INT8, 1, WIDTH, &place);
    CU_ASSERT_EQUAL(x.row_scale[0], 1);
    for (int i = 0; i < WIDTH; i++) CU_ASSERT_EQUAL(packed_number(&x, 0, i), rint((i - 254) / 2.0));
    em_inputs_free(&x);
}

static void packing_takes_what_was_said(void)
{
    for (int i = 0; i < 60; i++)
        for (em_compute c = 0; c < EM_NUM_COMPUTES; c++) {
            em_inputs x = {0};
            scattered r = draw_scattered(i % 2 ? i : draw_height(), draw_width(), 0);
            pack(&x, c, &r);
            CU_ASSERT(x.room.bytes <= em_inputs_bytes(r.T, r.K));
            free_rows(&r);
            em_inputs_free(&x);
        }
}

/* ---- products of packed inputs ---- */

/* A matrix in panels, and its numbers and weights in plain order. */
typedef struct operand {
    em_matrix plain, w;
    float *weights; /* [rows, cols] */
} operand;

static operand draw_operand(em_storage storage, int64_t neurons, int64_t cols)
{
    operand o = {.weights = field(neurons * cols)};
    int64_t group_size = draw_from(1, cols + 10), first = draw_below(2 * group_size);
    if (draw_below(3) == 0) group_size = cols, first = 0;
    o.plain = draw_matrix(storage, neurons, cols, group_size, first, o.weights);
    o.w = in_panels(&o.plain);
    return o;
}

static void free_operand(operand *o)
{
    drop(o->weights, o->w.rows * o->w.cols);
    em_matrix_free(&o->plain);
    free(o->w.data); /* it borrows the scales */
}

/* A sum and the size of what was added. Products of bf16 take what is below the smallest normal float for 0, before and
 * after. */
typedef struct exact_sum {
    double sum, bound;
} exact_sum;

static exact_sum sum_of_bf16(const em_inputs *x, const operand *o, int64_t t, int64_t n)
{
    exact_sum s = {0, 0};
    double size = 0;
    for (int64_t k = 0; k < x->width; k++) {
        double w = (double)o->weights[n * x->width + k], term = w * packed_number(x, t, k);
        s.sum += term;
        size += fabs(term);
        s.bound += (2 + fabs(w)) * (double)FLT_MIN;
    }
    s.bound += (double)(x->width + 3) * HALF_ULP * size;
    return s;
}

/* Whole numbers are summed exactly within a block: at most 1,024 inputs of one scale group (kernels.h). Then come two scales
 * and an addition for each block. */
static exact_sum sum_of_int8(const em_inputs *x, const operand *o, int64_t t, int64_t n)
{
    const em_matrix *m = &o->plain;
    const int8_t *q = (const int8_t *)m->data + n * m->cols;
    exact_sum s = {0, 0};
    double size = 0;
    int64_t blocks = 0;
    for (int64_t k = 0; k < m->cols; blocks++) {
        int64_t group = (k + m->group_offset) / m->group_size, whole = 0, first = k;
        for (; k < m->cols && (k + m->group_offset) / m->group_size == group && k < first + 1024; k++)
            whole += (int64_t)q[k] * (int64_t)packed_number(x, t, k);
        double scale = (double)m->scale[n * m->num_groups + group];
        double term = (double)whole * (double)x->row_scale[t] * scale;
        s.sum += term;
        size += fabs(term);
        s.bound += SMALLEST * (2 + fabs(scale));
    }
    s.bound += (double)(blocks + 3) * HALF_ULP * size;
    return s;
}

static void check_products_of(const em_inputs *x, const scattered *r, const operand *o, const float *y, int64_t ldy)
{
    for (int64_t t = 0; t < r->T; t++)
        for (int64_t n = 0; n < o->w.rows; n++) {
            float got = y[t * ldy + n];
            if (x->compute == EM_COMPUTE_F32) {
                check_sum(r->K, r->row[t], o->weights + n * r->K, 1, got);
            } else {
                exact_sum s = x->compute == EM_COMPUTE_BF16 ? sum_of_bf16(x, o, t, n) : sum_of_int8(x, o, t, n);
                CU_ASSERT(near(got, s.sum, s.bound));
            }
        }
}

/* Room for a product, where what was there must not matter. */
static float *make_output(int64_t T, int64_t width, int64_t ldy)
{
    float *y = field(extent(T, width, ldy));
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < width; n++) y[t * ldy + n] = NAN;
    return y;
}

static void drop_output(int64_t T, int64_t width, int64_t ldy, float *y)
{
    check_gaps(T, width, ldy, y);
    drop(y, extent(T, width, ldy));
}

/* Some of the panels alone have the same bits. */
static void check_some_panels(const em_inputs *x, const operand *o, const float *y, int64_t ldy)
{
    int64_t T = x->num_rows, panels = (o->w.rows + EM_PANEL - 1) / EM_PANEL, first = draw_below(panels);
    int64_t past = draw_from(first, panels), begin = first * EM_PANEL;
    int64_t end = past * EM_PANEL < o->w.rows ? past * EM_PANEL : o->w.rows, width = end > begin ? end - begin : 0;
    int64_t ld = width + draw_below(4);
    float *some = make_output(T, width, ld);
    em_product_panels(x, &o->w, first, past, some, ld);
    for (int64_t t = 0; t < T; t++) CU_ASSERT(same_bits(width, some + t * ld, y + t * ldy + begin));
    drop_output(T, width, ld, some);
}

/* A few of the rows, in any order, have the bits that they have among all: on any number of threads. */
static void check_some_rows(em_inputs *x, const scattered *r, const operand *o, const float *y, int64_t ldy)
{
    const float *row[EM_ROW_BLOCK];
    int64_t from[EM_ROW_BLOCK], count = draw_below(2) ? 1 : draw_from(1, r->T), n = o->w.rows;
    for (int64_t i = 0; i < count; i++) row[i] = r->row[from[i] = draw_below(r->T)];
    float *some = make_output(count, n, n);
    em_threads_use((int)draw_from(1, 4));
    em_inputs_pack(x, x->compute, count, r->K, row);
    em_products(x, 1, &(em_product){&o->w, some, n});
    for (int64_t i = 0; i < count; i++) CU_ASSERT(same_bits(n, some + i * n, y + from[i] * ldy));
    drop_output(count, n, n, some);
}

enum { MOST = 4 }; /* products at once */

/* Products of one packing with one to four matrices. */
static void check_products(em_compute compute, em_storage storage, const scattered *r, int64_t most_neurons)
{
    static em_inputs x, others;
    operand o[MOST];
    em_product product[MOST];
    int64_t count = draw_from(1, MOST);
    for (int64_t i = 0; i < count; i++) {
        o[i] = draw_operand(storage, draw_from(1, most_neurons), r->K);
        int64_t ldy = o[i].w.rows + draw_below(4);
        product[i] = (em_product){&o[i].w, make_output(r->T, o[i].w.rows, ldy), ldy};
    }
    if (draw_below(4) == 0) poison(&x, r->K);
    em_threads_use((int)draw_from(1, 4));
    pack(&x, compute, r);
    check_packed(&x, r);
    em_products(&x, count, product);
    for (int64_t i = 0; i < count; i++) {
        check_products_of(&x, r, &o[i], product[i].y, product[i].ldy);
        check_some_panels(&x, &o[i], product[i].y, product[i].ldy);
        others.compute = compute;
        if (r->T > 0) check_some_rows(&others, r, &o[i], product[i].y, product[i].ldy);
        drop_output(r->T, o[i].w.rows, product[i].ldy, product[i].y);
        free_operand(&o[i]);
    }
    em_inputs_free(&others);
    em_inputs_free(&x);
    em_threads_use(1);
}

/* Every way to compute that the set in use has, over every storage that fits it. */
typedef void check_way(em_compute compute, em_storage storage);

static void in_every_way(check_way *check)
{
    for (em_compute c = 0; c < EM_NUM_COMPUTES; c++)
        for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
            em_status status = {0};
            if ((c == EM_COMPUTE_F32 || em_compute_fit(c, s) == c) && em_compute_here(c, &status)) check(c, s);
        }
}

static void small_products(em_compute compute, em_storage storage)
{
    for (int i = 0; i < 40; i++) {
        scattered r = draw_scattered(draw_height(), draw_width(), i % 2 * 8);
        check_products(compute, storage, &r, i % 3 ? 70 : 300);
        free_rows(&r);
    }
}

/* More inputs than one block of a sum, more rows than a strip, enough work for all threads. */
static void large_products(em_compute compute, em_storage storage)
{
    static const int64_t shapes[][3] = {{1, 1024, 300}, {3, 1025, 130}, {33, 2049, 50}, {17, 3000, 40}, {256, 130, 60},
                                        {255, 64, 64},  {97, 1100, 33}, {40, 2112, 20}, {2, 8300, 70},  {14, 8962, 70}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        scattered r = draw_scattered(shapes[i][0], shapes[i][1], 8);
        check_products(compute, storage, &r, shapes[i][2]);
        free_rows(&r);
    }
}

static void huge_and_tiny_products(em_compute compute, em_storage storage)
{
    static const float sizes[] = {1e30F, 1e-30F, 1e-38F, 1e-43F, 0x1p-149F, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int turn = 0; turn < 3; turn++) {
            scattered r = draw_scattered(draw_from(1, 40), draw_width(), 0);
            scale_rows(&r, sizes[i]);
            if (turn == 2) r.row[0][0] = 1e30F; /* beside the others it is all there is in 8 bits */
            check_products(compute, storage, &r, 50);
            free_rows(&r);
        }
}

static void products_are_sums(void)
{
    in_every_way(small_products);
}

static void products_are_cut_in_blocks(void)
{
    in_every_way(large_products);
}

static void products_of_huge_and_tiny_numbers(void)
{
    in_every_way(huge_and_tiny_products);
}

/* ---- rows that are not numbers ---- */

static float *multiply_rows(em_compute compute, const scattered *r, const operand *o)
{
    em_inputs x = {0};
    float *y = make_output(r->T, o->w.rows, o->w.rows);
    em_threads_use((int)draw_from(1, 4));
    pack(&x, compute, r);
    em_products(&x, 1, &(em_product){&o->w, y, o->w.rows});
    em_inputs_free(&x);
    em_threads_use(1);
    return y;
}

/* One input of one row that is no number, among others or zeros: nothing of that row is a number, every other row has the
 * bits that it had. */
static void check_spoilt(em_compute compute, const scattered *r, const operand *o, const float *before, float bad)
{
    int64_t spoilt = draw_below(r->T), place = draw_below(3) ? draw_below(r->K) : r->K - 1, n = o->w.rows;
    float *row = r->row[spoilt], *kept = draw_field(r->K, 0);
    memcpy(kept, row, (size_t)r->K * sizeof *row);
    if (draw_below(2)) memset(row, 0, (size_t)r->K * sizeof *row);
    row[place] = bad;
    float *y = multiply_rows(compute, r, o);
    for (int64_t t = 0; t < r->T; t++) CU_ASSERT(t == spoilt || same_bits(n, y + t * n, before + t * n));
    for (int64_t i = 0; i < n; i++) CU_ASSERT(!isfinite(y[spoilt * n + i]));
    memcpy(row, kept, (size_t)r->K * sizeof *row);
    drop(kept, r->K);
    drop_output(r->T, n, n, y);
}

static void spoilt_products(em_compute compute, em_storage storage)
{
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 12; i++) {
        scattered r = draw_scattered(i % 4 ? draw_from(1, 40) : 1, draw_width(), 0);
        operand o = draw_operand(storage, draw_from(1, 60), r.K);
        float *before = multiply_rows(compute, &r, &o);
        for (int b = 0; b < 4; b++) check_spoilt(compute, &r, &o, before, bad[b]);
        drop(before, r.T * o.w.rows);
        free_operand(&o);
        free_rows(&r);
    }
}

static void what_is_no_number_spoils_its_row_alone(void)
{
    in_every_way(spoilt_products);
}

/* ---- ways to compute ---- */

static void a_way_to_compute_has_a_name_and_a_storage(void)
{
    em_compute compute;
    for (em_compute c = 0; c < EM_NUM_COMPUTES; c++) {
        CU_ASSERT(em_compute_parse(em_compute_name(c), &compute));
        CU_ASSERT_EQUAL(compute, c);
        for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
            bool fits = (c == EM_COMPUTE_BF16 && s == EM_BF16) || (c == EM_COMPUTE_INT8 && s == EM_INT8);
            CU_ASSERT_EQUAL(em_compute_fit(c, s), fits ? c : EM_COMPUTE_F32);
        }
    }
    CU_ASSERT(!em_compute_parse("f16", &compute) && !em_compute_parse("", &compute) &&
              !em_compute_parse("int", &compute));
}

/* AMX, AVX-512 with what it needs, and no other. */
static void sets_have_the_ways_they_should(void)
{
    em_isa isa = em_isa_in_use();
    for (em_compute c = 0; c < EM_NUM_COMPUTES; c++) {
        em_status status = {0};
        bool here = em_compute_here(c, &status);
        if (c == EM_COMPUTE_F32 || isa == EM_ISA_AMX) CU_ASSERT(here);
        if (c != EM_COMPUTE_F32 && isa < EM_ISA_AVX512) CU_ASSERT(!here);
        CU_ASSERT_EQUAL(status.code, here ? 0 : EM_USAGE);
        if (!here) CU_ASSERT_PTR_NOT_NULL(strstr(status.text, em_compute_name(c)));
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"inputs are rounded to the nearest", inputs_are_rounded_to_the_nearest},
        {"ties in 8 bits go to the even", ties_in_8_bits_go_to_the_even},
        {"packing takes what was said", packing_takes_what_was_said},
        {"products are sums", products_are_sums},
        {"products are cut in blocks", products_are_cut_in_blocks},
        {"products of huge and tiny numbers", products_of_huge_and_tiny_numbers},
        {"what is no number spoils its row alone", what_is_no_number_spoils_its_row_alone},
        {"a way to compute has a name and a storage", a_way_to_compute_has_a_name_and_a_storage},
        {"sets have the ways they should", sets_have_the_ways_they_should},
        {NULL, NULL},
    };
    skip_without_isa();
    return suite_main(argc, argv, "products", tests);
}
