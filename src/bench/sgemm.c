/* The rate of a BLAS, where the machine has one: OpenBLAS, loaded while it is asked; declared in bench.h. */
#include "bench.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

/* The constants of cblas.h. */
enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm_call(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc);
typedef void threads_call(int count);

typedef struct blas {
    void *handle;
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

/* All ranks have it, or none uses it. Closed after each use: its buffers would count in a model's peak of memory. */
static blas open_blas(const em_bench *bench)
{
    static bool missed;
    name_the_processor();
    blas b = {.handle = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL)};
    if (b.handle) {
        /* POSIX lets a function be found as an object (dlsym) */
        *(void **)&b.sgemm = dlsym(b.handle, "cblas_sgemm");
        *(void **)&b.use_threads = dlsym(b.handle, "openblas_set_num_threads");
    }
    int found = b.sgemm && b.use_threads;
    MPI_Allreduce(MPI_IN_PLACE, &found, 1, MPI_INT, MPI_MIN, bench->comm);
    if (found) return b;
    if (!missed)
        em_bench_say(bench, "libopenblas.so.0 is not here (Debian: libopenblas0-pthread): there is no sgemm to compare "
                            "with");
    missed = true;
    if (b.handle) dlclose(b.handle);
    return (blas){0};
}

double em_probe_sgemm(em_bench *bench, int64_t T, int64_t N, int64_t K)
{
    enum { PASSES = 4 };
    if (N > INT32_MAX || K > INT32_MAX) return (double)NAN;
    blas b = open_blas(bench);
    if (!b.sgemm) return (double)NAN;
    float *x = em_bench_memory(T * K * (int64_t)sizeof(float)), *y = em_bench_memory(T * N * (int64_t)sizeof(float));
    float *w = em_bench_memory(N * K * (int64_t)sizeof(float)), factor = (float)(1 + em_bench_draw(bench) % 7);
    double least = 0;
    em_bench_inputs(bench, T * K, x);
    for (int64_t i = 0; i < N * K; i++) w[i] = x[i % (T * K)] * factor;
    b.use_threads(bench->threads);
    for (int pass = 0; pass < PASSES; pass++) {
        double start = em_bench_start(bench);
        b.sgemm(ROW_MAJOR, AS_IT_IS, TRANSPOSED, (int)T, (int)N, (int)K, 1, x, (int)K, w, (int)K, 0, y, (int)N);
        double seconds = em_bench_stop(bench, start);
        if (pass == 0 || seconds < least) least = seconds;
    }
    free(x);
    free(y);
    free(w);
    dlclose(b.handle);
    return 2.0 * (double)T * (double)N * (double)K * bench->num_ranks / least;
}
