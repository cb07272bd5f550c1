#include "chart_parts.h"

#include <math.h>
#include <string.h>

const char *const em_colours[EM_NUM_COLOURS] = {"#0072b2", "#e69f00", "#009e73", "#d55e00",
                                                "#56b4e9", "#cc79a7", "#f0e442", "#999999"};
const bool em_colour_is_dark[EM_NUM_COLOURS] = {true};

/* viridis at 0, 0.1, ... 1. */
static const unsigned char ramp[][3] = {
    {0x44, 0x01, 0x54}, {0x48, 0x25, 0x76}, {0x41, 0x44, 0x87}, {0x35, 0x60, 0x8d},
    {0x2a, 0x78, 0x8e}, {0x21, 0x90, 0x8c}, {0x22, 0xa8, 0x84}, {0x43, 0xbf, 0x71},
    {0x7a, 0xd1, 0x51}, {0xbb, 0xdf, 0x27}, {0xfd, 0xe7, 0x25},
};
enum { RAMP_STEPS = sizeof ramp / sizeof *ramp - 1 };

/* The colour of a part of the whole, from 0 to 1. */
unsigned em_ramp(double part)
{
    double at = (part > 0 ? part < 1 ? part : 1 : 0) * RAMP_STEPS, colour[3];
    int step = at < RAMP_STEPS ? (int)at : RAMP_STEPS - 1;
    for (int i = 0; i < 3; i++) colour[i] = ramp[step][i] + (at - step) * (ramp[step + 1][i] - ramp[step][i]);
    return (unsigned)lround(colour[0]) << 16 | (unsigned)lround(colour[1]) << 8 | (unsigned)lround(colour[2]);
}

void em_charts_define(em_page *page)
{
    em_page_put(page, "<svg class=\"defs\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>\n"
                      "<linearGradient id=\"ramp\">");
    for (int i = 0; i <= RAMP_STEPS; i++)
        em_page_put(page, "<stop offset=\"%g\" stop-color=\"#%06x\"/>", (double)i / RAMP_STEPS,
                    em_ramp((double)i / RAMP_STEPS));
    em_page_put(page, "</linearGradient>\n");
    for (int c = 0; c < EM_NUM_COLOURS; c++)
        for (em_hatch h = EM_RISING; h <= EM_FALLING; h++)
            em_page_put(
                page,
                "<pattern id=\"hatch%d-%d\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
                "patternTransform=\"rotate(%d)\"><rect width=\"6\" height=\"6\" fill=\"%s\"/><rect width=\"2.4\" "
                "height=\"6\" fill=\"#fff\"/></pattern>\n",
                c, h, h == EM_RISING ? 45 : -45, em_colours[c]);
    em_page_put(page, "</defs></svg>\n");
}

/* Attributes of a shape. */
void em_put_fill(em_page *page, em_fill fill)
{
    if (fill.hatch == EM_PLAIN)
        em_page_put(page, "fill=\"%s\"", em_colours[fill.colour]);
    else if (fill.hatch == EM_HOLLOW)
        em_page_put(page, "class=\"hollow\"");
    else
        em_page_put(page, "fill=\"url(#hatch%d-%d)\"", fill.colour, fill.hatch);
}

void em_fill_sample(em_page *page, em_fill fill)
{
    em_page_put(page,
                "<svg class=\"sample\" viewBox=\"0 0 14 14\" aria-hidden=\"true\"><rect x=\"1\" y=\"1\" width=\"12\" "
                "height=\"12\" ");
    em_put_fill(page, fill);
    em_page_put(page, "/></svg>");
}

/* ---- scales ---- */

const char *em_scale_place(const em_scale *scale, int64_t place, em_place_text buffer)
{
    if (scale->word)
        snprintf(buffer, sizeof(em_place_text), "%s", scale->word[place]);
    else
        snprintf(buffer, sizeof(em_place_text), "%lld", (long long)(scale->number ? scale->number[place] : place));
    return buffer;
}

/* "3", or of several put together "4-7". */
const char *em_bin_name(const em_scale *scale, int64_t bin, int64_t index, em_place_text buffer)
{
    int64_t first = index * bin, last = first + bin <= scale->count ? first + bin - 1 : scale->count - 1;
    em_place_text a, b;
    em_scale_place(scale, first, a);
    if (first == last)
        snprintf(buffer, sizeof(em_place_text), "%s", a);
    else
        snprintf(buffer, sizeof(em_place_text), "%.30s-%.30s", a, em_scale_place(scale, last, b));
    return buffer;
}

