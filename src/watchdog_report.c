#include "watchdog_report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text that is cut off where its room ends. */
typedef struct page {
    char *text;
    size_t bytes, used;
} page;

static void add(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(page *p, const char *format, ...)
{
    va_list args;
    if (p->used + 1 >= p->bytes) return;
    va_start(args, format);
    int length = vsnprintf(p->text + p->used, p->bytes - p->used, format, args);
    va_end(args);
    p->used += (size_t)length < p->bytes - p->used ? (size_t)length : p->bytes - p->used - 1;
}

/* Ranks with one mark, in words: "rank 2", "ranks 0-1,3". */
static void add_ranks(page *p, int num_ranks, const int *mark, int wanted)
{
    int count = 0;
    const char *between = "";
    for (int r = 0; r < num_ranks; r++) count += mark[r] == wanted;
    add(p, count == 1 ? "rank " : "ranks ");
    for (int r = 0, end; r < num_ranks; r = end) {
        end = r + 1;
        if (mark[r] != wanted) continue;
        while (end < num_ranks && mark[end] == wanted) end++;
        add(p, end - r == 1 ? "%s%d" : "%s%d-%d", between, r, end - 1);
        between = ",";
    }
}

static bool is_silent(const em_watched *rank, double since)
{
    return rank->heard < since;
}

/* Marks the ranks that say the same as one does, and are not marked yet, with its number. */
typedef bool alike(const em_watched *a, const em_watched *b, double since);
static void mark_alike(int num_ranks, const em_watched *rank, int which, alike *same, double since, int *mark)
{
    for (int r = which; r < num_ranks; r++)
        if (mark[r] < 0 && same(&rank[which], &rank[r], since)) mark[r] = which;
}

static bool silent_on_one_host(const em_watched *a, const em_watched *b, double since)
{
    return is_silent(a, since) && is_silent(b, since) && strcmp(a->host, b->host) == 0;
}

static bool stand_alike(const em_watched *a, const em_watched *b, double since)
{
    em_standing_text x, y;
    return !is_silent(a, since) && !is_silent(b, since) &&
           strcmp(em_standing_words(&a->standing, x), em_standing_words(&b->standing, y)) == 0;
}

static void forget_marks(int num_ranks, int *mark)
{
    for (int r = 0; r < num_ranks; r++) mark[r] = -1;
}

/* "rank 2 on node2 and ranks 4-5 on node3 do not answer". */
static void add_silent(page *p, int num_ranks, const em_watched *rank, double since, int silent, int *mark)
{
    bool first = true;
    forget_marks(num_ranks, mark);
    for (int r = 0; r < num_ranks; r++) {
        if (mark[r] >= 0 || !is_silent(&rank[r], since)) continue;
        mark_alike(num_ranks, rank, r, silent_on_one_host, since, mark);
        if (!first) add(p, " and ");
        first = false;
        add_ranks(p, num_ranks, mark, r);
        add(p, " on %s", rank[r].host);
    }
    add(p, silent == 1 ? " does not answer" : " do not answer");
}

/* Who works, where all answer: what hangs there. */
static void add_busy(page *p, int num_ranks, const em_watched *rank, int *mark)
{
    int busy = 0;
    for (int r = 0; r < num_ranks; r++) busy += mark[r] = rank[r].standing.waits[0] == '\0';
    if (busy == 0) {
        add(p, "every rank waits for others");
        return;
    }
    add_ranks(p, num_ranks, mark, 1);
    add(p, busy == 1 ? " answers, but is stuck in its own work" : " answer, but are stuck in their own work");
}

static void add_places(page *p, int num_ranks, const em_watched *rank, double now, double since, int *mark)
{
    em_standing_text words;
    forget_marks(num_ranks, mark);
    for (int r = 0; r < num_ranks; r++) {
        const char *place = em_standing_words(&rank[r].standing, words);
        if (mark[r] >= 0) continue;
        if (is_silent(&rank[r], since)) {
            add(p, "\n  rank %d on %s, process %d: ", r, rank[r].host, rank[r].process);
            if (rank[r].heard < 0)
                add(p, "never heard (does UDP pass from there?)");
            else
                add(p, "last heard %.1f s ago%s%s", now - rank[r].heard, place[0] ? ", at " : "", place);
            continue;
        }
        mark_alike(num_ranks, rank, r, stand_alike, since, mark);
        add(p, "\n  ");
        add_ranks(p, num_ranks, mark, r);
        add(p, ": %s", place[0] ? place : "nowhere in particular");
    }
}

void em_watchdog_report(int num_ranks, const em_watched *rank, double now, double since, double limit, char *text,
                        size_t bytes)
{
    page p = {text, bytes, 0};
    text[0] = '\0';
    int *mark = malloc((size_t)num_ranks * sizeof *mark), silent = 0;
    if (!mark) {
        add(&p, "expertmesh: no rank has moved for %g s (--watchdog): the job ends\n", limit);
        return;
    }
    for (int r = 0; r < num_ranks; r++) silent += is_silent(&rank[r], since);
    add(&p, "expertmesh: ");
    if (silent > 0)
        add_silent(&p, num_ranks, rank, since, silent, mark);
    else
        add_busy(&p, num_ranks, rank, mark);
    add(&p, ", and no rank has moved for %g s (--watchdog): the job ends", limit);
    add_places(&p, num_ranks, rank, now, since, mark);
    add(&p, "\n");
    free(mark);
}
