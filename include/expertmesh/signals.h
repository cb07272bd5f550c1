/* expertmesh/signals.h: what a user, or a batch system, asks of a run by signals. The only place that handles them. No MPI.
 *
 * A signal may come at any time, again, and to some ranks only: it is noted here, and answered between two steps
 * (keeper.h), when the ranks have agreed on what was asked. */
#ifndef EXPERTMESH_SIGNALS_H
#define EXPERTMESH_SIGNALS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Bits. */
enum {
    EM_ASKED_SAVE = 1, /* USR1 */
    EM_ASKED_STOP = 2  /* USR2 or TERM: save and stop */
};

/* From now on USR1, USR2 and TERM do not end this process but are noted. */
void em_signals_catch(void);

/* What was asked since the last call. */
int em_signals_take(void);

#ifdef __cplusplus
}
#endif
#endif
