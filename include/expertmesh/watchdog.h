/* expertmesh/watchdog.h: no silent hang. When nothing moves on any rank for so long, the job ends with a message that says
 * which ranks do not answer and where the others stand.
 *
 * Each rank has a thread that does nothing else and makes no MPI call until it ends the job. A few times a second it sends
 * its rank's standing (standing.h) in a datagram to two recorders: rank 0, and a rank of another host, or rank 1. A
 * recorder keeps what it hears. When no rank's beats have changed for the time that was asked, it tells, and ends the job;
 * the second recorder does so a little later, for the case that rank 0 is what stopped. A rank that neither moves nor hears
 * from a recorder ends itself, and so the job where there still is one: so do the ranks of a host that is cut off.
 *
 * Advantage: whoever is silent is known by name, also where the others wait for all; a rank that waits while another works
 * is well. Cost: a thread and a socket a rank, some datagrams a second (UDP over IPv4). Where these do not pass between
 * hosts, a rank of another host is named as never heard, and its long work is not seen. Time in which this process itself
 * was stopped counts as movement, so a job that is suspended and resumed goes on. */
#ifndef EXPERTMESH_WATCHDOG_H
#define EXPERTMESH_WATCHDOG_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Begin to watch the ranks of comm; seconds > 0. Once a process. Fails where no thread or socket can be had. Collective; the
 * status is agreed. */
bool em_watchdog_open(MPI_Comm comm, double seconds, em_status *status);

/* Watch no longer. Local; also where nothing was opened, and after MPI_Finalize. */
void em_watchdog_close(void);

#ifdef __cplusplus
}
#endif
#endif
