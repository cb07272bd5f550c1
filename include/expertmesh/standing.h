/* expertmesh/standing.h: where this process stands, and that it moves. No MPI.
 *
 * The main thread says where it stands and for whom it waits, every thread that works beats now and then, and the watchdog
 * and em_die read it. There is no lock: what is read while it changes may be half old, which harms no message. One process,
 * one place: with the watchdog the only state of this library that is not passed along. */
#ifndef EXPERTMESH_STANDING_H
#define EXPERTMESH_STANDING_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* This process stands at a layer (-1: none) in a phase in words (borrowed, a literal; NULL: none in particular). Beats. */
void em_stand(int layer, const char *phase);

/* This process moves. From any thread, as often as every few microseconds: long work calls it from within. */
void em_beat(void);

/* From here on the main thread waits for others: in words (borrowed, a literal), as "all ranks"; NULL: no longer. Beats. */
void em_wait(const char *for_whom);

/* Rows that are still to come from a rank; 0: all are here. Beats. The main thread's; only the first few ranks are kept. */
void em_expect(int rank, int64_t rows);

enum { EM_MOST_EXPECTED = 4 };

/* All that was said, copied: plain memory, which may be sent. */
typedef struct em_standing {
    uint64_t beats; /* changes whenever the process moves */
    int64_t rows[EM_MOST_EXPECTED];
    int32_t rank[EM_MOST_EXPECTED]; /* -1: unused */
    int32_t layer;
    char phase[32], waits[32]; /* "": none */
} em_standing;

void em_standing_read(em_standing *standing);

/* In words: "layer 3, experts" or "layer 3, dispatch, waiting for all ranks, for 12 rows of rank 2"; "" where nothing was
 * said. */
typedef char em_standing_text[256];
const char *em_standing_words(const em_standing *standing, em_standing_text buffer);

#ifdef __cplusplus
}
#endif
#endif
