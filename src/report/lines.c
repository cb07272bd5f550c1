/* Lines over a scale. */
#include "chart_parts.h"

#include <math.h>

static const char *const dashes[] = {"", "7 3", "2 3", "7 3 2 3"};
enum { NUM_DASHES = sizeof dashes / sizeof *dashes };

static double most_of(const em_lines *lines)
{
    double most = 0;
    for (int i = 0; i < lines->num_lines; i++)
        for (int64_t x = 0; x < lines->x.count; x++) {
            const em_line *line = &lines->line[i];
            double value = line->high && !isnan(line->high[x]) ? line->high[x] : line->value[x];
            if (value > most && isfinite(value)) most = value;
        }
    return most;
}

static double place_x(const em_frame *f, int64_t i)
{
    return f->left + f->width * ((double)i + 0.5) / (double)f->count;
}

static double place_y(const em_frame *f, double value)
{
    return f->top + f->height * (1 - value / f->most);
}

/* Points joined, with a new beginning after each gap. */
static void put_points(em_page *page, const em_frame *f, const double *value)
{
    bool joined = false;
    for (int64_t i = 0; i < f->count; i++) {
        if (isfinite(value[i]))
            em_page_put(page, "%c%.5g %.5g", joined ? 'L' : 'M', place_x(f, i), place_y(f, value[i]));
        joined = isfinite(value[i]) != 0;
    }
}

static void put_band(em_page *page, const em_frame *f, const em_line *line, const char *colour)
{
    for (int64_t i = 0; i < f->count;) {
        int64_t end = i;
        while (end < f->count && isfinite(line->low[end]) && isfinite(line->high[end])) end++;
        if (end > i + 1) {
            em_page_put(page, "<path class=\"band\" fill=\"%s\" d=\"", colour);
            for (int64_t k = i; k < end; k++)
                em_page_put(page, "%c%.5g %.5g", k == i ? 'M' : 'L', place_x(f, k), place_y(f, line->high[k]));
            for (int64_t k = end - 1; k >= i; k--)
                em_page_put(page, "L%.5g %.5g", place_x(f, k), place_y(f, line->low[k]));
            em_page_put(page, "z\"/>\n");
        }
        i = end + 1;
    }
}

/* A mark of its own for each line: a disc, a square, a triangle, a rhomb. */
static void put_mark(em_page *page, int kind, double x, double y, const char *colour)
{
    static const char *const marks[] = {"m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z", "m-2.6 -2.6h5.2v5.2h-5.2z",
                                        "m0 -3.4l3.2 5.8h-6.4z", "m0 -3.6l3.2 3.6l-3.2 3.6l-3.2 -3.6z"};
    em_page_put(page, "<path fill=\"%s\" d=\"M%.5g %.5g%s\">", colour, x, y, marks[kind % 4]);
}

static void put_line(em_page *page, const em_lines *lines, const em_frame *f, int which)
{
    const em_line *line = &lines->line[which];
    const char *colour = em_colours[which % EM_NUM_COLOURS];
    if (line->low && line->high) put_band(page, f, line, colour);
    em_page_put(page, "<path class=\"line\" stroke=\"%s\" stroke-dasharray=\"%s\" d=\"", colour,
                dashes[which % NUM_DASHES]);
    put_points(page, f, line->value);
    em_page_put(page, "\"/>\n");
    for (int64_t i = 0; i < f->count; i++) {
        em_place_text place;
        em_number_text number, low, high;
        char text[400];
        if (!isfinite(line->value[i])) continue;
        int length = snprintf(text, sizeof text, "%s %s, %s: %s", lines->x.name, em_scale_place(&lines->x, i, place),
                              line->name, em_number(line->value[i], number));
        if (line->low && line->high && length < (int)sizeof text)
            snprintf(text + length, sizeof text - (size_t)length, " (%s to %s)", em_number(line->low[i], low),
                     em_number(line->high[i], high));
        put_mark(page, which, place_x(f, i), place_y(f, line->value[i]), colour);
        em_put_title(page, text);
        em_page_put(page, "</path>\n");
    }
}

static void put_grid(em_page *page, const em_frame *f, const em_ticks *t, const char *what)
{
    for (int i = 0; i <= t->count; i++) {
        double y = place_y(f, i * t->step);
        em_page_put(page, "<path class=\"grid\" d=\"M%.5g %.5gh%.5g\"/>\n", f->left, y, f->width);
        em_put_tick(page, f->left - 4, y + 4, "end", i * t->step);
    }
    em_put_label(page, 0, 11, "", what);
}

static void put_line_legend(em_page *page, const em_lines *lines)
{
    em_page_put(page, "<p class=\"legend\">");
    for (int i = 0; i < lines->num_lines; i++) {
        const char *colour = em_colours[i % EM_NUM_COLOURS];
        em_page_put(page,
                    "<span><svg class=\"sample wide\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><path class=\"line\" "
                    "stroke=\"%s\" stroke-dasharray=\"%s\" d=\"M0 7h34\"/>",
                    colour, dashes[i % NUM_DASHES]);
        put_mark(page, i, 17, 7, colour);
        em_page_put(page, "</path></svg> ");
        em_page_text(page, lines->line[i].name);
        em_page_put(page, "</span> ");
    }
    em_page_put(page, "</p>\n");
}

static void put_line_numbers(em_page *page, const em_lines *lines)
{
    em_place_text place;
    char head[160];
    int columns = 1;
    for (int i = 0; i < lines->num_lines; i++) columns += lines->line[i].low && lines->line[i].high ? 3 : 1;
    em_numbers numbers = em_numbers_open(page, columns, "numbers");
    em_numbers_word(&numbers, lines->x.name);
    for (int i = 0; i < lines->num_lines; i++) {
        const em_line *line = &lines->line[i];
        em_numbers_word(&numbers, line->name);
        if (!line->low || !line->high) continue;
        snprintf(head, sizeof head, "%s, least", line->name);
        em_numbers_word(&numbers, head);
        snprintf(head, sizeof head, "%s, most", line->name);
        em_numbers_word(&numbers, head);
    }
    for (int64_t x = 0; x < lines->x.count; x++) {
        em_numbers_word(&numbers, em_scale_place(&lines->x, x, place));
        for (int i = 0; i < lines->num_lines; i++) {
            const em_line *line = &lines->line[i];
            em_numbers_cell(&numbers, line->value[x]);
            if (!line->low || !line->high) continue;
            em_numbers_cell(&numbers, line->low[x]);
            em_numbers_cell(&numbers, line->high[x]);
        }
    }
    em_numbers_close(&numbers);
}

void em_lines_draw(em_page *page, const em_lines *lines)
{
    double most = most_of(lines);
    em_ticks t = em_ticks_of(lines->most > most ? lines->most : most, 5);
    em_frame f = {.left = 44,
                  .top = EM_LINE + 8,
                  .width = EM_WIDTH - 44 - 6,
                  .height = 170,
                  .most = t.end,
                  .count = lines->x.count};
    double bottom = f.top + f.height;
    em_open_picture(page, lines->title, bottom + 2 * EM_LINE + 6);
    put_grid(page, &f, &t, lines->what);
    em_put_x_scale(page, &lines->x, 1, f.left, f.width / (double)f.count, bottom);
    for (int i = 0; i < lines->num_lines; i++) put_line(page, lines, &f, i);
    em_page_put(page, "</svg>\n");
    if (lines->num_lines > 1) put_line_legend(page, lines);
    put_line_numbers(page, lines);
}
