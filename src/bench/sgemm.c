/* The rate of a BLAS, where the machine has one: OpenBLAS, loaded when it is first asked for; declared in bench.h. */
#include "bench.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* The constants of cblas.h. */
enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm_call(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc);
typedef void threads_call(int count);

typedef struct blas {
    bool asked;
    sgemm_call *sgemm; /* NULL: not here */
    threads_call *use_threads;
} blas;

/* OpenBLAS 0.3.21 takes processors newer than itself for older ones, at half their rate. */
static void name_the_processor(void)
{
#ifdef EM_TILES_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 0);
#endif
}

/* All ranks have it, or none uses it. */
static const blas *blas_here(const em_bench *bench)
{
    static blas here;
    if (here.asked) return &here;
    here.asked = true;
    name_the_processor();
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library) {
        /* POSIX lets a function be found as an object (dlsym) */
        *(void **)&here.sgemm = dlsym(library, "cblas_sgemm");
        *(void **)&here.use_threads = dlsym(library, "openblas_set_num_threads");
    }
    int found = here.sgemm && here.use_threads;
    MPI_Allreduce(MPI_IN_PLACE, &found, 1, MPI_INT, MPI_MIN, bench->comm);
    if (!found) {
        here.sgemm = NULL;
        em_bench_say(bench, "libopenblas.so.0 is not here (Debian: libopenblas0-pthread): there is no sgemm to compare "
                            "with");
    }
    return &here;
}

double em_probe_sgemm(em_bench *bench, int64_t T, int64_t N, int64_t K)
{
    enum { PASSES = 4, AFTER_SPINNING = 60000 }; /* us until its threads have gone to sleep */
    const blas *b = blas_here(bench);
    if (!b->sgemm || N > INT32_MAX || K > INT32_MAX) return (double)NAN;
    float *x = em_bench_memory(T * K * (int64_t)sizeof(float)), *y = em_bench_memory(T * N * (int64_t)sizeof(float));
    float *w = em_bench_memory(N * K * (int64_t)sizeof(float)), factor = (float)(1 + em_bench_draw(bench) % 7);
    double least = 0;
    em_bench_inputs(bench, T * K, x);
    for (int64_t i = 0; i < N * K; i++) w[i] = x[i % (T * K)] * factor;
    b->use_threads(bench->threads);
    for (int pass = 0; pass < PASSES; pass++) {
        double start = em_bench_start(bench);
        b->sgemm(ROW_MAJOR, AS_IT_IS, TRANSPOSED, (int)T, (int)N, (int)K, 1, x, (int)K, w, (int)K, 0, y, (int)N);
        double seconds = em_bench_stop(bench, start);
        if (pass == 0 || seconds < least) least = seconds;
    }
    free(x);
    free(y);
    free(w);
    if (bench->threads > 1) usleep(AFTER_SPINNING);
    return 2.0 * (double)T * (double)N * (double)K * bench->num_ranks / least;
}
