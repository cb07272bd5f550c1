/* Stacked bars. */
#include "chart_parts.h"

#include <math.h>

/* The mean of a part over the bars of a bin. */
static double bar_value(const em_bars *bars, int64_t bin, int64_t bar, int64_t part)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = bar * bin; i < (bar + 1) * bin && i < bars->bar.count; i++, count++)
        sum += bars->value[i * bars->part.count + part];
    return sum / (double)count;
}

double em_bars_most(const em_bars *bars)
{
    double most = 0;
    for (int64_t i = 0; i < bars->bar.count; i++) {
        double sum = 0;
        for (int64_t p = 0; p < bars->part.count; p++) sum += bars->value[i * bars->part.count + p];
        if (sum > most && isfinite(sum)) most = sum;
    }
    return most;
}

static void put_bar(em_page *page, const em_bars *bars, int64_t bin, int64_t bar, const em_frame *f, double y, double h)
{
    double x = f->left;
    for (int64_t p = 0; p < bars->part.count; p++) {
        double value = bar_value(bars, bin, bar, p), width = f->width * value / f->most;
        if (!(width > 0.01)) continue;
        em_page_put(page, "<rect x=\"%.5g\" y=\"%.5g\" width=\"%.5g\" height=\"%.5g\" ", x, y, width, h);
        em_put_fill(page, bars->fill[p]);
        em_page_put(page, ">");
        em_put_hover(page, &bars->bar, bin, bar, &bars->part, 1, p, value, bars->what);
        em_page_put(page, "</rect>\n");
        x += width;
    }
}

static void put_bar_numbers(em_page *page, const em_bars *bars, int64_t bin)
{
    em_place_text text;
    char head[160];
    em_numbers numbers = em_numbers_open(page, (int)bars->part.count + 1, "numbers");
    em_numbers_word(&numbers, bars->bar.name);
    for (int64_t p = 0; p < bars->part.count; p++) {
        snprintf(head, sizeof head, "%s, %s", em_scale_place(&bars->part, p, text), bars->what);
        em_numbers_word(&numbers, head);
    }
    for (int64_t i = 0; i < em_bins_of(&bars->bar, bin); i++) {
        em_numbers_word(&numbers, em_bin_name(&bars->bar, bin, i, text));
        for (int64_t p = 0; p < bars->part.count; p++) em_numbers_cell(&numbers, bar_value(bars, bin, i, p));
    }
    em_numbers_close(&numbers);
}

/* Only parts that are somewhere. */
static void put_bar_legend(em_page *page, const em_bars *bars)
{
    em_place_text text;
    em_page_put(page, "<p class=\"legend\">");
    for (int64_t p = 0; p < bars->part.count; p++) {
        bool used = false;
        for (int64_t i = 0; i < bars->bar.count; i++) used |= bars->value[i * bars->part.count + p] > 0;
        if (!used) continue;
        em_page_put(page, "<span>");
        em_fill_sample(page, bars->fill[p]);
        em_page_put(page, " ");
        em_page_text(page, em_scale_place(&bars->part, p, text));
        em_page_put(page, "</span> ");
    }
    em_page_put(page, "</p>\n");
}

void em_bars_draw(em_page *page, const em_bars *bars)
{
    int64_t bin = 1;
    while (em_bins_of(&bars->bar, bin) > bars->room) bin *= 2;
    int64_t count = em_bins_of(&bars->bar, bin);
    double most = em_bars_most(bars), left = em_scale_width(&bars->bar, bin) + 8,
           h = count <= 12   ? 20
               : count <= 24 ? 14
                             : 10;
    em_ticks t = em_ticks_of(bars->most > most ? bars->most : most, 6);
    em_frame f = {
        .left = left, .top = EM_LINE + 8, .width = EM_WIDTH - left - 16, .height = (double)count * h, .most = t.end};
    double bottom = f.top + f.height;
    em_open_picture(page, bars->title, bottom + 2 * EM_LINE + 6);
    for (int i = 0; i <= t.count; i++) {
        double x = f.left + f.width * i / t.count;
        em_page_put(page, "<path class=\"grid\" d=\"M%.5g %.5gv%.5g\"/>\n", x, f.top, f.height);
        bool last = i == t.count; /* must not leave the picture */
        em_put_tick(page, last ? x + 12 : x, bottom + EM_LINE, last ? "end" : "middle", i * t.step);
    }
    em_put_label(page, f.left + f.width / 2, bottom + 2 * EM_LINE, "middle", bars->what);
    em_put_y_scale(page, &bars->bar, bin, f.left, h, f.top);
    for (int64_t i = 0; i < count; i++) put_bar(page, bars, bin, i, &f, f.top + (double)i * h + 1, h - 2);
    em_page_put(page, "</svg>\n");
    put_bar_legend(page, bars);
    if (bin > 1)
        em_page_put(page,
                    "<p class=\"note\">%lld bars are too many to show: each is the mean of %lld neighbours.</p>\n",
                    (long long)bars->bar.count, (long long)bin);
    put_bar_numbers(page, bars, bin);
}
