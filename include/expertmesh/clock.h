/* expertmesh/clock.h: one clock for all ranks: how far each rank's own is from rank 0's. */
#ifndef EXPERTMESH_CLOCK_H
#define EXPERTMESH_CLOCK_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds of MPI_Wtime. */
typedef struct em_clock {
    double origin; /* what this rank's clock showed when rank 0's run began */
    double error;  /* the origin is right within this */
} em_clock;

/* Set the origin to now, after all ranks have met. Each rank asks rank 0 for its time again and again and keeps the answer
 * that was fastest; rank 0 read its clock somewhere between question and answer (Cristian 1989), so the error is half of
 * that. Collective. */
void em_clock_start(em_clock *clock, MPI_Comm comm);

/* The clock goes on after a run that took so many seconds of the same work; of the ranks' numbers the largest counts.
 * Collective. */
void em_clock_go_on(em_clock *clock, MPI_Comm comm, double seconds);

/* How far this rank's clock has gone ahead of rank 0's since em_clock_start; 0 where that is less than both measurements may be
 * off. Collective. */
double em_clock_drift(const em_clock *clock, MPI_Comm comm);

#ifdef __cplusplus
}
#endif
#endif
