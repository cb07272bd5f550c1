/* foreign.h: checkpoints as others wrote them: which arrays lie in which files, and which of the model's tensors they are.
 * Private to the library. No MPI.
 *
 *   a folder of pickles │ safetensors, alone or sharded │ GGUF, alone or split
 *           pickle.c    │        safetensors.c          │       gguf.c            arrays: file, offset, type, shape
 *                       └───────── names.c, official.c ─────────┘                 places: tensor, layer, expert
 *                                      shapes.c                                   config, and whether all fits
 *
 * Headers are read, and checked against the size of the file, before anything of their size is allocated; nothing in a file is
 * ever executed. Numbers stay in their files: rows.h reads them in blocks. */
#ifndef EXPERTMESH_FOREIGN_H
#define EXPERTMESH_FOREIGN_H

#include "expertmesh/store.h"
#include "expertmesh/tensors.h"

/* A file that is open for reading. */
typedef struct em_input {
    int file;
    int64_t size, changed; /* bytes; when its contents last changed, in ns */
    char *path;            /* owned */
} em_input;

/* Plain files only: EM_NO_INPUT where it is none or cannot be read. */
bool em_input_open(em_input *input, const char *path, em_status *status);
/* Exactly these bytes: EM_BAD_DATA where the file ends before. Any thread. */
bool em_input_read(const em_input *input, int64_t offset, int64_t bytes, void *out, em_status *status);
void em_input_close(em_input *input);

/* A header read from its start on. */
typedef struct em_cursor {
    const em_input *input; /* borrowed */
    int64_t next;          /* the byte that comes next; may be moved on */
    int64_t window_at, window_length;
    unsigned char window[4096];
} em_cursor;

/* The next bytes, or as a little-endian number without sign. EM_BAD_DATA where the file ends. */
bool em_cursor_take(em_cursor *cursor, int64_t bytes, void *out, em_status *status);
bool em_cursor_number(em_cursor *cursor, int bytes, uint64_t *number, em_status *status);
/* Move on over bytes that must be there. */
bool em_cursor_skip(em_cursor *cursor, uint64_t bytes, em_status *status);

/* How numbers lie in a file, little-endian. */
typedef enum em_number {
    EM_NUMBER_F32,
    EM_NUMBER_F16,
    EM_NUMBER_BF16,
    EM_NUMBER_INT8,
    EM_NUMBER_Q8_0, /* GGUF's: 32 numbers of a row are a scale in f16 and 32 int8 */
    EM_NUM_NUMBERS
} em_number;

enum { EM_Q8_0_NUMBERS = 32, EM_Q8_0_BYTES = 34 }; /* of a block */

const char *em_number_name(em_number number);
/* Bytes of a row of cols numbers. For Q8_0 cols is a multiple of 32. */
int64_t em_number_bytes(em_number number, int64_t cols);

/* What an array is to the model. */
typedef enum em_role {
    EM_ROLE_UNKNOWN,
    EM_ROLE_DATA,
    EM_ROLE_SCALE,  /* of int8 data */
    EM_ROLE_HEAD,   /* an output matrix of its own: must equal the embedding, which the model uses for both */
    EM_ROLE_NOTHING /* what programs store besides weights, and make anew from the config */
} em_role;

enum { EM_ALL_EXPERTS = -1 };

typedef struct em_place {
    em_role role;
    em_tensor tensor;
    int64_t layer;  /* 0 where the tensor has none */
    int64_t expert; /* EM_ALL_EXPERTS: the array holds those of all, or the tensor has no experts */
} em_place;

typedef struct em_array {
    char *name; /* as in its file; owned */
    int input;  /* its file */
    em_number number;
    int rank;
    int64_t dims[EM_MAX_AXES]; /* slowest first */
    int64_t offset;            /* of its bytes in the file */
    bool transposed;           /* [..., inputs, outputs]: not one neuron a row */
    em_place place;
} em_array;

/* Bytes of a whole array. */
int64_t em_array_bytes(const em_array *array);
/* Its shape in words. */
const char *em_array_dims(const em_array *array, em_dims_text buffer);

