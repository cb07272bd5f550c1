/* 16 registers of 8 floats: 12 are 6 sums. */
#define TILES         em_tiles_avx2
#define TILES_NAME    "avx2"
#define TILES_WIDTHS  4
#define TILES_LIST(T) T(0, 6, 1) T(1, 3, 2) T(2, 2, 2) T(3, 1, 4)
#include "tiles_body.h"
