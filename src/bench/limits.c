/* What this machine can do at most: reading memory, multiplying in registers; declared in bench.h. */
#include "bench.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- the loops, once for each width of registers ---- */

typedef uint64_t words __attribute__((vector_size(64)));

enum { STREAMS = 4, AHEAD = 32, CHAINS = 12 };

/* Read count words, and ask for those `ahead` of them; several loads in flight, no sum waits for the one before. */
#define READ_LOOP                                                                             \
    words a = {0}, b = {0}, c = {0}, d = {0};                                                 \
    for (int64_t i = 0; i + STREAMS <= count; i += STREAMS) {                                 \
        for (int j = 0; ahead > 0 && j < STREAMS; j++) __builtin_prefetch(x + i + ahead + j); \
        a ^= x[i];                                                                            \
        b ^= x[i + 1];                                                                        \
        c ^= x[i + 2];                                                                        \
        d ^= x[i + 3];                                                                        \
    }                                                                                         \
    a ^= b ^ c ^ d;                                                                           \
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];

/* Chains of x = x f + g, which end near 1; as many as hide an addition's latency behind two units. */
#define MULTIPLY_LOOP(lanes)                                        \
    typedef float floats __attribute__((vector_size(4 * (lanes)))); \
    floats x[CHAINS], f, g;                                         \
    float sum = 0;                                                  \
    for (int j = 0; j < (lanes); j++) {                             \
        f[j] = factor;                                              \
        g[j] = 1 - factor;                                          \
    }                                                               \
    for (int j = 0; j < CHAINS; j++) x[j] = f * (float)(j + 1);     \
    for (int64_t i = 0; i < count; i++)                             \
        for (int j = 0; j < CHAINS; j++) x[j] = x[j] * f + g;       \
    for (int j = 1; j < CHAINS; j++) x[0] += x[j];                  \
    for (int j = 0; j < (lanes); j++) sum += x[0][j];               \
    return sum;

typedef uint64_t read_loop(const words *x, int64_t count, int64_t ahead);
typedef float multiply_loop(int64_t count, float factor);

static uint64_t read_plain(const words *x, int64_t count, int64_t ahead)
{
    READ_LOOP
}

static float multiply_plain(int64_t count, float factor)
{
    MULTIPLY_LOOP(4)
}

#ifdef EM_TILES_X86
__attribute__((target("avx2,fma"))) static uint64_t read_avx2(const words *x, int64_t count, int64_t ahead)
{
    READ_LOOP
}

__attribute__((target("avx2,fma"))) static float multiply_avx2(int64_t count, float factor)
{
    MULTIPLY_LOOP(8)
}

__attribute__((target("avx512f"))) static uint64_t read_avx512(const words *x, int64_t count, int64_t ahead)
{
    READ_LOOP
}

__attribute__((target("avx512f"))) static float multiply_avx512(int64_t count, float factor)
{
    MULTIPLY_LOOP(16)
}
#endif

/* Those of the set that products use here. */
typedef struct probe {
    read_loop *read;
    multiply_loop *multiply;
    int lanes;
} probe;

static probe probe_here(void)
{
    em_isa isa;
    em_status ignored = {0};
    em_isa_choose(&isa, &ignored);
#ifdef EM_TILES_X86
    if (isa >= EM_ISA_AVX512) return (probe){read_avx512, multiply_avx512, 16};
    if (isa == EM_ISA_AVX2) return (probe){read_avx2, multiply_avx2, 8};
#endif
    return (probe){read_plain, multiply_plain, 4};
}

static volatile uint64_t sink; /* what was computed is used */

/* ---- the probes ---- */

/* Bytes a second. */
typedef struct reading {
    double together;      /* all cores, each its share, as long as the slowest takes: the best of some passes */
    double slowest, mean; /* of the single cores; of all passes */
} reading;

