/* The arithmetic against naive double formulas, over random shapes; bounds are what float32 allows, not what was seen. */
#include "fields.h"

#include <float.h>

/* ---- bfloat16 ---- */

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void every_bf16_is_its_float(void)
{
    for (uint32_t v = 0; v <= 0xffff; v++) {
        uint32_t bits;
        float number = em_bf16_to_f32((uint16_t)v);
        memcpy(&bits, &number, sizeof bits);
        bool is_nan = (v & 0x7fff) > 0x7f80;
        CU_ASSERT_EQUAL(bits, v << 16);
        CU_ASSERT_EQUAL(isnan(number) != 0, is_nan);
        uint16_t back = em_f32_to_bf16(number);
        CU_ASSERT(is_nan ? (back & 0x7fff) > 0x7f80 && (back & 0x8000) == (v & 0x8000) : back == v);
    }
}

/* Between two neighbours: below the middle down, above it up, in the middle to the even one. Beyond the largest comes
 * infinity, as IEEE 754 rounds. */
static void floats_round_to_the_nearest_bf16(void)
{
    for (uint32_t v = 0; v < 0xffff; v++) {
        if ((v & 0x7fff) >= 0x7f80) continue;
        uint32_t low = v << 16, even = v % 2 == 0 ? v : v + 1;
        CU_ASSERT_EQUAL(em_f32_to_bf16(float_of(low | 1)), v);
        CU_ASSERT_EQUAL(em_f32_to_bf16(float_of(low | 0x7fff)), v);
        CU_ASSERT_EQUAL(em_f32_to_bf16(float_of(low | 0x8000)), even);
        CU_ASSERT_EQUAL(em_f32_to_bf16(float_of(low | 0x8001)), v + 1);
        CU_ASSERT_EQUAL(em_f32_to_bf16(float_of(low | 0xffff)), v + 1);
    }
    CU_ASSERT_EQUAL(em_f32_to_bf16(FLT_MAX), 0x7f80);
    CU_ASSERT_EQUAL(em_f32_to_bf16(-FLT_MAX), 0xff80);
    CU_ASSERT_EQUAL(em_f32_to_bf16(INFINITY), 0x7f80);
}

/* The payload of these lies below the bits that are kept, and none may round into an infinity or a zero. */
static void nan_stays_nan_in_bf16(void)
{
    for (uint32_t payload = 1; payload < 1U << 23; payload += payload < 70000 ? 1 : 997)
        for (uint32_t sign = 0; sign < 2; sign++) {
            uint16_t rounded = em_f32_to_bf16(float_of(sign << 31 | 0x7f800000U | payload));
            CU_ASSERT((rounded & 0x7fff) > 0x7f80);
            CU_ASSERT_EQUAL(rounded >> 15, sign);
        }
}

/* ---- adding ---- */

static void adding_is_elementwise(void)
{
    for (int64_t n = 0; n < 70; n++) {
        float *x = draw_field(n, 20), *y = draw_field(n, 20), *z = field(n), factor = draw_wide(4);
        memcpy(z, y, (size_t)n * sizeof *z);
        em_add(n, x, z);
        for (int64_t i = 0; i < n; i++) CU_ASSERT_EQUAL(z[i], x[i] + y[i]);
        memcpy(z, y, (size_t)n * sizeof *z);
        em_add_scaled(n, factor, x, z);
        for (int64_t i = 0; i < n; i++) {
            double term = (double)factor * (double)x[i], exact = (double)y[i] + term;
            CU_ASSERT(near(z[i], exact, HALF_ULP * (fabs(term) + fabs(exact)) * 1.01));
        }
        drop(x, n);
        drop(y, n);
        drop(z, n);
    }
}

