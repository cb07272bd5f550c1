/* summary.h: what a run prints about a model and about itself. */
#ifndef EXPERTMESH_SUMMARY_H
#define EXPERTMESH_SUMMARY_H

#include "table.h"
#include "tokenizer.h"

#include "expertmesh/model.h"

#include <stdio.h>

/* The model's shape, parameters and bytes, in a few lines. */
void em_summary_model(const em_source *source, FILE *out);

/* Bytes that each rank holds, and their sum against the model's. Local: arithmetic for all ranks. */
void em_summary_weights(const em_source *source, const em_layout *layout, FILE *out);

/* The table of a run: per layer the load of each expert; rows and bytes of each exchange; seconds by phase over ranks; then
 * tokens per second and peak memory. Collective over the model's communicator; rank 0 prints to out. */
void em_summary_run(const em_model *model, const em_profile *profile, int64_t num_tokens, double seconds, FILE *out);

/* The table of what each exchange carries: rows [L + 1, EM_NUM_PHASES, EM_NUM_REACHES] of all ranks; host [P]: the lowest rank
 * on the host of each; exact: whole numbers, not what is expected. */
void em_summary_exchanges(const em_config *config, int num_ranks, const int *host, bool flat, const double *rows,
                          bool exact, FILE *out);
/* A cell with so many rows. */
void em_summary_rows(em_table *table, double rows, bool exact);

/* The likeliest next tokens of each sequence: with their pieces, where there is a tokenizer; else, of bytes, as characters. */
void em_summary_outcome(const em_outcome *outcome, bool bytes, const em_tokenizer *tokenizer, FILE *out);

/* A bar on a terminal, a line now and then elsewhere. An em_progress; context: an em_bar. */
typedef struct em_bar {
    const char *what; /* "layers" */
    bool shown;       /* on this rank */
    bool bytes;       /* of bytes: tell also how fast, and what time is left */
    double start, last;
} em_bar;
void em_bar_update(void *context, double done, double all);

#endif
