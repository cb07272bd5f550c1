/* layout_options.h: which layout the user asks for, and on which hosts. */
#ifndef EXPERTMESH_LAYOUT_OPTIONS_H
#define EXPERTMESH_LAYOUT_OPTIONS_H

#include "options.h"

/* Ranks and the hosts that they are on. */
typedef struct em_places {
    int num_ranks;
    int *host; /* [P] the lowest rank of the host that each is on */
} em_places;

/* Where the ranks of a communicator are. Collective; the status is agreed. Freed with em_places_free. */
bool em_places_find(MPI_Comm comm, em_places *places, em_status *status);
/* So many ranks on hosts of so many each. */
em_places em_places_make(int num_ranks, int ranks_per_host);
void em_places_free(em_places *places);

/* What --layout, --attention-ranks and --expert-ranks say for these places. Collective: rank 0 reads the map; the status is
 * agreed. Freed with em_layout_free. */
bool em_options_layout(const em_call *call, const em_source *source, const em_places *places, em_layout *layout,
                       em_status *status);

/* A layout by the name that --layout gives, or the usual one. */
bool em_options_layout_kind(const char *name, em_layout_kind *kind, em_status *status);
em_layout em_layout_named(em_layout_kind kind, const em_source *source, const em_places *places);

#endif
