#include "suite.h"

#include <CUnit/TestRun.h>
#include <stdio.h>

int suite_rank(void)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

int suite_size(void)
{
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

static void print_failures(void)
{
    for (CU_pFailureRecord f = CU_get_failure_list(); f; f = f->pNext)
        printf("rank %d: %s: %s:%u: %s\n", suite_rank(), f->pTest ? f->pTest->pName : "suite", f->strFileName,
               f->uiLineNumber, f->strCondition);
}

int suite_main(int argc, char **argv, const char *name, const suite_test *tests)
{
    int threads;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads);
    CU_initialize_registry();
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);
    int count = 0;
    for (; tests[count].name; count++) CU_add_test(suite, tests[count].name, tests[count].run);
    CU_run_all_tests();
    print_failures();
    unsigned failed = CU_get_number_of_failures(), asserts = CU_get_number_of_asserts();
    fflush(stdout);
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_UNSIGNED, MPI_SUM, MPI_COMM_WORLD);
    if (suite_rank() == 0)
        printf("%s: %d tests, %u assertions on rank 0 of %d, %u failures on all\n", name, count, asserts, suite_size(),
               failed);
    CU_cleanup_registry();
    MPI_Finalize();
    return failed > 0;
}
