/* What the watchdog says: where a process stands in words, and who does not answer. */
#include "suite.h"

#include "expertmesh/standing.h"
#include "watchdog_report.h"

#include <stdio.h>
#include <string.h>

static const char *words(em_standing_text buffer)
{
    em_standing standing;
    em_standing_read(&standing);
    return em_standing_words(&standing, buffer);
}

static void a_place_in_words(void)
{
    em_standing_text text;
    em_stand(-1, NULL);
    em_wait(NULL);
    CU_ASSERT_STRING_EQUAL(words(text), "");
    em_wait("all ranks");
    CU_ASSERT_STRING_EQUAL(words(text), "waiting for all ranks");
    em_stand(0, "dispatch");
    CU_ASSERT_STRING_EQUAL(words(text), "layer 0, dispatch, waiting for all ranks");
    em_wait(NULL);
    CU_ASSERT_STRING_EQUAL(words(text), "layer 0, dispatch");
    em_stand(-1, "output");
    CU_ASSERT_STRING_EQUAL(words(text), "output");
    em_stand(-1, NULL);
}

static void rows_that_are_to_come(void)
{
    em_standing_text text;
    em_wait("rows");
    em_expect(3, 12);
    em_expect(0, 1);
    CU_ASSERT_STRING_EQUAL(words(text), "waiting for rows, for 12 rows of rank 3, for 1 rows of rank 0");
    em_expect(3, 5);
    CU_ASSERT_STRING_EQUAL(words(text), "waiting for rows, for 5 rows of rank 3, for 1 rows of rank 0");
    em_expect(3, 0);
    em_expect(7, 0);
    CU_ASSERT_STRING_EQUAL(words(text), "waiting for rows, for 1 rows of rank 0");
    for (int r = 1; r <= 2 * EM_MOST_EXPECTED; r++) em_expect(r, r); /* more than are kept */
    for (int r = 0; r <= 2 * EM_MOST_EXPECTED; r++) em_expect(r, 0);
    CU_ASSERT_STRING_EQUAL(words(text), "waiting for rows");
    em_wait(NULL);
}

static void whatever_is_said_beats(void)
{
    em_standing before, after;
    for (int i = 0; i < 4; i++) {
        em_standing_read(&before);
        if (i == 0) em_beat();
        if (i == 1) em_wait(NULL);
        if (i == 2) em_stand(-1, NULL);
        if (i == 3) em_expect(1, 0);
        em_standing_read(&after);
        CU_ASSERT_NOT_EQUAL(before.beats, after.beats);
    }
    em_standing_read(&before);
    CU_ASSERT_EQUAL(before.beats, after.beats);
}

static void a_phase_longer_than_its_room_is_cut(void)
{
    em_standing_text text;
    em_stand(1, "a phase whose name is far longer than anybody would give to one");
    em_wait("ranks whose names are far longer than anybody would give to them");
    CU_ASSERT_EQUAL(strncmp(words(text), "layer 1, a phase whose name is far", 33), 0);
    CU_ASSERT(strlen(words(text)) < sizeof text);
    em_stand(-1, NULL);
    em_wait(NULL);
}

/* Six ranks, two a host, heard `heard` seconds ago each (-1: never). */
static const char *report(const double *heard, const char *waits, char text[2000], size_t bytes)
{
    enum { P = 6 };
    static const char *const host[] = {"node1", "node2", "node3"};
    em_watched rank[P] = {0};
    for (int r = 0; r < P; r++) {
        snprintf(rank[r].host, sizeof rank[r].host, "%s", host[r / 2]);
        rank[r].process = 100 + r;
        rank[r].heard = heard[r] < 0 ? -1 : 1000 - heard[r];
        rank[r].standing = (em_standing){.layer = heard[r] == 0 ? 7 : 5, .rank = {-1, -1, -1, -1}};
        snprintf(rank[r].standing.phase, sizeof rank[r].standing.phase, "experts");
        if (waits && r != 4) snprintf(rank[r].standing.waits, sizeof rank[r].standing.waits, "%s", waits);
    }
    em_watchdog_report(P, rank, 1000, 995, 10, text, bytes);
    return text;
}

static void one_rank_is_silent(void)
{
    char text[2000];
    CU_ASSERT_STRING_EQUAL(
        report((double[]){0, 0, 0, 11.25, 0, 0}, NULL, text, sizeof text),
        "expertmesh: rank 3 on node2 does not answer, and no rank has moved for 10 s (--watchdog): the "
        "job ends\n"
        "  ranks 0-2,4-5: layer 7, experts\n"
        "  rank 3 on node2, process 103: last heard 11.2 s ago, at layer 5, experts\n");
}

static void hosts_are_silent(void)
{
    char text[2000];
    report((double[]){0, 0, 9, 9, -1, -1}, NULL, text, sizeof text);
    CU_ASSERT_PTR_EQUAL(strstr(text, "expertmesh: ranks 2-3 on node2 and ranks 4-5 on node3 do not answer, and"), text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\n  rank 5 on node3, process 105: never heard (does UDP pass from there?)\n"));
}

static void all_answer(void)
{
    char text[2000];
    double heard[6] = {0};
    report(heard, "all ranks", text, sizeof text);
    CU_ASSERT_PTR_EQUAL(strstr(text, "expertmesh: rank 4 answers, but is stuck in its own work, and no rank has moved"),
                        text);
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "\n  ranks 0-3,5: layer 7, experts, waiting for all ranks\n  rank 4: layer 7, experts\n"));
    report(heard, NULL, text, sizeof text);
    CU_ASSERT_PTR_EQUAL(strstr(text, "expertmesh: ranks 0-5 answer, but are stuck in their own work, and"), text);
}

static void a_report_ends_where_its_room_does(void)
{
    char whole[2000], text[2000];
    double heard[6] = {0, 11, 0, 12, -1, 0};
    size_t length = strlen(report(heard, "all ranks", whole, sizeof whole));
    for (size_t bytes = 1; bytes <= length + 2; bytes++) {
        memset(text, '#', sizeof text);
        report(heard, "all ranks", text, bytes);
        CU_ASSERT_EQUAL(strlen(text), bytes - 1 < length ? bytes - 1 : length);
        CU_ASSERT_EQUAL(strncmp(text, whole, strlen(text)), 0);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {{"a place in words", a_place_in_words},
                                       {"rows that are to come", rows_that_are_to_come},
                                       {"whatever is said beats", whatever_is_said_beats},
                                       {"a phase longer than its room is cut", a_phase_longer_than_its_room_is_cut},
                                       {"one rank is silent", one_rank_is_silent},
                                       {"hosts are silent", hosts_are_silent},
                                       {"all answer", all_answer},
                                       {"a report ends where its room does", a_report_ends_where_its_room_does},
                                       {NULL, NULL}};
    return suite_main(argc, argv, "watchdog", tests);
}
