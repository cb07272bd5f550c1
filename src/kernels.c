#include "expertmesh/kernels.h"

#include "tiles.h"

#include <math.h>
#include <string.h>

float em_bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

uint16_t em_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return (uint16_t)(bits >> 16 | 0x40U); /* NaN: quiet, payload kept */
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

static void add(int64_t count, const float *x, float *y)
{
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

void em_add(int64_t count, const float *x, float *y)
{
    enum { SHARE = 1 << 14 };
    int several = count > 4 * SHARE ? em_threads() : 1;
    if (several ==
        1) { /* not even a team of one, which takes as long as some thousand additions where teams are nested */
        add(count, x, y);
        return;
    }
#pragma omp parallel for num_threads(several)
    for (int64_t i = 0; i < count; i += SHARE) add(count - i < SHARE ? count - i : SHARE, x + i, y + i);
}

void em_add_scaled(int64_t count, float factor, const float *x, float *y)
{
    for (int64_t i = 0; i < count; i++) y[i] += factor * x[i];
}

double em_dot(int64_t count, const float *a, const float *b)
{
    enum { LANES = 8 };
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * (double)b[i + j];
    for (int j = 0; i < count; i++, j++) lane[j] += (double)a[i] * (double)b[i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

void em_rms_norm(int64_t T, int64_t D, const float *x, const float *scale, double eps, float *y)
{
#pragma omp parallel for num_threads(T > 1 ? em_threads() : 1)
    for (int64_t t = 0; t < T; t++) {
        const float *in = x + t * D;
        float *out = y + t * D, factor = (float)(1 / sqrt(em_dot(D, in, in) / (double)D + eps));
        for (int64_t d = 0; d < D; d++) out[d] = in[d] * factor * scale[d];
    }
}

void em_softmax(int64_t count, float *x)
{
    float largest = x[0];
    for (int64_t i = 1; i < count; i++) largest = x[i] > largest ? x[i] : largest;
    em_tiles_in_use()->exp_minus(count, largest, x);
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i];
    float factor = (float)(1 / sum);
    for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

void em_soft_cap(int64_t count, float cap, float *x)
{
    em_tiles_in_use()->soft_cap(count, cap, x);
}

void em_gelu(int64_t count, float *x)
{
    em_tiles_in_use()->gelu(count, x);
}

void em_gelu_erf(int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i++) x[i] = (float)(0.5 * (double)x[i] * (1 + erf((double)x[i] * M_SQRT1_2)));
}

void em_rope_table(int64_t T, int64_t C, const int32_t *position, double base, float *table)
{
    /* in double: a float angle of position 8,000 would be off by 5e-4 */
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < C / 2; i++) {
            double angle = position[t] * pow(base, -2.0 * (double)i / (double)C);
            table[t * C + i] = (float)cos(angle);
            table[t * C + C / 2 + i] = (float)sin(angle);
        }
}

static void turn(int64_t C, const float *table, float *x)
{
    int64_t half = C / 2;
    for (int64_t i = 0; i < half; i++) {
        float cosine = table[i], sine = table[half + i], a = x[i], b = x[half + i];
        x[i] = a * cosine - b * sine;
        x[half + i] = b * cosine + a * sine;
    }
}

void em_rope(int64_t T, int64_t heads, int64_t C, const float *table, float *x, int64_t ldx)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < heads; h++) turn(C, table + t * C, x + t * ldx + h * C);
}

/* NaN is worse than any number. */
static bool better(float a, float b)
{
    return a > b || (isnan(b) && !isnan(a));
}

void em_top(int64_t n, const float *x, int64_t count, int32_t *index)
{
    for (int64_t c = 0; c < count; c++) index[c] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = count;
        while (place > 0 && (index[place - 1] < 0 || better(x[i], x[index[place - 1]]))) place--;
        if (place == count) continue;
        memmove(index + place + 1, index + place, (size_t)(count - place - 1) * sizeof *index);
        index[place] = (int32_t)i;
    }
}

int64_t em_first_not_finite(int64_t count, const float *x)
{
    enum { BLOCK = 4096 };
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t end = begin + BLOCK < count ? begin + BLOCK : count;
        int all_finite = 1; /* no branch inside: this runs at the speed of memory */
        for (int64_t i = begin; i < end; i++) all_finite &= fabsf(x[i]) <= 3.402823466e38F;
        for (int64_t i = begin; !all_finite && i < end; i++)
            if (!isfinite(x[i])) return i;
    }
    return -1;
}

int64_t em_first_not_finite_bf16(int64_t count, const uint16_t *x)
{
    enum { BLOCK = 4096, EXPONENT = 0x7f80 };
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t end = begin + BLOCK < count ? begin + BLOCK : count;
        int16_t largest =
            0; /* without signs the bits are in the order of the numbers, and 16 at a time have a maximum */
        for (int64_t i = begin; i < end; i++) {
            int16_t bits = (int16_t)(x[i] & 0x7fff);
            largest = bits > largest ? bits : largest;
        }
        for (int64_t i = begin; largest >= EXPONENT && i < end; i++)
            if ((x[i] & EXPONENT) == EXPONENT) return i;
    }
    return -1;
}