static reading read_memory(em_bench *bench)
{
    enum { PASSES = 6 };
    probe p = probe_here();
    int64_t share = bench->memory / bench->num_ranks / bench->threads / (int64_t)sizeof(words) / STREAMS * STREAMS;
    if (share < STREAMS) share = STREAMS;
    words *memory = em_bench_memory((bench->threads * share + AHEAD + STREAMS) * (int64_t)sizeof(words));
    double bytes = (double)share * sizeof(words), cores = (double)bench->num_ranks * bench->threads;
    reading r = {0};
    for (int pass = 0; pass <= PASSES; pass++) {
        double rates = 0, longest = 0, start = em_bench_start(bench);
#pragma omp parallel num_threads(bench->threads) reduction(+ : rates) reduction(max : longest)
        {
            words *mine = memory + omp_get_thread_num() * share;
            double begun = omp_get_wtime();
            if (pass == 0) /* each thread's part beside it */
                memset(mine, 1, (size_t)share * sizeof(words));
            else
                sink = p.read(mine, share, pass % 2 == 0 ? AHEAD : 0);
            longest = omp_get_wtime() - begun;
            rates = bytes / longest;
        }
        double together = cores * bytes / em_bench_stop(bench, start);
        longest = em_bench_most(bench, longest);
        rates = em_bench_sum(bench, rates);
        if (pass == 0) continue;
        if (together > r.together) r.together = together;
        r.slowest += bytes / longest / PASSES;
        r.mean += rates / cores / PASSES;
    }
    free(memory);
    return r;
}

double em_probe_read(em_bench *bench)
{
    return read_memory(bench).together;
}

double em_probe_multiply(em_bench *bench)
{
    enum { PASSES = 5, STEPS = 4000000 };
    probe p = probe_here();
    double least = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        double start = em_bench_start(bench);
#pragma omp parallel num_threads(bench->threads)
        sink = (uint64_t)p.multiply(STEPS, 0.75F);
        double seconds = em_bench_stop(bench, start);
        if (pass == 0 || seconds < least) least = seconds;
    }
    return 2.0 * STEPS * CHAINS * p.lanes * bench->threads * bench->num_ranks / least;
}

void em_bench_limits(em_bench *bench)
{
    em_series read = {.count = 0}, slowest = {.count = 0}, mean = {.count = 0}, multiply = {.count = 0};
    em_bench_say(bench, "limits");
    for (int run = 0; run < bench->runs; run++) {
        reading r = read_memory(bench);
        em_series_add(&read, r.together / 1e9);
        em_series_add(&slowest, r.slowest / 1e9);
        em_series_add(&mean, r.mean / 1e9);
        em_series_add(&multiply, em_probe_multiply(bench) / 1e9);
    }
    const char *group = em_bench_groups[EM_BENCH_LIMITS];
    em_figures_add(&bench->figures, group, "GB/s", &read, "read memory");
    em_figure *core = em_figures_add(&bench->figures, group, "GB/s", &slowest, "read memory, the slowest core");
    em_figure_limit(core, em_series_median(&mean), "mean of cores");
    em_figures_add(&bench->figures, group, "GFLOP/s", &multiply, "multiply and add in registers, f32");
    const em_shapes shapes = em_shapes_of(&bench->config);
    for (int s = 0; s < shapes.count; s++) {
        em_series rate = {.count = 0};
        for (int run = 0; run < bench->runs; run++)
            em_series_add(&rate, em_probe_sgemm(bench, EM_ROW_BLOCK, shapes.shape[s].rows * shapes.shape[s].matrices,
                                                shapes.shape[s].cols) /
                                     1e9);
        if (!(em_series_median(&rate) > 0)) continue;
        em_figure *figure = em_figures_add(&bench->figures, group, "GFLOP/s", &rate, "sgemm, %s, %d rows",
                                           shapes.shape[s].what, EM_ROW_BLOCK);
        em_figure_limit(figure, em_series_best(&multiply), "multiply");
    }
}
