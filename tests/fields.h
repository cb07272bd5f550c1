/* fields.h: what the suites of the arithmetic share: arrays with canaries around them, and what float32 allows. */
#ifndef EXPERTMESH_FIELDS_H
#define EXPERTMESH_FIELDS_H

#include "suite.h"

#include "draw.h"

#include "expertmesh/kernels.h"

#include <stdlib.h>
#include <string.h>

#define HALF_ULP 0x1p-24 /* largest relative error of one float operation */
#define SMALLEST 0x1p-149

/* Where this machine lacks the set of loops that EXPERTMESH_ISA names there is nothing to test: CTest shows it as skipped. */
static inline void skip_without_isa(void)
{
    em_isa isa;
    em_status status = {0};
    if (em_isa_choose(&isa, &status)) return;
    printf("skipped: %s\n", status.text);
    exit(77);
}

enum { CANARIES = 16 };
static const float canary = 12345.678F;

/* count floats with canaries before and after. Freed with drop. */
static inline float *field(int64_t count)
{
    float *whole = malloc((size_t)(count + 2 * CANARIES) * sizeof *whole);
    for (int64_t i = 0; i < count + 2 * CANARIES; i++) whole[i] = canary;
    return whole + CANARIES;
}

static inline void drop(float *array, int64_t count)
{
    for (int64_t i = 1; i <= CANARIES; i++) {
        CU_ASSERT_EQUAL(array[-i], canary);
        CU_ASSERT_EQUAL(array[count - 1 + i], canary);
    }
    free(array - CANARIES);
}

/* [rows, cols], rows ld apart, of magnitudes up to 2^exponent; what lies between is left as it is. */
static inline void draw_rows(int64_t rows, int64_t cols, int64_t ld, int exponent, float *out)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) out[i * ld + j] = exponent ? draw_wide(exponent) : draw_float();
}

static inline float *draw_field(int64_t count, int exponent)
{
    float *out = field(count);
    draw_rows(1, count, count, exponent, out);
    return out;
}

/* The floats from width to ld of every row but the last, which ends at its width. */
static inline void check_gaps(int64_t rows, int64_t width, int64_t ld, const float *array)
{
    for (int64_t i = 0; i + 1 < rows; i++)
        for (int64_t j = width; j < ld; j++) CU_ASSERT_EQUAL(array[i * ld + j], canary);
}

static inline int64_t extent(int64_t rows, int64_t width, int64_t ld)
{
    return rows > 0 ? (rows - 1) * ld + width : 0;
}

static inline bool same_bits(int64_t count, const float *a, const float *b)
{
    return memcmp(a, b, (size_t)count * sizeof *a) == 0;
}

static inline bool near(double got, double exact, double bound)
{
    return fabs(got - exact) <= bound + SMALLEST;
}

#endif
