#include "tiles.h"

#include <immintrin.h>

/* tiles.h's turn, 16 rows by 16 units in registers. Panels that are made are not soon read: they go past the caches. */
static bool turn_sixteen(em_storage storage, int64_t units, const char *rows, int64_t stride, char *panel)
{
    const __m512i mask = _mm512_set1_epi32((int)em_unit_mask(storage)), more = _mm512_set1_epi32(EM_ONE_MORE);
    __m512i signs = _mm512_setzero_si512();
    bool whole_lines = (uintptr_t)panel % 64 == 0;
    for (int64_t j = 0; j < units; j += EM_PANEL) {
        __m512i a[EM_PANEL], b[EM_PANEL]; /* in turns: rows, in the end units */
#pragma GCC unroll 16
        for (int i = 0; i < EM_PANEL; i++) {
            a[i] = _mm512_loadu_si512(rows + i * stride + j * 4);
            signs = _mm512_or_si512(signs, _mm512_add_epi32(_mm512_and_si512(a[i], mask), more));
        }
#pragma GCC unroll 8
        for (int i = 0; i < EM_PANEL; i += 2) { /* units of 2 rows beside each other */
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < EM_PANEL; i += 4) { /* of 4: a[i + c] has units c, 4 + c, 8 + c and 12 + c */
            a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
            a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
            a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
            a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
        }
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) { /* of 8, of 16 */
            __m512i even[2], odd[2];
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                even[half] = _mm512_shuffle_i32x4(a[8 * half + c], a[8 * half + 4 + c], 0x88);
                odd[half] = _mm512_shuffle_i32x4(a[8 * half + c], a[8 * half + 4 + c], 0xdd);
            }
            b[c] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
            b[4 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
            b[8 + c] = _mm512_shuffle_i32x4(even[0], even[1], 0xdd);
            b[12 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd);
        }
#pragma GCC unroll 16
        for (int i = 0; i < EM_PANEL; i++) {
            __m512i *to = (__m512i *)(void *)(panel + (j + i) * 64);
            if (whole_lines)
                _mm512_stream_si512(to, b[i]);
            else
                _mm512_storeu_si512(to, b[i]);
        }
    }
    _mm_sfence(); /* other threads, who are told that the panel is there, see it */
    return _mm512_test_epi32_mask(signs, _mm512_set1_epi32((int)EM_SIGNS)) == 0;
}

/* 32 registers of 16 floats: 24 sums, the weights of 2 to 4 panels, and inputs straight from memory. */
#define TILES         em_tiles_avx512
#define TILES_TURN    turn_sixteen
#define TILES_NAME    "avx512"
#define TILES_WIDTHS  5
#define TILES_LIST(T) T(0, 12, 2) T(1, 6, 4) T(2, 4, 4) T(3, 2, 4) T(4, 1, 4)
#include "tiles_body.h"
