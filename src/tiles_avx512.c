/* 32 registers of 16 floats: 24 sums, the weights of 2 to 4 panels, and inputs straight from memory. */
#define TILES         em_tiles_avx512
#define TILES_NAME    "avx512"
#define TILES_WIDTHS  5
#define TILES_LIST(T) T(0, 12, 2) T(1, 6, 4) T(2, 4, 4) T(3, 2, 4) T(4, 1, 4)
#include "tiles_body.h"
