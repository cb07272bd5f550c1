/* Arrays read in place by the ranks of a host: who reads whose, growing, and what happens where memory cannot be had. */
#include "suite.h"

#include "expertmesh/shared.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char variable[] = "EXPERTMESH_RANKS_PER_HOST";

static em_shared *open_shared(void)
{
    em_status status = {0};
    em_shared *s = em_shared_open(MPI_COMM_WORLD, &status);
    CU_ASSERT_PTR_NOT_NULL(s);
    return s;
}

/* The ranks of a host, on one machine. */
static int ranks_per_host(void)
{
    const char *asked = getenv(variable);
    return asked ? atoi(asked) : suite_size();
}

static void neighbours_share_a_host(void)
{
    em_shared *s = open_shared();
    int n = ranks_per_host(), size = suite_size();
    for (int r = 0; r < size; r++) CU_ASSERT_EQUAL(s->readable[r], r / n == suite_rank() / n);
    CU_ASSERT_EQUAL(s->in_place, n > 1 && size > 1);
    CU_ASSERT_EQUAL(s->by_message, n < size);
    em_shared_close(s);
}

/* The same number of floats on every rank. */
static float *equal_room(em_shared *s, int64_t floats)
{
    int64_t *all = em_alloc(suite_size(), sizeof *all);
    for (int r = 0; r < suite_size(); r++) all[r] = floats;
    float *own = em_shared_room(s, 1, all);
    free(all);
    return own;
}

/* Floats of rank r's array in one round, and what stands there. */
static int64_t floats_of(int rank, int round)
{
    return (rank + round) % 3 == 0 ? 0 : 700 * round + 11 * rank;
}

static float element(int rank, int round, int64_t i)
{
    return (float)(rank * 1009 + round * 31 + i % 977);
}

static void arrays_grow_and_are_read(void)
{
    enum { ROUNDS = 12 };
    em_shared *s = open_shared();
    int64_t room = 0, *floats = em_alloc(suite_size(), sizeof *floats);
    for (int round = 0; round < ROUNDS; round++) {
        for (int r = 0; r < suite_size(); r++) floats[r] = floats_of(r, round);
        int64_t mine = floats[suite_rank()];
        float *own = em_shared_room(s, 1, floats);
        CU_ASSERT(s->room[suite_rank()] >= room && s->room[suite_rank()] >= mine);
        CU_ASSERT_EQUAL((uintptr_t)own % 64, 0);
        room = s->room[suite_rank()];
        for (int64_t i = 0; i < mine; i++) own[i] = element(suite_rank(), round, i);
        em_shared_publish(s);
        for (int r = 0; r < suite_size(); r++)
            for (int64_t i = 0; s->readable[r] && i < floats_of(r, round); i++)
                CU_ASSERT_EQUAL(s->array[r][i], element(r, round, i));
        MPI_Barrier(MPI_COMM_WORLD); /* all have read */
    }
    free(floats);
    em_shared_close(s);
}

static void an_array_that_is_large_enough_stays(void)
{
    em_shared *s = open_shared();
    float *own = equal_room(s, 5000);
    own[4999] = 7;
    CU_ASSERT_PTR_EQUAL(equal_room(s, 3), own);
    CU_ASSERT_PTR_EQUAL(equal_room(s, 0), own);
    CU_ASSERT_EQUAL(own[4999], 7);
    em_shared_close(s);
}

/* Two arrays that take turns need no waiting but that of the other: nobody sees a round too late or too early. */
static void arrays_take_turns(void)
{
    enum { FLOATS = 3000, ROUNDS = 60 };
    em_shared *turn[2] = {open_shared(), open_shared()};
    for (int round = 0; round < ROUNDS; round++) {
        em_shared *s = turn[round % 2];
        float *own = equal_room(s, FLOATS);
        for (int64_t i = 0; i < FLOATS; i++) own[i] = element(suite_rank(), round, i);
        em_shared_publish(s);
        int wrong = 0;
        for (int r = 0; r < suite_size(); r++)
            for (int64_t i = 0; s->readable[r] && i < FLOATS; i++) wrong += s->array[r][i] != element(r, round, i);
        CU_ASSERT_EQUAL(wrong, 0);
    }
    MPI_Barrier(MPI_COMM_WORLD); /* all have read */
    em_shared_close(turn[0]);
    em_shared_close(turn[1]);
}

