/* official.h: the folder of pickles that Grok-1 was published as. Private to the library. */
#ifndef EXPERTMESH_OFFICIAL_H
#define EXPERTMESH_OFFICIAL_H

#include "foreign.h"

enum { EM_OFFICIAL_FIRST = 2, EM_OFFICIAL_SLOTS = 12 }; /* number of a layer's first file; files of a layer */

/* Has the folder such files? */
bool em_official_is(const char *folder);

/* The layers in the order of their files. layer [num_layers] */
void em_official_order(int64_t num_layers, int *layer);
/* What file number holds, by the order of layers. */
em_place em_official_place(int64_t number, const int *layer);

bool em_official_read(em_foreign *foreign, const char *folder, em_status *status);

#endif
