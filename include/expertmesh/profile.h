/* expertmesh/profile.h: where the time of a run went and how many rows it moved, on this rank. No MPI but its clock.
 *
 * Every lap is an event too, kept until the next step begins: what a rank did, one after another, without a gap. */
#ifndef EXPERTMESH_PROFILE_H
#define EXPERTMESH_PROFILE_H

#include "expertmesh/clock.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum em_phase {
    EM_PHASE_EMBEDDING, /* outside of the layers: look up and carry home */
    EM_PHASE_GATHER,    /* every token's row to the heads' owners */
    EM_PHASE_ATTENTION,
    EM_PHASE_SUM,      /* partial sums of heads home, and their tree */
    EM_PHASE_ROUTER,   /* norms on the tokens' owners, router, everyone's choices, plan */
    EM_PHASE_DISPATCH, /* rows to the experts */
    EM_PHASE_EXPERTS,
    EM_PHASE_COMBINE, /* rows back home, their tree, weights */
    EM_PHASE_OUTPUT,  /* outside of the layers: last norm and logits */
    EM_PHASE_WAIT,    /* for other ranks, before an exchange */
    EM_PHASE_TRACE,
    EM_NUM_PHASES
} em_phase;

extern const char *const em_phase_names[EM_NUM_PHASES];

/* Does a phase carry rows between ranks? */
static inline bool em_phase_exchanges(em_phase phase)
{
    return phase == EM_PHASE_EMBEDDING || phase == EM_PHASE_GATHER || phase == EM_PHASE_SUM ||
           phase == EM_PHASE_DISPATCH || phase == EM_PHASE_COMBINE || phase == EM_PHASE_OUTPUT;
}

/* How far a row went to another rank: exchange.h says how each is counted. */
typedef enum em_reach { EM_INSIDE_HOSTS, EM_BETWEEN_HOSTS, EM_NUM_REACHES } em_reach;

extern const char *const em_reach_names[EM_NUM_REACHES];

typedef struct em_event {
    double begin, end; /* MPI_Wtime */
    int64_t layer;     /* num_layers: outside of the layers */
    em_phase phase;
    int64_t rows; /* given to other ranks */
} em_event;

/* What a trace tells of an event, in this order. */
typedef enum em_field {
    EM_FIELD_BEGIN,
    EM_FIELD_END,
    EM_FIELD_PHASE,
    EM_FIELD_LAYER,
    EM_FIELD_ROWS,
    EM_NUM_FIELDS
} em_field;

extern const char *const em_field_names[EM_NUM_FIELDS];

typedef struct em_profile {
    int64_t num_layers;
    double *seconds; /* [num_layers + 1, EM_NUM_PHASES]; the last row is what lies outside of the layers */
    int64_t
        *rows; /* [num_layers + 1, EM_NUM_PHASES, EM_NUM_REACHES] this rank's rows that went to other ranks, by phase */
    int64_t *load;       /* [num_layers, num_experts] rows of each expert, on all ranks the same */
    int64_t *dispatched; /* [num_layers, num_ranks] rows that this rank's dispatch sent to each, itself with them */
    em_event *event;     /* [num_events] of the step at hand; room for em_profile_room */
    int64_t num_events;
    em_clock clock; /* set by em_clock_start; zero where nobody needs the ranks' times beside each other */
    double mark;    /* when the present phase began */
} em_profile;

/* Most events of a step. A layer has 19, and there are 8 outside: what comes several times in a row is one, and so is what is
 * written of the hidden neurons while the experts work, put at their end. */
static inline int64_t em_profile_room(int64_t num_layers)
{
    enum { OF_A_LAYER = 20, OUTSIDE = 8 };
    return num_layers * OF_A_LAYER + OUTSIDE;
}

void em_profile_open(em_profile *profile, int64_t num_layers, int64_t num_experts, int num_ranks);
void em_profile_close(em_profile *profile);

/* All seconds of this rank so far. */
double em_profile_seconds(const em_profile *profile);

/* Start the clock of a step; then, at the end of each phase, charge the time since the last call to it. layer num_layers: outside. */
void em_profile_start(em_profile *profile);
void em_profile_lap(em_profile *profile, int64_t layer, em_phase phase);
void em_profile_rows(em_profile *profile, int64_t layer, em_phase phase, int64_t inside, int64_t between);

#ifdef __cplusplus
}
#endif
#endif
