/* suite.h: a CUnit suite as a program of its own, on one rank or on several.
 *
 * Every rank runs every test. Use the non-fatal assertions only: one that leaves a test on one rank would hang the others.
 * Rank 0 prints the summary; a rank where something failed prints what; the exit code is the same on all ranks. */
#ifndef EXPERTMESH_SUITE_H
#define EXPERTMESH_SUITE_H

#include <CUnit/CUnit.h>
#include <mpi.h>

typedef struct suite_test {
    const char *name;
    void (*run)(void);
} suite_test;

/* Run the tests of a suite, up to the one without a name. Starts and ends MPI. Returns the exit code. */
int suite_main(int argc, char **argv, const char *name, const suite_test *tests);

/* The rank of this process, and how many there are. */
int suite_rank(void);
int suite_size(void);

#endif
