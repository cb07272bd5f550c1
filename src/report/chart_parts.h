/* chart_parts.h: what the pictures share: words, scales, colours, hovers. Lengths are in units of a picture's width. */
#ifndef EXPERTMESH_REPORT_CHART_PARTS_H
#define EXPERTMESH_REPORT_CHART_PARTS_H

#include "charts.h"

enum { EM_WIDTH = 400, EM_LETTER = 6, EM_LINE = 13 }; /* of a picture, of a letter; from line to line */

/* Begin a picture of this height; the caller ends it with </svg>. */
void em_open_picture(em_page *page, const char *title, double height);

/* The colour of the ramp at a part of the whole, from 0 to 1. */
unsigned em_ramp(double part);

/* Attributes of a shape that is filled so. */
void em_put_fill(em_page *page, em_fill fill);

/* anchor: "" (begins at x), "middle" or "end". */
void em_put_label(em_page *page, double x, double y, const char *anchor, const char *text);
void em_put_title(em_page *page, const char *text);

/* Places of a scale that are put together, `bin` at a time: how many that makes, the name of one ("3", "4-7"), the width of the
 * longest name. */
int64_t em_bins_of(const em_scale *scale, int64_t bin);
const char *em_bin_name(const em_scale *scale, int64_t bin, int64_t index, em_place_text buffer);
double em_scale_width(const em_scale *scale, int64_t bin);

/* The places of a scale, each of this size, and its name: below y, or left of x. Returns the height that it takes. */
double em_put_x_scale(em_page *page, const em_scale *scale, int64_t bin, double left, double size, double y);
void em_put_y_scale(em_page *page, const em_scale *scale, int64_t bin, double x, double size, double top);

/* "layer 3, expert 2: 17 rows", as the title of a shape. */
void em_put_hover(em_page *page, const em_scale *a, int64_t a_bin, int64_t i, const em_scale *b, int64_t b_bin,
                  int64_t j, double value, const char *what);

/* An axis of values from 0: where it ends, a round number, and the steps on the way, about so many. */
typedef struct em_ticks {
    double step, end;
    int count;
} em_ticks;
em_ticks em_ticks_of(double most, int about);
void em_put_tick(em_page *page, double x, double y, const char *anchor, double value);

/* Where values are drawn. */
typedef struct em_frame {
    double left, top, width, height, most;
    int64_t count; /* places along x */
} em_frame;

#endif
