/* expertmesh/store.h: datasets, scales and attributes in HDF5 files, and where each dataset's bytes lie.
 * Sole user of hdf5.h. No MPI.
 *
 * HDF5 for the structure, plain I/O for the bulk: one rank creates contiguous datasets, whose space is fixed at once, and
 * closes the file; then every rank writes its own rows at the offsets it was told, in parallel, and any reader of HDF5
 * finds them. Reading is the same the other way round; datasets that others stored in chunks are read through the library.
 *
 * Every function that can fail for a user's reason takes a status and returns whether it went well. */
#ifndef EXPERTMESH_STORE_H
#define EXPERTMESH_STORE_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An open file. One thread may own it (serial HDF5). */
typedef struct em_store em_store;

typedef enum em_type {
    EM_TYPE_F32,
    EM_TYPE_F64,
    EM_TYPE_BF16, /* 1 sign, 8 exponent and 7 fraction bits */
    EM_TYPE_INT8,
    EM_TYPE_INT32,
    EM_TYPE_INT64,
    EM_TYPE_TEXT, /* variable-length UTF-8 */
    EM_TYPE_OTHER /* present, but none of the above in this machine's byte order */
} em_type;

enum { EM_MAX_AXES = 4 };

typedef struct em_dataset {
    char name[64]; /* path in the file, as "/layers/000/ffn_up" */
    em_type type;
    int rank;                  /* axes; 0: a scalar */
    int64_t dims[EM_MAX_AXES]; /* rows, columns, ... */
    int64_t offset;            /* of its bytes in the file; -1: not contiguous */
    bool composed;             /* a virtual dataset, put together from other files */
} em_dataset;

const char *em_type_name(em_type type);
size_t em_type_bytes(em_type type);                  /* of one number; 0 for text and other */
int64_t em_dataset_count(const em_dataset *dataset); /* INT64_MAX: more than that */
int64_t em_dataset_bytes(const em_dataset *dataset);
/* "[8, 192, 48]". */
typedef char em_dims_text[96];
const char *em_dims(const em_dataset *dataset, em_dims_text buffer);

/* Create (an existing file is emptied), open for reading, open for changing attributes. NULL on failure: EM_NO_INPUT where
 * there is nothing to open, EM_BAD_DATA where it is no HDF5 file or damaged, EM_CANNOT_WRITE. */
em_store *em_store_create(const char *path, em_status *status);
em_store *em_store_open(const char *path, em_status *status);
em_store *em_store_reopen(const char *path, em_status *status);

/* Flush and close; a full disk may only show here. store may be NULL, and is gone in any case. */
bool em_store_close(em_store *store, em_status *status);

const char *em_store_path(const em_store *store);

/* Attributes of an object ("/", "/config", a dataset). Integers are 64-bit, reals 64-bit. put replaces.
 * get_text: freed with free. Failure of get: EM_BAD_DATA, naming file, object and attribute. */
bool em_store_put_int(em_store *store, const char *object, const char *name, int64_t value, em_status *status);
bool em_store_put_real(em_store *store, const char *object, const char *name, double value, em_status *status);
bool em_store_put_text(em_store *store, const char *object, const char *name, const char *value, em_status *status);
bool em_store_get_int(em_store *store, const char *object, const char *name, int64_t *value, em_status *status);
bool em_store_get_real(em_store *store, const char *object, const char *name, double *value, em_status *status);
bool em_store_get_text(em_store *store, const char *object, const char *name, char **value, em_status *status);
bool em_store_has_attribute(em_store *store, const char *object, const char *name);

bool em_store_add_group(em_store *store, const char *name, em_status *status);

/* Create a contiguous dataset (name, type, rank, dims) with its space; offset is filled in. Groups on the way are made. */
bool em_store_add(em_store *store, em_dataset *dataset, em_status *status);

/* A named axis: a dataset that is a dimension scale, with its labels; and its attachment to one axis of a dataset. */
bool em_store_add_axis(em_store *store, const char *name, int64_t count, const int64_t *labels, em_status *status);
bool em_store_add_word_axis(em_store *store, const char *name, int64_t count, const char *const *words,
                            em_status *status);
/* A dataset of words that is no axis. */
bool em_store_add_words(em_store *store, const char *name, int64_t count, const char *const *words, em_status *status);
bool em_store_attach(em_store *store, const char *dataset, int axis, const char *scale, em_status *status);

/* Is there a dataset of this name? And its description: fails with EM_BAD_DATA where there is none. */
bool em_store_has(em_store *store, const char *name);
bool em_store_find(em_store *store, const char *name, em_dataset *dataset, em_status *status);

/* The type of a dataset in words, also of one that is EM_TYPE_OTHER: "float16", "big-endian float32". */
typedef char em_type_text[48];
const char *em_store_type(em_store *store, const em_dataset *dataset, em_type_text buffer);

/* The names of an object's attributes, sorted, each with free, then the list with free. */
char **em_store_attributes(em_store *store, const char *object, int *count);

/* The names of all datasets, sorted, each with free, then the list with free. */
char **em_store_list(em_store *store, int *count);

/* A block of a dataset seen as rows of its last axis: rows [row, row + rows) x columns [col, col + cols), as stored, into
 * out [rows, cols]. A block of a chunked dataset must lie within one index of the axes before the last two. */
bool em_store_read_block(em_store *store, const em_dataset *dataset, int64_t row, int64_t rows, int64_t col,
                         int64_t cols, void *out, em_status *status);

/* A block of any numeric dataset converted to double: start and count by axis. */
bool em_store_read_numbers(em_store *store, const em_dataset *dataset, const int64_t *start, const int64_t *count,
                           double *out, em_status *status);
/* All words of a text dataset of one axis. Freed one by one, then the list. */
bool em_store_read_words(em_store *store, const em_dataset *dataset, char ***words, em_status *status);

/* The bulk of a file, for writing in place. Any process, any thread. */
typedef struct em_bulk {
    int file; /* descriptor; -1: none */
    const char *path;
} em_bulk;

bool em_bulk_open(em_bulk *bulk, const char *path, em_status *status);
/* Reserve the whole file's blocks on the disk, where its file system can, so that a full disk shows before any work. */
bool em_bulk_reserve(const em_bulk *bulk, em_status *status);
/* A dataset seen as rows of `width` numbers: write rows [row, row + rows) x columns [col, col + cols) from data, whose
 * rows lie `stride` numbers apart. One write where the block is contiguous in the file and in memory. */
bool em_bulk_write(const em_bulk *bulk, const em_dataset *dataset, int64_t width, int64_t row, int64_t rows,
                   int64_t col, int64_t cols, const void *data, int64_t stride, em_status *status);
/* Is this what the dataset holds from its byte `begin` on? For a file that was opened for reading. */
bool em_bulk_check(const em_bulk *bulk, const em_dataset *dataset, int64_t begin, int64_t bytes, const void *data,
                   em_status *status);
/* Wait until everything written so far is on the disk. */
bool em_bulk_sync(const em_bulk *bulk, em_status *status);
/* Everything on the disk; then close. Some file systems tell only here that they were full. */
bool em_bulk_close(em_bulk *bulk, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