static void dot_is_a_double_sum(void)
{
    for (int64_t n = 0; n < 200; n++) {
        float *a = draw_field(n, 30), *b = draw_field(n, 30);
        long double sum = 0, size = 0;
        for (int64_t i = 0; i < n; i++) sum += (long double)a[i] * b[i];
        for (int64_t i = 0; i < n; i++) size += fabsl((long double)a[i] * b[i]);
        CU_ASSERT(fabsl((long double)em_dot(n, a, b) - sum) <= (long double)n * 0x1p-53L * size);
        drop(a, n);
        drop(b, n);
    }
}

/* The bits depend on the numbers, not on where they lie. */
static void dot_does_not_depend_on_the_address(void)
{
    for (int64_t n = 1; n < 100; n += 3) {
        float *a = draw_field(n, 30), *b = draw_field(n, 30), *moved = field(n + 16);
        double expected = em_dot(n, a, b);
        for (int64_t shift = 0; shift <= 16; shift++) {
            memcpy(moved + shift, a, (size_t)n * sizeof *a);
            double again = em_dot(n, moved + shift, b);
            CU_ASSERT_EQUAL(memcmp(&again, &expected, sizeof again), 0);
        }
        drop(a, n);
        drop(b, n);
        drop(moved, n + 16);
    }
}

/* ---- norms ---- */

static void check_norm(int64_t T, int64_t D, int exponent, double eps)
{
    float *x = draw_field(T * D, exponent), *scale = draw_field(D, 3), *y = field(T * D), *one = field(D);
    em_rms_norm(T, D, x, scale, eps, y);
    for (int64_t t = 0; t < T; t++) {
        double square = 0;
        for (int64_t d = 0; d < D; d++) square += (double)x[t * D + d] * (double)x[t * D + d];
        for (int64_t d = 0; d < D; d++) {
            double exact = (double)x[t * D + d] / sqrt(square / (double)D + eps) * (double)scale[d];
            CU_ASSERT(near(y[t * D + d], exact, 4 * HALF_ULP * fabs(exact)));
        }
        em_rms_norm(1, D, x + t * D, scale, eps, one); /* alone, and elsewhere */
        CU_ASSERT(same_bits(D, one, y + t * D));
    }
    em_rms_norm(T, D, x, scale, eps, x); /* in place */
    CU_ASSERT(same_bits(T * D, x, y));
    drop(x, T * D);
    drop(scale, D);
    drop(y, T * D);
    drop(one, D);
}

static void norms_of_rows(void)
{
    for (int i = 0; i < 60; i++) check_norm(draw_from(0, 6), draw_from(1, 200), i % 4 * 10, 1e-5);
    check_norm(2, 6144, 0, 1e-5);
    check_norm(3, 37, 50, 1e-5); /* squares beyond what a float holds */
    check_norm(3, 37, 0, 1e30);  /* a mean that counts for nothing */
}

static void zeros_have_a_norm(void)
{
    float zero[9] = {0}, scale[9], y[9];
    for (int i = 0; i < 9; i++) scale[i] = draw_float();
    em_rms_norm(1, 9, zero, scale, 1e-5, y);
    for (int i = 0; i < 9; i++) CU_ASSERT_EQUAL(y[i], 0);
}

/* ---- softmax, cap, GELU ---- */

static void check_softmax(int64_t n, float *x)
{
    double *exact = malloc((size_t)n * sizeof *exact), sum = 0, got = 0;
    float largest = -INFINITY;
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)largest);
    for (int64_t i = 0; i < n; i++) exact[i] = exp((double)x[i] - (double)largest) / sum;
    float *before = malloc((size_t)n * sizeof *before);
    memcpy(before, x, (size_t)n * sizeof *x);
    em_softmax(n, x);
    for (int64_t i = 0; i < n; i++) { /* the difference is rounded once, then expf, then the quotient */
        double below = fmin((double)largest - (double)before[i], 200);
        CU_ASSERT(near(x[i], exact[i], (below + 8) * HALF_ULP * exact[i] + (double)FLT_MIN));
        got += (double)x[i];
    }
    CU_ASSERT(near(got, 1, (double)(n + 8) * HALF_ULP));
    free(exact);
    free(before);
}

