/* A map of cells. */
#include "chart_parts.h"

#include "expertmesh/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The map as it is drawn: bins of x and y, and their values [y, x]. */
typedef struct binned {
    int64_t x_bin, y_bin, x_count, y_count;
    double *value, least, most;
} binned;

static double bin_value(const em_map *map, const binned *b, int64_t y, int64_t x)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = y * b->y_bin; i < (y + 1) * b->y_bin && i < map->y.count; i++)
        for (int64_t j = x * b->x_bin; j < (x + 1) * b->x_bin && j < map->x.count; j++) {
            double value = map->value[i * map->x.count + j];
            if (isnan(value)) continue;
            sum += value;
            count++;
        }
    return count == 0 ? (double)NAN : map->sum ? sum : sum / (double)count;
}

static binned bin_map(const em_map *map)
{
    binned b = {.x_bin = 1, .y_bin = 1, .least = map->least, .most = map->most};
    while (em_bins_of(&map->x, b.x_bin) * em_bins_of(&map->y, b.y_bin) > map->room) {
        bool more_x = em_bins_of(&map->x, b.x_bin) >= em_bins_of(&map->y, b.y_bin);
        if (more_x || map->square) b.x_bin *= 2;
        if (!more_x || map->square) b.y_bin *= 2;
    }
    b.x_count = em_bins_of(&map->x, b.x_bin);
    b.y_count = em_bins_of(&map->y, b.y_bin);
    b.value = em_alloc(b.x_count * b.y_count, sizeof *b.value);
    bool whole = b.x_bin == 1 && b.y_bin == 1;
    if (!whole) b.most = 0;
    if (!whole && map->least > 0) b.least = INFINITY;
    for (int64_t y = 0; y < b.y_count; y++)
        for (int64_t x = 0; x < b.x_count; x++) {
            double value = b.value[y * b.x_count + x] = bin_value(map, &b, y, x);
            if (!whole && value > b.most) b.most = value;
            if (!whole && value < b.least) b.least = value;
        }
    return b;
}

static void put_cells(em_page *page, const em_map *map, const binned *b, double left, double top, double w, double h)
{
    for (int64_t y = 0; y < b->y_count; y++)
        for (int64_t x = 0; x < b->x_count; x++) {
            double value = b->value[y * b->x_count + x];
            if (isnan(value)) continue;
            em_page_put(page, "<path fill=\"#%06x\" d=\"M%.4g %.4gh%.4gv%.4gh-%.4gz\">",
                        em_ramp(b->most > b->least ? (value - b->least) / (b->most - b->least) : 0),
                        left + (double)x * w, top + (double)y * h, w, h, w);
            em_put_hover(page, &map->y, b->y_bin, y, &map->x, b->x_bin, x, value, map->what);
            em_page_put(page, "</path>\n");
        }
}

/* One end of the ramp in words. */
static const char *end_text(const em_map *map, double value, em_number_text text)
{
    em_bytes_text bytes;
    if (map->bytes)
        snprintf(text, sizeof(em_number_text), "%s", em_bytes(value, bytes));
    else if (value == floor(value))
        em_number(value, text);
    else
        snprintf(text, sizeof(em_number_text), "%.3g", value);
    return text;
}

/* The ramp with its ends, and what it means. */
static void put_ramp(em_page *page, const em_map *map, const binned *b, double x, double y)
{
    em_number_text least, most;
    char text[120];
    end_text(map, b->least, least);
    double from = x + EM_LETTER * (double)strlen(least) + 6, width = 110;
    snprintf(text, sizeof text, "%s%s%s", end_text(map, b->most, most), map->bytes ? "" : " ",
             map->bytes ? "" : map->what);
    em_put_label(page, x, y + 9, "", least);
    em_page_put(page, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"10\" fill=\"url(#ramp)\"/>\n", from, y, width);
    em_put_label(page, from + width + 4, y + 9, "", text);
}

static void put_map_numbers(em_page *page, const em_map *map, const binned *b)
{
    const em_scale *down = map->numbers_by_y ? &map->y : &map->x, *across = map->numbers_by_y ? &map->x : &map->y;
    int64_t down_bin = map->numbers_by_y ? b->y_bin : b->x_bin, across_bin = map->numbers_by_y ? b->x_bin : b->y_bin;
    int64_t rows = em_bins_of(down, down_bin), columns = em_bins_of(across, across_bin);
    em_place_text text;
    char head[160];
    em_numbers numbers = em_numbers_open(page, (int)columns + 1, "numbers");
    em_numbers_word(&numbers, down->name);
    for (int64_t i = 0; i < columns; i++) {
        snprintf(head, sizeof head, "%s %s", across->name, em_bin_name(across, across_bin, i, text));
        em_numbers_word(&numbers, head);
    }
    for (int64_t i = 0; i < rows; i++) {
        em_numbers_word(&numbers, em_bin_name(down, down_bin, i, text));
        for (int64_t j = 0; j < columns; j++)
            em_numbers_cell(&numbers, b->value[map->numbers_by_y ? i * b->x_count + j : j * b->x_count + i]);
    }
    em_numbers_close(&numbers);
}

/* What was put together. */
static void put_binned(em_page *page, const em_map *map, const binned *b)
{
    if (b->x_bin == 1 && b->y_bin == 1) return;
    em_page_put(page, "<p class=\"note\">%lld &times; %lld cells are too many to show: each is the %s of ",
                (long long)map->y.count, (long long)map->x.count, map->sum ? "sum" : "mean");
    em_page_put(page, "%lld &times; %lld neighbours.</p>\n", (long long)b->y_bin, (long long)b->x_bin);
}

void em_map_draw(em_page *page, const em_map *map)
{
    binned b = bin_map(map);
    double left = em_scale_width(&map->y, b.y_bin) + 8, top = EM_LINE + 8,
           w = (EM_WIDTH - left - 2) / (double)b.x_count;
    double widest = map->square ? 26 : 40, h = 240 / (double)b.y_count;
    w = w < widest ? w : widest;
    h = h < 22 ? h : 22;
    if (map->square) h = w = (double)b.y_count * w > 300 ? 300 / (double)b.y_count : w;
    double bottom = top + (double)b.y_count * h, words = 2 * EM_LINE + 6;
    em_open_picture(page, map->title, bottom + words + 22);
    em_put_y_scale(page, &map->y, b.y_bin, left, h, top);
    em_page_put(page, "<g class=\"cells\">\n");
    put_cells(page, map, &b, left, top, w, h);
    em_page_put(page, "</g>\n<rect class=\"frame\" x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/>\n", left, top,
                (double)b.x_count * w, bottom - top);
    em_put_x_scale(page, &map->x, b.x_bin, left, w, bottom);
    put_ramp(page, map, &b, left, bottom + words + 4);
    em_page_put(page, "</svg>\n");
    put_binned(page, map, &b);
    put_map_numbers(page, map, &b);
    free(b.value);
}
