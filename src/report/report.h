/* report.h: one or two traces as one HTML page that needs nothing but itself. */
#ifndef EXPERTMESH_REPORT_REPORT_H
#define EXPERTMESH_REPORT_REPORT_H

#include "sections.h"

/* Write the page of these traces to out. A failed write shows in ferror(out). */
void em_report_write(const em_runs *runs, FILE *out);

/* Tokens of the text that a page of so many traces has room for. */
int64_t em_report_room(int count);

#endif
