#include "expertmesh/clock.h"

#include <math.h>

/* This rank's clock minus rank 0's; error: half the time of the fastest answer. Collective. */
static double measure(MPI_Comm comm, double *error)
{
    enum { QUESTIONS = 16 };
    int rank, size;
    double ahead = 0;
    *error = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    for (int i = 0; rank == 0 && i < (size - 1) * QUESTIONS; i++) { /* whoever asks */
        MPI_Status from;
        MPI_Recv(NULL, 0, MPI_DOUBLE, MPI_ANY_SOURCE, 0, comm, &from);
        double now = MPI_Wtime();
        MPI_Send(&now, 1, MPI_DOUBLE, from.MPI_SOURCE, 0, comm);
    }
    for (int i = 0; rank > 0 && i < QUESTIONS; i++) {
        double asked = MPI_Wtime(), theirs;
        MPI_Send(NULL, 0, MPI_DOUBLE, 0, 0, comm);
        MPI_Recv(&theirs, 1, MPI_DOUBLE, 0, 0, comm, MPI_STATUS_IGNORE);
        double half = (MPI_Wtime() - asked) / 2;
        if (i > 0 && half >= *error) continue;
        *error = half;
        ahead = asked + half - theirs;
    }
    return ahead;
}

void em_clock_start(em_clock *clock, MPI_Comm comm)
{
    MPI_Barrier(comm);
    double ahead = measure(comm, &clock->error), origin = MPI_Wtime();
    MPI_Bcast(&origin, 1, MPI_DOUBLE, 0, comm);
    clock->origin = origin + ahead;
}

void em_clock_go_on(em_clock *clock, MPI_Comm comm, double seconds)
{
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, comm);
    clock->origin -= seconds;
}

double em_clock_drift(const em_clock *clock, MPI_Comm comm)
{
    double error, ahead = measure(comm, &error), origin = clock->origin;
    MPI_Bcast(&origin, 1, MPI_DOUBLE, 0, comm);
    double drift = ahead - (clock->origin - origin);
    return fabs(drift) > clock->error + error ? drift : 0;
}
