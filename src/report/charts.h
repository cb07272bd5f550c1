/* charts.h: pictures as SVG within a page: a map of cells, lines, stacked bars. Each draws itself with its legend, its
 * numbers in <title> for those who point at them, and the same numbers as a table below.
 *
 * A picture is 400 units wide however wide the page is, so that its words can be read at 400 pixels and at 1280. Words take
 * the page's colour; cells and areas have colours of their own, which are right on light and dark alike:
 *   a ramp  viridis (S. van der Walt, N. Smith: matplotlib, 2015), which is even to the eye, to the colour-blind and in grey
 *   kinds   M. Okabe, K. Ito: Color Universal Design, 2002, black replaced by grey; beside colour they differ in dash and mark,
 *           or in hatching */
#ifndef EXPERTMESH_REPORT_CHARTS_H
#define EXPERTMESH_REPORT_CHARTS_H

#include "page.h"

#include <stdbool.h>

enum { EM_NUM_COLOURS = 8 };
extern const char *const em_colours[EM_NUM_COLOURS]; /* "#0072b2", ... */
extern const bool em_colour_is_dark[EM_NUM_COLOURS]; /* needs white words upon it */

/* One axis: its places in words, in numbers, or counted from 0. Borrowed. */
typedef struct em_scale {
    const char *name; /* of one place: "layer" */
    int64_t count;
    const int64_t *number;   /* [count], or NULL */
    const char *const *word; /* [count], or NULL */
} em_scale;

typedef char em_place_text[64];
const char *em_scale_place(const em_scale *scale, int64_t place, em_place_text buffer);

/* value [y.count, x.count] as cells. Where there are more cells than `room`, neighbours are put together, and it is said. */
typedef struct em_map {
    const char *what;  /* the value in words, for the legend: "rows" */
    const char *title; /* of the picture, for those who hear it */
    em_scale x, y;
    const double *value; /* NaN: an empty cell */
    double least, most;  /* the ends of the ramp */
    bool bytes;          /* a value is a number of bytes */
    bool square;         /* cells as high as they are wide */
    bool sum;            /* neighbours put together: their sum, or else their mean */
    bool numbers_by_y;   /* the table has a row for each y; or else for each x */
    int64_t room;
} em_map;
void em_map_draw(em_page *page, const em_map *map);

/* Several values along x. */
typedef struct em_line {
    const char *name;
    const double *value;      /* [x.count]; NaN: a gap */
    const double *low, *high; /* [x.count] a band about it, or NULL */
} em_line;

typedef struct em_lines {
    const char *what, *title;
    em_scale x;
    const em_line *line;
    int num_lines;
    double most; /* the upper end of the y axis, at least; it begins at 0 */
} em_lines;
void em_lines_draw(em_page *page, const em_lines *lines);

/* A fill of an area: a colour, and hatched or not. */
typedef enum em_hatch { EM_PLAIN, EM_RISING, EM_FALLING, EM_HOLLOW } em_hatch;
typedef struct em_fill {
    int colour;
    em_hatch hatch;
} em_fill;

/* value [bar.count, part.count] as bars of parts, one below the other. More bars than `room` are put together as means. */
typedef struct em_bars {
    const char *what, *title;
    em_scale bar, part;
    const em_fill *fill; /* [part.count] */
    const double *value;
    double most; /* the end of the axis, at least */
    int64_t room;
} em_bars;
void em_bars_draw(em_page *page, const em_bars *bars);
double em_bars_most(const em_bars *bars);

/* What the pictures refer to; once a page, before them. */
void em_charts_define(em_page *page);

/* A sample of a fill for a legend. */
void em_fill_sample(em_page *page, em_fill fill);

#endif
