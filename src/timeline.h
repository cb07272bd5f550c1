/* timeline.h: a trace's events as a timeline in the Trace Event Format, which Perfetto and chrome://tracing open.
 *
 *   a process a rank      slices: step > layer > phase, with layer, tokens, rows and bytes
 *   flows                 from a sender with its rows ready to the dispatch, or combine, of their receivers
 *   a process "experts"   counters: rows of each expert, layer by layer
 *
 * Times are microseconds of rank 0's clock since the run's start. Flows and counters come from the experts that the tokens
 * chose and from the layout, so they need expert_indices of all tokens of a step. */
#ifndef EXPERTMESH_TIMELINE_H
#define EXPERTMESH_TIMELINE_H

#include "expertmesh/view.h"

#include <zlib.h>

/* What to show. */
typedef struct em_timeline_request {
    const bool *steps;  /* [view->num_steps] */
    const bool *layers; /* [config.num_layers]; what lies outside of the layers is always shown */
} em_timeline_request;

typedef struct em_timeline_result {
    int64_t steps, slices, flows;
    double error;      /* seconds by which times of two ranks may be off; < 0: not written yet */
    const char *lacks; /* why there are no flows; NULL where there are */
} em_timeline_result;

/* Write the timeline. Fails where the trace has no events, is damaged, or file takes no more. */
bool em_timeline_write(const em_view *view, const em_timeline_request *request, gzFile file, em_timeline_result *result,
                       em_status *status);

#endif