typedef struct em_foreign {
    const char *kind;  /* "safetensors", ... */
    char *path;        /* as the user named it; owned */
    bool follow_links; /* also read what lies outside its folder */
    int num_inputs;
    char **input;            /* [num_inputs] paths; owned */
    int64_t *size, *changed; /* [num_inputs] of each, as in em_input */
    int64_t num_arrays, room;
    em_array *array; /* from em_foreign_settle on sorted by place */
    em_config config;
    uint32_t given; /* which fields of it are told, a bit a field */
} em_foreign;

/* ---- gathering: what the readers call ---- */

/* Note a file; returns its number. */
int em_foreign_add_input(em_foreign *foreign, const em_input *input);
/* An array of the given number of axes, checked: sizes that can be counted, all its bytes inside the file. name is copied, not
 * ended by NUL. */
bool em_foreign_add(em_foreign *foreign, const em_input *input, const em_array *array, const char *name, size_t length,
                    em_status *status);
/* No two arrays of a file share a byte. */
bool em_foreign_check_overlap(const em_foreign *foreign, const em_input *input, int number, em_status *status);
/* The config's field of this name is told, unless it was before. */
void em_foreign_tell(em_foreign *foreign, const char *field, double value);

/* Does a file really lie in its folder, or is it allowed not to? */
bool em_path_inside(const char *folder, const char *path, bool follow_links, em_status *status);

/* What one file holds, by its form; of GGUF also the files after it, where it is the first of a split model. Local. */
bool em_safetensors_read(em_foreign *foreign, const char *path, em_status *status);
bool em_gguf_read(em_foreign *foreign, const char *path, em_status *status);

/* The fields that a Hugging Face config.json tells. */
bool em_config_json_read(em_foreign *foreign, const char *path, em_status *status);
/* The shards that an index names, each once: plain names of files in its own folder. Freed one by one, then the list. */
bool em_safetensors_index(const char *path, char ***shard, int *num_shards, em_status *status);

/* ---- one pickle ---- */

/* One pickle: an array of float32, or int8 with its scales. array[0] data, array[1] scales; names are not set. */
typedef struct em_pickle {
    int num_arrays;
    em_array array[2];
} em_pickle;

bool em_pickle_read(const em_input *input, em_pickle *pickle, em_status *status);

/* ---- which tensor is it? ---- */

typedef enum em_naming {
    EM_NAMING_TRANSFORMER, /* transformer.decoder_layer.0.moe.0.linear.weight */
    EM_NAMING_MODEL,       /* model.layers.0.moe_block.experts.0.linear.weight */
    EM_NAMING_GGUF         /* blk.0.ffn_gate_exps.weight */
} em_naming;

/* The place that a name stands for; EM_ROLE_UNKNOWN for one that means nothing here. */
em_place em_name_place(const char *name);
/* The name of a place. Written to buffer, which is returned. */
typedef char em_name[96];
const char *em_place_name(em_naming naming, const em_place *place, em_name buffer);

/* ---- the whole ---- */

/* Open what a path names: the official checkpoint (a folder of tensorNNNNN_000, or one with ckpt-0 in it), a Hugging Face
 * folder, a safetensors or a GGUF file. config (may be NULL) is a JSON file of the model's fields that counts before all that
 * the checkpoint tells. follow_links: also read what lies outside the folder. Local. Freed with em_foreign_close. */
bool em_foreign_open(em_foreign *foreign, const char *path, const char *config, bool follow_links, em_status *status);
void em_foreign_close(em_foreign *foreign);

/* Sort the arrays by place; refuse unknown and duplicate ones; complete the config from shapes and Grok-1's own numbers. */
bool em_foreign_settle(em_foreign *foreign, em_status *status);

/* Is all of these layers there, in the config's shapes? layers [num_layers] are the foreign model's. */
bool em_foreign_check(const em_foreign *foreign, const int64_t *layer, int64_t num_layers, em_status *status);

/* The array at a place, or NULL. Where a tensor's experts lie in one array: for any expert. */
const em_array *em_foreign_find(const em_foreign *foreign, em_role role, em_tensor tensor, int64_t layer,
                                int64_t expert);

#endif