static void softmax_of_any_numbers(void)
{
    static const double sizes[] = {0, 1e-30, 1, 10, 80, 1e4, 1e30, 3e38};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int64_t n = 1; n < 60; n += 1 + n / 8) {
            float *x = draw_field(n, 0);
            for (int64_t i = 0; i < n; i++) x[i] *= (float)sizes[s];
            check_softmax(n, x);
            drop(x, n);
        }
    float extremes[] = {FLT_MAX, -FLT_MAX, 0}, single[] = {-FLT_MAX};
    check_softmax(3, extremes);
    check_softmax(1, single);
    CU_ASSERT_EQUAL(single[0], 1);
}

static void soft_cap_bends_towards_the_cap(void)
{
    static const float caps[] = {30, 0.5F, 1000};
    for (size_t c = 0; c < 3; c++)
        for (int i = 0; i < 100; i++) {
            float *x = draw_field(7, 40), before[7];
            memcpy(before, x, sizeof before);
            em_soft_cap(7, caps[c], x);
            for (int j = 0; j < 7; j++) {
                double exact = (double)caps[c] * tanh((double)before[j] / (double)caps[c]);
                CU_ASSERT(near(x[j], exact, 6 * HALF_ULP * fabs(exact)));
                CU_ASSERT(fabsf(x[j]) <= caps[c]);
            }
            drop(x, 7);
        }
    float ends[] = {FLT_MAX, -FLT_MAX, 0, -0.0F};
    em_soft_cap(4, 30, ends);
    CU_ASSERT(ends[0] == 30 && ends[1] == -30 && ends[2] == 0 && ends[3] == 0);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

/* The error is of the size of x, not of the result: 1 + tanh cancels for negative x. */
static void gelu_is_its_formula(void)
{
    for (int i = 0; i < 400; i++) {
        float *x = draw_field(9, i % 2 * 20), before[9];
        for (int j = 0; i % 2 == 0 && j < 9; j++) x[j] *= 8;
        memcpy(before, x, sizeof before);
        em_gelu(9, x);
        for (int j = 0; j < 9; j++)
            CU_ASSERT(near(x[j], gelu((double)before[j]), 8 * HALF_ULP * fabs((double)before[j])));
        drop(x, 9);
    }
    float far[] = {0, 20, -20, 1e30F, -1e30F, FLT_MAX, -FLT_MAX};
    em_gelu(7, far);
    CU_ASSERT(far[0] == 0 && far[1] == 20 && far[2] == 0 && far[3] == 1e30F && far[4] == 0);
    CU_ASSERT(far[5] == FLT_MAX && far[6] == 0);
}

/* ---- RoPE ---- */

/* The table against angles in extended precision: what is left is the rounding to float. */
static void check_table(int64_t C, double base, int32_t position)
{
    float *table = field(C);
    em_rope_table(1, C, &position, base, table);
    for (int64_t i = 0; i < C / 2; i++) {
        long double angle = position * powl((long double)base, -2.0L * (long double)i / (long double)C);
        CU_ASSERT(near(table[i], (double)cosl(angle), 0x1p-25 + 1e-10));
        CU_ASSERT(near(table[C / 2 + i], (double)sinl(angle), 0x1p-25 + 1e-10));
        if (position > 0) continue;
        CU_ASSERT_EQUAL(table[i], 1);
        CU_ASSERT_EQUAL(table[C / 2 + i], 0);
    }
    drop(table, C);
}

static void angles_are_accurate_at_any_position(void)
{
    static const int32_t positions[] = {0, 1, 2, 100, 2047, 8190, 8191, 131071};
    for (size_t p = 0; p < sizeof positions / sizeof *positions; p++)
        for (int64_t C = 2; C <= 128; C += C < 20 ? 2 : 18) {
            check_table(C, 10000, positions[p]);
            check_table(C, 77.5, positions[p]);
        }
}

/* A pair is a complex number, and turning it is a product with cos + i sin. */
static void check_turn(int64_t T, int64_t heads, int64_t C)
{
    int64_t ldx = heads * C + draw_below(5), size = extent(T, heads * C, ldx), half = C / 2;
    float *x = field(size), *before = field(size), *table = field(T * C);
    int32_t *position = calloc((size_t)T + 1, sizeof *position);
    for (int64_t t = 0; t < T; t++) position[t] = (int32_t)draw_below(8192);
    em_rope_table(T, C, position, 10000, table);
    draw_rows(T, heads * C, ldx, 10, x);
    if (size > 0) memcpy(before, x, (size_t)size * sizeof *x);
    em_rope(T, heads, C, table, x, ldx);
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < half; i++) {
                const float *from = before + t * ldx + h * C, *to = x + t * ldx + h * C;
                double angle = position[t] * pow(10000, -2.0 * (double)i / (double)C), a = from[i], b = from[half + i];
                double bound = 5 * HALF_ULP * (fabs(a) + fabs(b));
                CU_ASSERT(near(to[i], a * cos(angle) - b * sin(angle), bound));
                CU_ASSERT(near(to[half + i], a * sin(angle) + b * cos(angle), bound));
            }
    check_gaps(T, heads * C, ldx, x);
    free(position);
    drop(table, T * C);
    drop(before, size);
    drop(x, size);
}

