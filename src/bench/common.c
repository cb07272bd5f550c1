/* What all parts of bench use; declared in bench.h. */
#include "bench.h"

#include "expertmesh/standing.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void em_bench_say(const em_bench *bench, const char *format, ...)
{
    if (bench->rank != 0) return;
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

double em_bench_most(const em_bench *bench, double value)
{
    MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, bench->comm);
    return value;
}

double em_bench_sum(const em_bench *bench, double value)
{
    MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_SUM, bench->comm);
    return value;
}

double em_bench_start(const em_bench *bench)
{
    em_wait("all ranks");
    MPI_Barrier(bench->comm);
    em_wait(NULL);
    return MPI_Wtime();
}

double em_bench_stop(const em_bench *bench, double start)
{
    return em_bench_most(bench, MPI_Wtime() - start);
}

uint64_t em_bench_draw(em_bench *bench)
{
    uint64_t x = bench->draw;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    bench->draw = x;
    return x * UINT64_C(2685821657736338717);
}

void em_bench_inputs(em_bench *bench, int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = em_bench_draw(bench);
        x[i] = (bits & 1 ? 1.0F : -1.0F) * (0.5F + (float)(bits >> 40) * 0x1p-25F);
    }
}

em_batch em_bench_prompt(em_bench *bench, const em_config *config, int64_t tokens)
{
    em_batch batch = {0};
    em_status status = {0};
    char *text = em_alloc(tokens, 16), *end = text;
    for (int64_t t = 0; t < tokens; t++)
        end += snprintf(end, 16, "%d,", (int)(em_bench_draw(bench) % (uint64_t)config->vocab_size));
    end[-1] = '\0';
    MPI_Bcast(text, (int)tokens * 16, MPI_CHAR, 0, bench->comm);
    if (!em_batch_add_tokens(&batch, text, "the prompt", EM_INTERNAL, &status)) em_die("%s", status.text);
    free(text);
    return batch;
}

void *em_bench_memory(int64_t bytes)
{
    enum { HUGE = 2 << 20 };
    size_t size = ((size_t)bytes + HUGE - 1) / HUGE * HUGE;
    void *memory = aligned_alloc(HUGE, size);
    if (!memory) em_die("no memory for %lld bytes", (long long)bytes);
    madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

bool em_bench_computes(const em_bench *bench, em_compute compute)
{
    em_status status = {0};
    em_compute_here(compute, &status);
    return em_agree(bench->comm, &status);
}
