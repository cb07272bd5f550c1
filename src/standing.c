#include "expertmesh/standing.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

static struct {
    atomic_uint_fast64_t beats;
    atomic_int layer;
    _Atomic(const char *) phase;
    _Atomic(const char *) waits;
    struct {
        atomic_int after; /* the rank, and one: 0 is nobody */
        atomic_int_fast64_t rows;
    } expected[EM_MOST_EXPECTED];
} here = {.layer = -1};

/* Beats of two threads at once may count as one: it is enough that they change the number. */
void em_beat(void)
{
    uint_fast64_t beats = atomic_load_explicit(&here.beats, memory_order_relaxed);
    atomic_store_explicit(&here.beats, beats + 1, memory_order_relaxed);
}

void em_stand(int layer, const char *phase)
{
    atomic_store_explicit(&here.layer, layer, memory_order_relaxed);
    atomic_store_explicit(&here.phase, phase, memory_order_relaxed);
    em_beat();
}

void em_wait(const char *for_whom)
{
    atomic_store_explicit(&here.waits, for_whom, memory_order_relaxed);
    em_beat();
}

void em_expect(int rank, int64_t rows)
{
    int empty = -1, place = -1;
    for (int i = EM_MOST_EXPECTED - 1; i >= 0; i--) {
        int after = atomic_load_explicit(&here.expected[i].after, memory_order_relaxed);
        if (after == rank + 1) place = i;
        if (after == 0) empty = i;
    }
    em_beat();
    if (place < 0) place = rows > 0 ? empty : -1;
    if (place < 0) return;
    atomic_store_explicit(&here.expected[place].rows, rows, memory_order_relaxed);
    atomic_store_explicit(&here.expected[place].after, rows > 0 ? rank + 1 : 0, memory_order_relaxed);
}

void em_standing_read(em_standing *standing)
{
    const char *phase = atomic_load_explicit(&here.phase, memory_order_relaxed);
    const char *waits = atomic_load_explicit(&here.waits, memory_order_relaxed);
    *standing = (em_standing){.beats = atomic_load_explicit(&here.beats, memory_order_relaxed),
                              .layer = atomic_load_explicit(&here.layer, memory_order_relaxed)};
    snprintf(standing->phase, sizeof standing->phase, "%s", phase ? phase : "");
    snprintf(standing->waits, sizeof standing->waits, "%s", waits ? waits : "");
    for (int i = 0; i < EM_MOST_EXPECTED; i++) {
        standing->rank[i] = atomic_load_explicit(&here.expected[i].after, memory_order_relaxed) - 1;
        standing->rows[i] = atomic_load_explicit(&here.expected[i].rows, memory_order_relaxed);
    }
}

const char *em_standing_words(const em_standing *standing, em_standing_text buffer)
{
    size_t size = sizeof(em_standing_text), used = 0;
    const char *between = "";
    buffer[0] = '\0';
    if (standing->layer >= 0) {
        used += (size_t)snprintf(buffer, size, "layer %d", standing->layer);
        between = ", ";
    }
    if (standing->phase[0]) {
        used += (size_t)snprintf(buffer + used, size - used, "%s%s", between, standing->phase);
        between = ", ";
    }
    if (standing->waits[0])
        used += (size_t)snprintf(buffer + used, size - used, "%swaiting for %s", between, standing->waits);
    for (int i = 0; i < EM_MOST_EXPECTED && standing->waits[0]; i++)
        if (standing->rank[i] >= 0)
            used += (size_t)snprintf(buffer + used, size - used, ", for %lld rows of rank %d",
                                     (long long)standing->rows[i], standing->rank[i]);
    return buffer;
}
