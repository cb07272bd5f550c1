/* draw.h: numbers that look random and are the same every time. */
#ifndef EXPERTMESH_DRAW_H
#define EXPERTMESH_DRAW_H

#include <math.h>
#include <stdint.h>

/* Splitmix64 (Steele, Lea and Flood 2014). */
static inline uint64_t draw_bits(void)
{
    static uint64_t state = 2024;
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* From 0 to n - 1. */
static inline int64_t draw_below(int64_t n)
{
    return (int64_t)(draw_bits() % (uint64_t)n);
}

/* From low to high, both possible. */
static inline int64_t draw_from(int64_t low, int64_t high)
{
    return low + draw_below(high - low + 1);
}

/* In [-1, 1). */
static inline float draw_float(void)
{
    return (float)draw_from(-(1 << 23), (1 << 23) - 1) / (float)(1 << 23);
}

/* Of magnitudes from 2^-exponent to 2^exponent, both signs. */
static inline float draw_wide(int exponent)
{
    float fraction = draw_float();
    return ldexpf(fraction < 0 ? fraction - 1 : fraction + 1, (int)draw_from(-exponent, exponent - 1));
}

#endif
