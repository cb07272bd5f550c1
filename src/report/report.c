#include "report.h"

#include "charts.h"
#include "style.h"

enum { TOKENS = 3072 }; /* of the text, of all traces together */

int64_t em_report_room(int count)
{
    return TOKENS / count;
}

/* The names of the traces, as words. */
static void put_names(em_page *page, const em_runs *runs)
{
    for (int i = 0; i < runs->count; i++) {
        if (i > 0) em_page_put(page, " and ");
        em_page_text(page, runs->figures[i].path);
    }
}

static void put_head(em_page *page, const em_runs *runs)
{
    em_page_put(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                      "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
                      "<link rel=\"icon\" href=\"data:,\">\n<title>");
    put_names(page, runs);
    em_page_put(page, " – Expertmesh</title>\n");
    em_style_put(page);
    em_page_put(page, "</head>\n<body class=\"%s\">\n", runs->count > 1 ? "two" : "one");
    em_charts_define(page);
    em_page_put(page, "<header><h1>");
    put_names(page, runs);
    em_page_put(page, "</h1>\n<nav>");
    for (int i = 0; i < em_num_sections; i++)
        em_page_put(page, "<a href=\"#%s\">%s</a> ", em_sections[i].id, em_sections[i].heading);
    em_page_put(page, "</nav></header>\n");
}

static void put_section(em_page *page, const em_runs *runs, const em_section *section)
{
    em_page_put(page, "<section id=\"%s\" class=\"%s\"><h2>%s</h2>\n<p class=\"what\">%s</p>\n<div class=\"runs\">\n",
                section->id, section->wide ? "wide" : "", section->heading, section->what);
    for (int i = 0; i < runs->count; i++) {
        em_page_put(page, "<div class=\"run\">");
        if (runs->count > 1) {
            em_page_put(page, "<h3>");
            em_page_text(page, runs->figures[i].path);
            em_page_put(page, "</h3>\n");
        }
        section->draw(page, runs, &runs->figures[i]);
        em_page_put(page, "</div>\n");
    }
    em_page_put(page, "</div></section>\n");
}

void em_report_write(const em_runs *runs, FILE *out)
{
    em_page page = {.out = out};
    put_head(&page, runs);
    em_page_put(&page, "<main class=\"%s\">\n", runs->count > 1 ? "two" : "one");
    em_summary_put(&page, runs);
    for (int i = 0; i < em_num_sections; i++) put_section(&page, runs, &em_sections[i]);
    em_page_put(&page, "</main>\n");
    em_script_put(&page);
    em_page_put(&page, "</body>\n</html>\n");
}
