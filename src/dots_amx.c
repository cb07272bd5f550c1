/* Tiles of AMX: 16 rows times 16 neurons at once. */
#include "dots.h"

#include <immintrin.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Eight tiles of 16 rows of 64 bytes. In memory of its own: the intrinsic does not tell the compiler that it reads it. */
#define EIGHT(x) x, x, x, x, x, x, x, x
static const tile_config config = {.palette = 1, .row_bytes = {EIGHT(64)}, .rows = {EIGHT(16)}};

/* Few rows wait for the weights: a step of a panel is called for so many steps before it is needed. */
enum { AHEAD = 2 };

static inline void call_for(const char *step)
{
    for (int line = 0; line < EM_STEP_PANEL; line += 64) __builtin_prefetch(step + line);
}

#define ZERO_SUMS  \
    _tile_zero(0); \
    _tile_zero(1); \
    _tile_zero(2); \
    _tile_zero(3)

/* Up to 16 rows, four panels: few rows are limited by the weights' way from memory. Then 32 rows, two panels: each tile that
 * is loaded serves twice. Tiles 0 to 3 hold the sums; past the last panel the last is worked on again. */
#define DOT(name, multiply)                                                                                         \
    static void name##_few(int64_t steps, const char *const w[4], int64_t next, const char *x, int64_t ldx,         \
                           int32_t *sums, int64_t ld)                                                               \
    {                                                                                                               \
        ZERO_SUMS;                                                                                                  \
        for (int64_t k = 0; k < steps; k++) {                                                                       \
            int64_t ahead = AHEAD * EM_STEP_PANEL + (k < steps - AHEAD ? 0 : next);                                 \
            for (int p = 0; p < 4; p++) call_for(w[p] + k * EM_STEP_PANEL + ahead);                                 \
            _tile_loadd(4, x + k * EM_STEP, ldx);                                                                   \
            _tile_loadd(5, w[0] + k * EM_STEP_PANEL, 64);                                                           \
            multiply(0, 4, 5);                                                                                      \
            _tile_loadd(6, w[1] + k * EM_STEP_PANEL, 64);                                                           \
            multiply(1, 4, 6);                                                                                      \
            _tile_loadd(7, w[2] + k * EM_STEP_PANEL, 64);                                                           \
            multiply(2, 4, 7);                                                                                      \
            _tile_loadd(5, w[3] + k * EM_STEP_PANEL, 64);                                                           \
            multiply(3, 4, 5);                                                                                      \
        }                                                                                                           \
        _tile_stored(0, sums, ld * 4);                                                                              \
        _tile_stored(1, sums + 16, ld * 4);                                                                         \
        _tile_stored(2, sums + 32, ld * 4);                                                                         \
        _tile_stored(3, sums + 48, ld * 4);                                                                         \
    }                                                                                                               \
    static void name##_many(int64_t steps, const char *const w[2], const char *x, int64_t ldx, int32_t *sums,       \
                            int64_t ld)                                                                             \
    {                                                                                                               \
        ZERO_SUMS;                                                                                                  \
        for (int64_t k = 0; k < steps; k++) {                                                                       \
            _tile_loadd(6, w[0] + k * EM_STEP_PANEL, 64);                                                           \
            _tile_loadd(4, x + k * EM_STEP, ldx);                                                                   \
            multiply(0, 4, 6);                                                                                      \
            _tile_loadd(7, w[1] + k * EM_STEP_PANEL, 64);                                                           \
            multiply(1, 4, 7);                                                                                      \
            _tile_loadd(5, x + 16 * ldx + k * EM_STEP, ldx);                                                        \
            multiply(2, 5, 6);                                                                                      \
            multiply(3, 5, 7);                                                                                      \
        }                                                                                                           \
        _tile_stored(0, sums, ld * 4);                                                                              \
        _tile_stored(1, sums + 16, ld * 4);                                                                         \
        _tile_stored(2, sums + 16 * ld, ld * 4);                                                                    \
        _tile_stored(3, sums + 16 * ld + 16, ld * 4);                                                               \
    }                                                                                                               \
    void name(int64_t rows, int64_t steps, int panels, const char *w, int64_t panel_bytes, int64_t next,            \
              const char *x, int64_t ldx, void *sums)                                                               \
    {                                                                                                               \
        int each = rows > 16 ? 2 : 4;                                                                               \
        _tile_loadconfig(&config);                                                                                  \
        for (int p = 0; p < panels; p += each) {                                                                    \
            const char *at[4];                                                                                      \
            for (int i = 0; i < 4; i++) at[i] = w + (p + i < panels ? p + i : panels - 1) * panel_bytes;            \
            int64_t then = p + each < panels ? each * panel_bytes - steps * EM_STEP_PANEL : next - p * panel_bytes; \
            int32_t *out = (int32_t *)sums + p * EM_PANEL;                                                          \
            if (rows > 16)                                                                                          \
                name##_many(steps, at, x, ldx, out, EM_TOGETHER *EM_PANEL);                                         \
            else                                                                                                    \
                name##_few(steps, at, then, x, ldx, out, EM_TOGETHER *EM_PANEL);                                    \
        }                                                                                                           \
        _tile_release();                                                                                            \
    }

DOT(em_dots_bf16_amx, _tile_dpbf16ps)
DOT(em_dots_int8_amx, _tile_dpbssd)
