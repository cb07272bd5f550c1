/* trace_file.h: what the parts of a trace share: its state, and the structure of its file. Private to the library. */
#ifndef EXPERTMESH_TRACE_FILE_H
#define EXPERTMESH_TRACE_FILE_H

#include "expertmesh/trace.h"
#include "expertmesh/writer.h"

/* A counter that may be set once every rank's writer has passed a mark. */
typedef struct due_count {
    int64_t mark;
    const em_dataset *counter;
    int64_t value;
} due_count;

/* Events of steps one after another that are not put yet, of this rank. */
typedef struct em_held_events {
    int64_t first, steps; /* the first step, and how many */
    double *event;        /* [em_trace_event_steps, events, fields] */
    int64_t *tokens;      /* [em_trace_event_steps] of each step */
    double since;         /* when the first of them began, by MPI_Wtime */
} em_held_events;

struct em_trace {
    MPI_Comm comm; /* borrowed */
    int rank, num_ranks;
    int places; /* of the axes of ranks: num_ranks, or those of the run that made the trace */
    char *path;
    uint64_t wanted;
    em_config config;
    int64_t rows, steps; /* tokens and steps that the run may compute */
    int64_t kept_layers, kept_tokens;
    int64_t *layer_place; /* [L] where a layer is kept; -1: not */
    int64_t *token_place; /* [rows] */
    em_dataset data[EM_NUM_QUANTITIES];
    em_dataset run_id, layers_done, step_tokens, tokens_done, stopped, resumes;
    int64_t id; /* a random number, by which the ranks know that they write to one file */
    em_bulk bulk;
    em_writer *writer;
    int64_t queue; /* bytes that the writer may hold */
    int64_t weights_bytes;
    int64_t
        marks; /* layers and steps that ended so far, on all ranks the same: each is a mark in every rank's writer */
    due_count *due; /* on rank 0, in order; the first num_due */
    int num_due, room;
    em_held_events held;
};

/* What a request keeps, without a file, for a run of so many ranks. Freed with em_trace_free. */
em_trace *em_trace_new(const em_trace_request *request, const em_config *config, int num_ranks);

/* The file as rank 0 knows it, for all: where everything lies; and open it everywhere. Collective, agreed. */
bool em_trace_open_alike(em_trace *trace, em_status *status);

/* How many of the first rows are kept. */
int64_t em_trace_kept_of(const em_trace *trace, int64_t rows);

void em_trace_put_count(em_trace *trace, const em_dataset *counter, int64_t count);

/* All that was put is written and counted. Collective, agreed. */
bool em_trace_drain(em_trace *trace, em_status *status);

/* The times and the memory of all ranks; and, where the axes of ranks are of another length, their dispatched rows. Collective. */
void em_trace_put_profile(em_trace *trace, const em_profile *profile);

/* With everything that was put in it, and on the disk. */
bool em_trace_close_file(em_trace *trace, em_status *status);

/* Places along an axis of this trace. */
int64_t em_trace_axis_size(const em_trace *trace, em_axis axis);

/* Does this trace have a dataset of this quantity? */
bool em_trace_keeps(const em_trace *trace, em_quantity quantity);

/* Create a file with every dataset, scale and attribute of the trace, and note where the datasets lie. */
bool em_trace_create_structure(em_trace *trace, const char *path, const em_trace_request *request, em_status *status);

#endif
