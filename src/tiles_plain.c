/* Whatever the compiler makes of it, for any processor: 16 registers of 4 floats hold 3 sums. */
#define TILES         em_tiles_plain
#define TILES_NAME    "plain"
#define TILES_WIDTHS  2
#define TILES_LIST(T) T(0, 2, 1) T(1, 1, 2)
#include "tiles_body.h"
