/* bench.h: what the parts of `expertmesh bench` share: what is asked for, the list of figures, the probes.
 *
 * A figure is a rate (or a time) of all ranks together, the median of several runs, beside its limit: what this machine
 * does when it does nothing else, measured in the same run. Each run begins on all ranks at once and lasts as long as its
 * slowest rank. Every rank holds the same list. */
#ifndef EXPERTMESH_BENCH_H
#define EXPERTMESH_BENCH_H

#include "../layout_options.h"

#include "expertmesh/model.h"

#include <stdio.h>

/* ---- figures ---- */

enum { EM_MOST_RUNS = 99 };

/* What the runs of one measurement found. */
typedef struct em_series {
    double value[EM_MOST_RUNS];
    int count;
} em_series;

void em_series_add(em_series *series, double value);
double em_series_median(const em_series *series);
double em_series_best(const em_series *series);   /* the largest: what a limit is, of probed rates */
double em_series_spread(const em_series *series); /* largest - smallest, as a part of the median */

typedef struct em_figure {
    const char *group; /* a literal, as the others */
    char what[120];
    const char *unit;
    double value, spread; /* the median */
    int runs;
    double limit;        /* NAN: none */
    const char *against; /* what the limit is; NULL: none */
    double target;       /* of value / limit; NAN: none */
    bool at_most;        /* the target: at most, not at least */
} em_figure;

typedef struct em_figures {
    em_figure *figure;
    int count, room;
} em_figures;

/* Add one. What is returned holds until the next is added. */
em_figure *em_figures_add(em_figures *figures, const char *group, const char *unit, const em_series *series,
                          const char *what, ...) __attribute__((format(printf, 5, 6)));
void em_figure_limit(em_figure *figure, double limit, const char *against);
void em_figure_target(em_figure *figure, double target, bool at_most);
void em_figures_free(em_figures *figures);

/* All of them, with the same columns and the same digits. */
void em_figures_table(const em_figures *figures, FILE *out);
void em_figures_csv(const em_figures *figures, FILE *out);
/* In an object that also says what machine and run they are of. */
void em_figures_json(const em_figures *figures, int ranks, int threads, FILE *out);

/* The processor's name, as the system has it; and the time in UTC. Local. */
typedef char em_machine_text[128];
const char *em_processor(em_machine_text text);
const char *em_now(em_machine_text text);

/* ---- one call ---- */

typedef enum em_bench_group {
    EM_BENCH_LIMITS,
    EM_BENCH_PRODUCTS,
    EM_BENCH_MODEL,
    EM_BENCH_EXCHANGE,
    EM_BENCH_FILES,
    EM_NUM_BENCH_GROUPS
} em_bench_group;

extern const char *const em_bench_groups[EM_NUM_BENCH_GROUPS];

typedef struct em_bench {
    MPI_Comm comm; /* borrowed */
    int rank, num_ranks, threads;
    em_config config;
    uint64_t seed;                  /* of the weights */
    bool storages[EM_NUM_STORAGES]; /* to be measured */
    bool groups[EM_NUM_BENCH_GROUPS];
    bool aimed; /* at Grok-1's width: the targets hold */
    int runs;
    int64_t tokens, generated; /* of a prompt; after it */
    int64_t memory;            /* bytes that all ranks read together, so that they come from memory */
    const char *folder;        /* for files */
    em_layout_kind layout;     /* of models */
    em_places places;          /* of the ranks */
    uint64_t draw;             /* state of the generator of inputs; differs between calls and ranks */
    em_figures figures;
} em_bench;

/* Tell what is done, on rank 0. */
void em_bench_say(const em_bench *bench, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All ranks begin now; the seconds that the slowest took. Collective. */
double em_bench_start(const em_bench *bench);
double em_bench_stop(const em_bench *bench, double start);
double em_bench_most(const em_bench *bench, double value);
double em_bench_sum(const em_bench *bench, double value);

/* Inputs: 64 random bits (xorshift64*, Vigna 2016); count numbers of a size in [0.5, 1), of either sign. */
uint64_t em_bench_draw(em_bench *bench);
void em_bench_inputs(em_bench *bench, int64_t count, float *x);
/* Random tokens of a model, as one prompt; on all ranks the same. Collective. */
em_batch em_bench_prompt(em_bench *bench, const em_config *config, int64_t tokens);

/* Can all ranks compute so? Collective. */
bool em_bench_computes(const em_bench *bench, em_compute compute);

/* Memory in huge pages where the system gives them. Freed with free. */
void *em_bench_memory(int64_t bytes);

/* ---- the limits; all collective, of all ranks together ---- */

double em_probe_read(em_bench *bench);     /* bytes a second from memory */
double em_probe_multiply(em_bench *bench); /* float32 operations a second, in registers */
/* Operations a second of the best BLAS that is here: y [T, N] = x [T, K] w [N, K]'. NAN where there is none. */
double em_probe_sgemm(em_bench *bench, int64_t T, int64_t N, int64_t K);

/* ---- the products of a layer ---- */

/* Matrices [rows, cols] that read the same inputs in one call. */
typedef struct em_shape {
    const char *what;
    int64_t matrices, rows, cols;
} em_shape;

enum { EM_MOST_SHAPES = 5 };
typedef struct em_shapes {
    int count;
    em_shape shape[EM_MOST_SHAPES];
} em_shapes;

em_shapes em_shapes_of(const em_config *config);

/* ---- the parts ---- */

void em_bench_limits(em_bench *bench);
void em_bench_products(em_bench *bench);
void em_bench_model(em_bench *bench, em_status *status);
void em_bench_exchange(em_bench *bench, em_status *status);
void em_bench_files(em_bench *bench, em_status *status);

/* The given model with experts of at most so many neurons that all storages can be compared on one machine. */
em_config em_bench_small(const em_config *config);

#endif
