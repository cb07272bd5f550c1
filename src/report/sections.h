/* sections.h: the sections of a report, each a heading, a line that says what is seen, and a picture of each trace. */
#ifndef EXPERTMESH_REPORT_SECTIONS_H
#define EXPERTMESH_REPORT_SECTIONS_H

#include "figures.h"
#include "page.h"

enum { EM_MOST_RUNS = 2 }; /* side by side */

/* What a page shows: the traces, the same scales for all. */
typedef struct em_runs {
    const em_figures *figures; /* [count] */
    int count;
} em_runs;

/* A section: its name for links, heading and explanation (markup of our own), and what draws one trace's part. */
typedef struct em_section {
    const char *id, *heading, *what;
    bool wide; /* needs the page's width */
    void (*draw)(em_page *page, const em_runs *runs, const em_figures *figures);
} em_section;

extern const em_section em_sections[];
extern const int em_num_sections;

/* A table of what the runs were: one column each. */
void em_summary_put(em_page *page, const em_runs *runs);

/* The text with each token in the colour of its first expert. */
void em_text_draw(em_page *page, const em_runs *runs, const em_figures *figures);

/* What stands in place of a picture: what was not recorded, and what would have recorded it. */
void em_missing_put(em_page *page, const em_figures *figures, em_quantity quantity);

#endif
