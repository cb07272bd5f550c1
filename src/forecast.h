/* forecast.h: how many rows each exchange of a run will carry, by arithmetic on the layout alone.
 *
 * What the heads and the vocabulary need follows from the tokens. What the experts need depends on the router: with its
 * choices counts are exact; without them they are what an even router would make on the average, each set of experts
 * being as likely as any other. So are the rows of the embedding of tokens that are not known yet. Rows are counted as
 * exchange.h counts them. */
#ifndef EXPERTMESH_FORECAST_H
#define EXPERTMESH_FORECAST_H

#include "expertmesh/profile.h"
#include "expertmesh/tree.h"

typedef struct em_forecast {
    const em_config *config; /* borrowed, as the next two */
    const em_layout *layout;
    const int *host; /* [P] the lowest rank on the host of each */
    bool once;       /* rows that several ranks of another host need go there once */
    em_covers covers;
    em_cover heads;
    int *member;       /* [P] ranks host by host */
    int *members;      /* [P] how many ranks are on the host of each */
    int *first_member; /* [P] where those of its host begin */
    double *rows; /* [L + 1, EM_NUM_PHASES, EM_NUM_REACHES] so far; the last row is what lies outside of the layers */
    double *dispatched; /* [P, P] rows from each to each by all dispatches; NULL where P is large */
    bool exact;         /* nothing so far was expected only */
} em_forecast;

/* flat: a row goes to each rank that needs it by itself. */
em_forecast em_forecast_open(const em_config *config, const em_layout *layout, const int *host, bool flat);
void em_forecast_close(em_forecast *forecast);

/* Add a step of T tokens, the first of them number first_token of the run. token_id [T]; -1: not known. expert [L, T, S]; NULL:
 * not known. */
void em_forecast_step(em_forecast *forecast, int64_t first_token, int64_t T, const int32_t *token_id,
                      const int32_t *expert);

#endif