int64_t em_bins_of(const em_scale *scale, int64_t bin)
{
    return (scale->count + bin - 1) / bin;
}

/* Width of the widest place in the picture's units. */
double em_scale_width(const em_scale *scale, int64_t bin)
{
    em_place_text text;
    size_t most = 1;
    for (int64_t i = 0; i < em_bins_of(scale, bin); i++) {
        size_t length = strlen(em_bin_name(scale, bin, i, text));
        most = length > most ? length : most;
    }
    return EM_LETTER * (double)most;
}

/* The least round step (1, 2, 5, 10, ...) that is at least this. */
static double round_step(double least)
{
    double power = pow(10, floor(log10(least)));
    return least <= power ? power : least <= 2 * power ? 2 * power : least <= 5 * power ? 5 * power : 10 * power;
}

/* Every how many places a word fits, where a place is `size` wide and a word `need`. */
static int64_t label_step(double size, double need)
{
    return need <= size ? 1 : (int64_t)round_step(need / size);
}

void em_put_label(em_page *page, double x, double y, const char *anchor, const char *text)
{
    em_page_put(page, "<text x=\"%g\" y=\"%g\"%s%s%s>", x, y, *anchor ? " text-anchor=\"" : "", anchor,
                *anchor ? "\"" : "");
    em_page_text(page, text);
    em_page_put(page, "</text>\n");
}

/* The places of a horizontal scale below y, and its name. Returns the height that this takes. */
double em_put_x_scale(em_page *page, const em_scale *scale, int64_t bin, double left, double size, double y)
{
    em_place_text text;
    int64_t count = em_bins_of(scale, bin), step = label_step(size, em_scale_width(scale, bin) + EM_LETTER);
    for (int64_t i = 0; i < count; i += step)
        em_put_label(page, left + ((double)i + 0.5) * size, y + EM_LINE, "middle", em_bin_name(scale, bin, i, text));
    em_put_label(page, left + (double)count * size / 2, y + 2 * EM_LINE, "middle", scale->name);
    return 2 * EM_LINE + 6;
}

/* The places of a vertical scale left of x, and its name above. */
void em_put_y_scale(em_page *page, const em_scale *scale, int64_t bin, double x, double size, double top)
{
    em_place_text text;
    for (int64_t i = 0; i < em_bins_of(scale, bin); i += label_step(size, EM_LINE - 2))
        em_put_label(page, x - 4, top + ((double)i + 0.5) * size + 4, "end", em_bin_name(scale, bin, i, text));
    em_put_label(page, 0, top - 7, "", scale->name);
}

void em_open_picture(em_page *page, const char *title, double height)
{
    em_page_put(page, "<svg class=\"picture\" id=\"picture%d\" viewBox=\"0 0 %d %g\" role=\"img\" aria-label=\"",
                page->num_pictures++, EM_WIDTH, ceil(height));
    em_page_text(page, title);
    em_page_put(page, "\">\n");
}

void em_put_title(em_page *page, const char *text)
{
    em_page_put(page, "<title>");
    em_page_text(page, text);
    em_page_put(page, "</title>");
}

/* "layer 3, expert 2: 17 rows", as the title of a shape. */
void em_put_hover(em_page *page, const em_scale *a, int64_t a_bin, int64_t i, const em_scale *b, int64_t b_bin,
                  int64_t j, double value, const char *what)
{
    em_place_text a_text, b_text;
    em_number_text number;
    char text[400];
    snprintf(text, sizeof text, "%s %s, %s %s: %s %s", a->name, em_bin_name(a, a_bin, i, a_text), b->name,
             em_bin_name(b, b_bin, j, b_text), em_number(value, number), what);
    em_put_title(page, text);
}

/* ---- axes of values ---- */

em_ticks em_ticks_of(double most, int about)
{
    em_ticks t = {.step = round_step((most > 0 ? most : 1) / about)};
    t.count = (int)ceil((most > 0 ? most : 1) / t.step - 1e-9);
    t.end = t.step * t.count;
    return t;
}

void em_put_tick(em_page *page, double x, double y, const char *anchor, double value)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P"};
    enum { LAST = sizeof prefixes / sizeof *prefixes - 1 };
    char text[32];
    int prefix = 0;
    if (value >= 1e4) /* shorter numbers are read as they are */
        for (; value >= 1000 && prefix < LAST; prefix++) value /= 1000;
    snprintf(text, sizeof text, "%.5g%s", value, prefixes[prefix]);
    em_put_label(page, x, y, anchor, text);
}