static void pairs_are_turned(void)
{
    for (int i = 0; i < 60; i++) check_turn(draw_from(0, 5), draw_from(0, 5), 2 * draw_from(1, 20));
    check_turn(2, 3, 128);
    check_turn(1, 1, 2);
}

static void position_zero_turns_nothing(void)
{
    int32_t positions[3] = {0, 0, 0};
    float table[3 * 10], x[3 * 20], before[3 * 20];
    draw_rows(3, 20, 20, 10, x);
    memcpy(before, x, sizeof x);
    em_rope_table(3, 10, positions, 10000, table);
    em_rope(3, 2, 10, table, x, 20);
    CU_ASSERT(same_bits(60, x, before));
}

/* ---- choosing ---- */

/* Is index[c] what a full sort by value, then by index, has at place c? Its rank is how many go before it. */
static void check_top(int64_t n, const float *x, int64_t count)
{
    int32_t *index = malloc((size_t)(count + 1) * sizeof *index);
    index[count] = -77;
    em_top(n, x, count, index);
    for (int64_t c = 0; c < count; c++) {
        int32_t i = index[c];
        CU_ASSERT(i >= 0 && i < n);
        if (i < 0 || i >= n) continue;
        int64_t before = 0;
        for (int64_t j = 0; j < n; j++) before += x[j] > x[i] || (x[j] == x[i] && j < i);
        CU_ASSERT_EQUAL(before, c);
    }
    CU_ASSERT_EQUAL(index[count], -77);
    free(index);
}

static void the_largest_come_first_and_ties_go_to_the_lower(void)
{
    for (int i = 0; i < 500; i++) {
        int64_t n = draw_from(1, 20), count = draw_from(0, n), values = draw_from(1, 6);
        float *x = field(n);
        for (int64_t j = 0; j < n; j++)
            x[j] = (float)draw_below(values) - 3; /* few values: many ties, mostly negative */
        check_top(n, x, count);
        check_top(n, x, n);
        draw_rows(1, n, n, 60, x);
        check_top(n, x, count);
        drop(x, n);
    }
    float extremes[] = {-FLT_MAX, -INFINITY, 0, -0.0F, -1e-45F};
    check_top(5, extremes, 5);
}

/* ---- finding what is not finite ---- */

enum { LONG = 4096 + 300 }; /* across the edge of a block */

