/* watchdog_report.h: what a recorder of the watchdog has heard, and its report. No MPI, no thread. Private to the library. */
#ifndef EM_WATCHDOG_REPORT_H
#define EM_WATCHDOG_REPORT_H

#include "expertmesh/base.h"
#include "expertmesh/standing.h"

/* A rank as a recorder knows it. Times in seconds of one clock. */
typedef struct em_watched {
    em_host_text host;
    int process;
    double heard; /* last; below 0: never */
    em_standing standing;
} em_watched;

/* One message: who does not answer, and where every rank stood. A rank is silent that was not heard since `since`.
 * text [bytes]; more ranks than fit are left out. */
void em_watchdog_report(int num_ranks, const em_watched *rank, double now, double since, double limit, char *text,
                        size_t bytes);

#endif
