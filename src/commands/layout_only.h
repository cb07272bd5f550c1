/* layout_only.h: what a run would lay where and carry between ranks, told without running it. */
#ifndef EXPERTMESH_LAYOUT_ONLY_H
#define EXPERTMESH_LAYOUT_ONLY_H

#include "../layout_options.h"
#include "expertmesh/generate.h"

/* A run as it is asked for. All borrowed. */
typedef struct em_outlook {
    const em_source *source;
    const em_batch *prompts;
    const em_generation *generation;
    const em_places *places; /* of its ranks, which need not be those that are here */
    const em_layout *layout;
    bool flat;           /* rows go to each rank by itself */
    const char *routing; /* a trace of the same tokens, whose choices count; NULL: none */
} em_outlook;

/* Print who owns what, bytes by rank, and the rows of each exchange. Local: one rank calls it. */
void em_outlook_print(const em_outlook *outlook, em_status *status);

/* The places of --ranks and --ranks-per-host, or those of the ranks here. Both need --layout-only. Collective; the status is
 * agreed. */
bool em_outlook_places(const em_call *call, em_places *places, em_status *status);

/* Write the map of a layout to a file, which appears when it is whole, in place of any before. Local: one rank calls it. */
void em_outlook_write_map(const em_layout *layout, const char *path, em_status *status);

#endif