static void the_first_not_finite_is_found_everywhere(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float *x = field(LONG);
    draw_rows(1, LONG, LONG, 60, x);
    for (int64_t i = 0; i < LONG; i++) {
        float kept = x[i], later = x[LONG - 1];
        x[LONG - 1] = NAN; /* not the first, but for the last i */
        x[i] = bad[i % 3];
        CU_ASSERT_EQUAL(em_first_not_finite(LONG, x), i);
        CU_ASSERT_EQUAL(em_first_not_finite(i + 1, x), i);
        CU_ASSERT_EQUAL(em_first_not_finite(i, x), -1); /* what lies beyond count does not matter */
        x[LONG - 1] = later;
        x[i] = kept;
    }
    CU_ASSERT_EQUAL(em_first_not_finite(LONG, x), -1);
    CU_ASSERT_EQUAL(em_first_not_finite(0, x), -1);
    drop(x, LONG);
}

static void the_first_not_finite_bf16_is_found_everywhere(void)
{
    static const uint16_t bad[] = {0x7f80, 0xff80, 0x7fc0, 0x7f81, 0xffff};
    static uint16_t x[LONG];
    for (int64_t i = 0; i < LONG; i++) x[i] = (uint16_t)(draw_below(0x7f80) | draw_below(2) << 15);
    for (int64_t i = 0; i < LONG; i++) {
        uint16_t kept = x[i], later = x[LONG - 1];
        x[LONG - 1] = 0x7f80;
        x[i] = bad[i % 5];
        CU_ASSERT_EQUAL(em_first_not_finite_bf16(LONG, x), i);
        CU_ASSERT_EQUAL(em_first_not_finite_bf16(i + 1, x), i);
        CU_ASSERT_EQUAL(em_first_not_finite_bf16(i, x), -1);
        x[LONG - 1] = later;
        x[i] = kept;
    }
    CU_ASSERT_EQUAL(em_first_not_finite_bf16(LONG, x), -1);
    CU_ASSERT_EQUAL(em_first_not_finite_bf16(0, x), -1);
}

static void the_ends_of_the_finite_are_finite(void)
{
    float ends[] = {FLT_MAX, -FLT_MAX, FLT_MIN, 0x1p-149F, -0x1p-149F, 0x1.8p-130F, 0, -0.0F};
    CU_ASSERT_EQUAL(em_first_not_finite(8, ends), -1);
    for (uint32_t v = 0; v <= 0xffff; v++) {
        uint16_t one = (uint16_t)v;
        float number = float_of(v << 16);
        int64_t expected = isfinite(number) ? -1 : 0;
        CU_ASSERT_EQUAL(em_first_not_finite_bf16(1, &one), expected);
        CU_ASSERT_EQUAL(em_first_not_finite(1, &number), expected);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"every bf16 is its float", every_bf16_is_its_float},
        {"floats round to the nearest bf16", floats_round_to_the_nearest_bf16},
        {"NaN stays NaN in bf16", nan_stays_nan_in_bf16},
        {"adding is elementwise", adding_is_elementwise},
        {"dot is a double sum", dot_is_a_double_sum},
        {"dot does not depend on the address", dot_does_not_depend_on_the_address},
        {"norms of rows", norms_of_rows},
        {"zeros have a norm", zeros_have_a_norm},
        {"softmax of any numbers", softmax_of_any_numbers},
        {"soft cap bends towards the cap", soft_cap_bends_towards_the_cap},
        {"GELU is its formula", gelu_is_its_formula},
        {"angles are accurate at any position", angles_are_accurate_at_any_position},
        {"pairs are turned", pairs_are_turned},
        {"position zero turns nothing", position_zero_turns_nothing},
        {"the largest come first and ties go to the lower", the_largest_come_first_and_ties_go_to_the_lower},
        {"the first not finite is found everywhere", the_first_not_finite_is_found_everywhere},
        {"the first not finite bf16 is found everywhere", the_first_not_finite_bf16_is_found_everywhere},
        {"the ends of the finite are finite", the_ends_of_the_finite_are_finite},
        {NULL, NULL},
    };
    skip_without_isa();
    return suite_main(argc, argv, "kernels", tests);
}