/* Nothing that could be left behind: no memory of ours has a name, and no file stays open. */
static int open_files(void)
{
    int count = 0;
    for (int file = 0; file < 1024; file++) {
        char path[64], target[256] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "expertmesh")) count++;
    }
    return count;
}

static void no_file_stays_open(void)
{
    em_shared *s = open_shared();
    equal_room(s, 100);
    CU_ASSERT_EQUAL(open_files(), 0);
    em_shared_close(s);
}

/* The last rank may make no file larger than a page, so its memory cannot be had: all go by messages, also later. */
static void where_one_rank_cannot_share_none_does(void)
{
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    em_shared *s = open_shared();
    if (suite_rank() == suite_size() - 1) setrlimit(RLIMIT_FSIZE, &small);
    for (int times = 1; times <= 2; times++) {
        float *own = equal_room(s, (int64_t)times << 20);
        for (int64_t i = 0; i < 1 << 20; i++) own[i] = (float)times;
        for (int r = 0; r < suite_size(); r++) CU_ASSERT_EQUAL(s->readable[r], r == suite_rank());
        CU_ASSERT_PTR_EQUAL(s->array[suite_rank()], own);
        CU_ASSERT_EQUAL(s->in_place, false);
        CU_ASSERT_EQUAL(s->by_message, suite_size() > 1);
        em_shared_publish(s);
    }
    setrlimit(RLIMIT_FSIZE, &before);
    em_shared_close(s);
}

/* Wrong on the last rank alone, yet told on all. */
static void a_wrong_number_of_ranks_is_refused(void)
{
    static const char *const wrong[] = {"", "0", "-1", "two", "2 ", "1.5", "0x2"};
    const char *before = getenv(variable);
    char *kept = before ? em_text("%s", before) : NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        em_status status = {0};
        if (suite_rank() == suite_size() - 1) setenv(variable, wrong[i], 1);
        CU_ASSERT_PTR_NULL(em_shared_open(MPI_COMM_WORLD, &status));
        CU_ASSERT_EQUAL(status.code, EM_USAGE);
        CU_ASSERT_PTR_NOT_NULL(strstr(status.text, variable));
        if (kept)
            setenv(variable, kept, 1);
        else
            unsetenv(variable);
    }
    free(kept);
}

/* The last rank alone asks for single ranks: all have them. A number beyond all ranks is as good as none. */
static void the_least_number_counts(void)
{
    const char *before = getenv(variable);
    char *kept = before ? em_text("%s", before) : NULL;
    setenv(variable, suite_rank() == suite_size() - 1 ? "1" : "99999999999999999999", 1);
    em_shared *s = open_shared();
    CU_ASSERT_EQUAL(s->host_size, 1);
    em_shared_close(s);
    setenv(variable, "99999999999999999999", 1);
    s = open_shared();
    CU_ASSERT_EQUAL(s->host_size, suite_size());
    em_shared_close(s);
    if (kept)
        setenv(variable, kept, 1);
    else
        unsetenv(variable);
    free(kept);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"neighbours share a host", neighbours_share_a_host},
        {"arrays grow and are read", arrays_grow_and_are_read},
        {"an array that is large enough stays", an_array_that_is_large_enough_stays},
        {"arrays take turns", arrays_take_turns},
        {"no file stays open", no_file_stays_open},
        {"where one rank cannot share, none does", where_one_rank_cannot_share_none_does},
        {"a wrong number of ranks is refused", a_wrong_number_of_ranks_is_refused},
        {"the least number counts", the_least_number_counts},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "shared", tests);
}
