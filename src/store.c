#include "expertmesh/store.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct em_store {
    char *path;
    hid_t file;
    unsigned long number; /* the library's, of this file: what is linked from another has that one's */
    hid_t transfer;       /* properties of reads and writes through the library */
    int raw;              /* the same file, for reading contiguous datasets in place; -1: none */
};

/* ---- types and descriptions ---- */

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [EM_TYPE_F32] = {"float32", 4}, [EM_TYPE_F64] = {"float64", 8},   [EM_TYPE_BF16] = {"bfloat16", 2},
    [EM_TYPE_INT8] = {"int8", 1},   [EM_TYPE_INT32] = {"int32", 4},   [EM_TYPE_INT64] = {"int64", 8},
    [EM_TYPE_TEXT] = {"text", 0},   [EM_TYPE_OTHER] = {"another", 0},
};

const char *em_type_name(em_type type)
{
    return types[type].name;
}

size_t em_type_bytes(em_type type)
{
    return types[type].bytes;
}

int64_t em_dataset_count(const em_dataset *dataset)
{
    int64_t count = 1;
    for (int i = 0; i < dataset->rank; i++)
        if (dataset->dims[i] == 0) return 0;
    for (int i = 0; i < dataset->rank; i++)
        if (__builtin_mul_overflow(count, dataset->dims[i], &count)) return INT64_MAX; /* of a file that cannot be */
    return count;
}

int64_t em_dataset_bytes(const em_dataset *dataset)
{
    int64_t bytes;
    bool good = !__builtin_mul_overflow(em_dataset_count(dataset), (int64_t)em_type_bytes(dataset->type), &bytes);
    return good ? bytes : INT64_MAX;
}

const char *em_dims(const em_dataset *dataset, em_dims_text buffer)
{
    int length = snprintf(buffer, sizeof(em_dims_text), "[");
    for (int i = 0; i < dataset->rank; i++)
        length += snprintf(buffer + length, sizeof(em_dims_text) - (size_t)length, "%s%lld", i > 0 ? ", " : "",
                           (long long)dataset->dims[i]);
    snprintf(buffer + length, sizeof(em_dims_text) - (size_t)length, "]");
    return buffer;
}

/* bfloat16 as an HDF5 type that every reader understands. Closed by the caller. */
static hid_t bf16_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 7, 8, 0, 7);
    H5Tset_precision(type, 16);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 127);
    return type;
}

static hid_t text_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

/* The HDF5 type of a type. Closed by the caller. */
static hid_t hdf5_type(em_type type)
{
    switch (type) {
    case EM_TYPE_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case EM_TYPE_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case EM_TYPE_BF16: return bf16_type();
    case EM_TYPE_INT8: return H5Tcopy(H5T_STD_I8LE);
    case EM_TYPE_INT32: return H5Tcopy(H5T_STD_I32LE);
    case EM_TYPE_INT64: return H5Tcopy(H5T_STD_I64LE);
    default: return text_type();
    }
}

static em_type type_of(hid_t type)
{
    if (H5Tget_class(type) == H5T_STRING) return EM_TYPE_TEXT;
    for (em_type t = EM_TYPE_F32; t <= EM_TYPE_INT64; t++) {
        hid_t candidate = hdf5_type(t);
        bool same = H5Tequal(type, candidate) > 0;
        H5Tclose(candidate);
        if (same) return t;
    }
    return EM_TYPE_OTHER;
}

/* In words, whatever it is. */
static const char *describe_type(hid_t type, em_type_text buffer)
{
    em_type known = type_of(type);
    H5T_class_t class = H5Tget_class(type);
    bool is_signed = class == H5T_INTEGER && H5Tget_sign(type) != H5T_SGN_NONE;
    const char *kind = class == H5T_FLOAT ? "float" : is_signed ? "int" : "uint";
    if (known != EM_TYPE_OTHER)
        snprintf(buffer, sizeof(em_type_text), "%s", em_type_name(known));
    else if (class != H5T_FLOAT && class != H5T_INTEGER)
        snprintf(buffer, sizeof(em_type_text), "neither a number nor text");
    else
        snprintf(buffer, sizeof(em_type_text), "%s%s%zu", H5Tget_order(type) == H5T_ORDER_BE ? "big-endian " : "", kind,
                 8 * H5Tget_size(type));
    return buffer;
}

/* ---- failing ---- */

enum { REASON_SIZE = 1000 };

static herr_t keep_innermost(unsigned depth, const H5E_error2_t *error, void *text)
{
    (void)depth;
    snprintf(text, REASON_SIZE, "%s", error->desc);
    return 1; /* stop: the walk begins where it went wrong */
}

/* Of a failed system call, which the library describes at length, only what the system said; and one line in any case. */
static void shorten(char *reason)
{
    static const char before[] = "error message = '";
    char *said = strstr(reason, before), *end = said ? strchr(said + strlen(before), '\'') : NULL;
    if (end) {
        *end = '\0';
        memmove(reason, said + strlen(before), strlen(said + strlen(before)) + 1);
    }
    for (char *c = reason; *c; c++)
        if (*c == '\n') *c = ' ';
}

/* A failure of the library with its own innermost reason. */
static bool hdf5_failed(em_status *status, int code, const char *path, const char *what)
{
    char reason[REASON_SIZE] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    shorten(reason);
    H5Eclear2(H5E_DEFAULT);
    return em_fail(status, code, "%s: %s%s%s", path, what, reason[0] ? ": " : "", reason);
}

/* Messages are ours to print; and a reader elsewhere must not lock a writer out. Every file is closed here, and the library
 * must not try again at exit: it would crash on one that a full disk kept it from closing. Does nothing the second time. */
static void prepare_library(void)
{
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* ---- files ---- */

enum { CONVERTED = 1 << 16 }; /* bytes at a time */

static em_store *new_store(const char *path, hid_t file)
{
    em_store *store = em_zeroed(1, sizeof *store);
    H5O_info_t info;
    store->path = em_text("%s", path);
    store->file = file;
    if (H5Oget_info(file, &info) >= 0) store->number = info.fileno;
    /* Text and other numbers are converted in two buffers that the library clears for each call, by itself 1 MB each: fresh
     * memory, which takes longer than all else that creating a trace does. */
    store->transfer = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_buffer(store->transfer, CONVERTED, NULL, NULL);
    store->raw = -1;
    return store;
}

em_store *em_store_create(const char *path, em_status *status)
{
    prepare_library();
    int probe = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (probe < 0) {
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be created: %s", path, strerror(errno));
        return NULL;
    }
    close(probe);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_alignment(access, 1 << 16, 4096);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (file < 0) hdf5_failed(status, EM_CANNOT_WRITE, path, "cannot be created"); /* before another call forgets why */
    H5Pclose(access);
    return file < 0 ? NULL : new_store(path, file);
}

static bool can_open(const char *path, em_status *status)
{
    struct stat info;
    if (stat(path, &info) != 0) return em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return em_fail(status, EM_NO_INPUT, "%s: not a plain file", path); /* a pipe would block */
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    close(file);
    if (H5Fis_hdf5(path) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return em_fail(status, EM_BAD_DATA, "%s: not an HDF5 file (%lld bytes, without HDF5's signature)", path,
                       (long long)info.st_size);
    }
    return true;
}

em_store *em_store_open(const char *path, em_status *status)
{
    prepare_library();
    if (!can_open(path, status)) return NULL;
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        hdf5_failed(status, EM_BAD_DATA, path, "damaged or truncated");
        return NULL;
    }
    em_store *store = new_store(path, file);
    store->raw = open(path, O_RDONLY | O_CLOEXEC);
    if (store->raw >= 0) posix_fadvise(store->raw, 0, 0, POSIX_FADV_SEQUENTIAL); /* the system reads further ahead */
    return store;
}

em_store *em_store_reopen(const char *path, em_status *status)
{
    prepare_library();
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    if (file < 0) {
        hdf5_failed(status, EM_CANNOT_WRITE, path, "cannot be opened again");
        return NULL;
    }
    return new_store(path, file);
}

bool em_store_close(em_store *store, em_status *status)
{
    if (!store) return true;
    bool good = H5Fflush(store->file, H5F_SCOPE_GLOBAL) >= 0;
    if (!good) hdf5_failed(status, EM_CANNOT_WRITE, store->path, "cannot be written");
    if (H5Fclose(store->file) < 0 && good) good = hdf5_failed(status, EM_CANNOT_WRITE, store->path, "cannot be closed");
    H5Pclose(store->transfer);
    if (store->raw >= 0) close(store->raw);
    free(store->path);
    free(store);
    return good;
}

const char *em_store_path(const em_store *store)
{
    return store->path;
}

/* ---- attributes ---- */

static bool put(em_store *store, const char *object, const char *name, hid_t type, const void *value, em_status *status)
{
    hid_t holder = H5Oopen(store->file, object, H5P_DEFAULT);
    hid_t space = H5Screate(H5S_SCALAR);
    bool there = holder >= 0 && H5Aexists(holder, name) > 0;
    hid_t attribute =
        there ? H5Aopen(holder, name, H5P_DEFAULT) : H5Acreate2(holder, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    if (!good) hdf5_failed(status, EM_CANNOT_WRITE, store->path, name);
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    if (holder >= 0) H5Oclose(holder);
    return good;
}

bool em_store_put_int(em_store *store, const char *object, const char *name, int64_t value, em_status *status)
{
    return put(store, object, name, H5T_STD_I64LE, &value, status);
}

bool em_store_put_real(em_store *store, const char *object, const char *name, double value, em_status *status)
{
    return put(store, object, name, H5T_IEEE_F64LE, &value, status);
}

bool em_store_put_text(em_store *store, const char *object, const char *name, const char *value, em_status *status)
{
    hid_t type = text_type();
    bool good = put(store, object, name, type, &value, status);
    H5Tclose(type);
    return good;
}

bool em_store_has_attribute(em_store *store, const char *object, const char *name)
{
    bool there = H5Aexists_by_name(store->file, object, name, H5P_DEFAULT) > 0;
    H5Eclear2(H5E_DEFAULT);
    return there;
}

/* An attribute of one number or string of the wanted class; -1 with a status where there is none. */
static hid_t open_attribute(em_store *store, const char *object, const char *name, H5T_class_t class,
                            const char *wanted, em_status *status)
{
    if (!em_store_has_attribute(store, object, name)) {
        em_fail(status, EM_BAD_DATA, "%s: attribute \"%s\" of %s is missing (wanted: %s)", store->path, name, object,
                wanted);
        return -1;
    }
    hid_t attribute = H5Aopen_by_name(store->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool one = attribute >= 0 && H5Sget_simple_extent_npoints(space) == 1;
    bool fits = one && (H5Tget_class(type) == class || (class == H5T_FLOAT && H5Tget_class(type) == H5T_INTEGER));
    em_type_text found;
    describe_type(type, found);
    H5Tclose(type);
    H5Sclose(space);
    if (fits) return attribute;
    if (attribute >= 0) H5Aclose(attribute);
    em_fail(status, EM_BAD_DATA, "%s: attribute \"%s\" of %s is %s%s, but must be %s", store->path, name, object,
            one ? "" : "not one value of ", found, wanted);
    return -1;
}

static bool get_number(em_store *store, const char *object, const char *name, H5T_class_t class, const char *wanted,
                       hid_t memory_type, void *value, em_status *status)
{
    hid_t attribute = open_attribute(store, object, name, class, wanted, status);
    if (attribute < 0) return false;
    bool good = H5Aread(attribute, memory_type, value) >= 0;
    if (!good) hdf5_failed(status, EM_BAD_DATA, store->path, name);
    H5Aclose(attribute);
    return good;
}

bool em_store_get_int(em_store *store, const char *object, const char *name, int64_t *value, em_status *status)
{
    return get_number(store, object, name, H5T_INTEGER, "a whole number", H5T_NATIVE_INT64, value, status);
}

bool em_store_get_real(em_store *store, const char *object, const char *name, double *value, em_status *status)
{
    return get_number(store, object, name, H5T_FLOAT, "a number", H5T_NATIVE_DOUBLE, value, status);
}

bool em_store_get_text(em_store *store, const char *object, const char *name, char **value, em_status *status)
{
    hid_t attribute = open_attribute(store, object, name, H5T_STRING, "a string", status);
    if (attribute < 0) return false;
    hid_t type = H5Aget_type(attribute);
    bool good;
    if (H5Tis_variable_str(type) > 0) {
        char *held = NULL;
        good = H5Aread(attribute, type, &held) >= 0 && held;
        if (good) *value = em_text("%s", held);
        if (held) H5free_memory(held);
    } else {
        size_t length = H5Tget_size(type);
        char *held = em_zeroed((int64_t)length + 1, 1);
        good = H5Aread(attribute, type, held) >= 0;
        if (good)
            *value = held;
        else
            free(held);
    }
    if (!good) hdf5_failed(status, EM_BAD_DATA, store->path, name);
    H5Tclose(type);
    H5Aclose(attribute);
    return good;
}

/* ---- creating ---- */

bool em_store_add_group(em_store *store, const char *name, em_status *status)
{
    hid_t group = H5Gcreate2(store->file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0) return hdf5_failed(status, EM_CANNOT_WRITE, store->path, name);
    H5Gclose(group);
    return true;
}

static hid_t space_of(const em_dataset *dataset)
{
    hsize_t dims[EM_MAX_AXES];
    for (int i = 0; i < dataset->rank; i++) dims[i] = (hsize_t)dataset->dims[i];
    return dataset->rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(dataset->rank, dims, NULL);
}

/* Creates and leaves open; closed by the caller. Below 0 on failure. */
static hid_t create_dataset(em_store *store, const em_dataset *dataset, em_status *status)
{
    hid_t links = H5Pcreate(H5P_LINK_CREATE), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t type = hdf5_type(dataset->type), space = space_of(dataset);
    H5Pset_create_intermediate_group(links, 1);
    H5Pset_obj_track_times(creation, false); /* so that equal files are equal bytes */
    H5Pset_layout(creation, H5D_CONTIGUOUS);
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    if (dataset->type != EM_TYPE_TEXT) H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    hid_t data = H5Dcreate2(store->file, dataset->name, type, space, links, creation, H5P_DEFAULT);
    if (data < 0) hdf5_failed(status, EM_CANNOT_WRITE, store->path, dataset->name);
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(creation);
    H5Pclose(links);
    return data;
}

bool em_store_add(em_store *store, em_dataset *dataset, em_status *status)
{
    hid_t data = create_dataset(store, dataset, status);
    if (data < 0) return false;
    haddr_t offset = H5Dget_offset(data);
    dataset->offset = offset == HADDR_UNDEF ? -1 : (int64_t)offset;
    H5Dclose(data);
    return true;
}

static bool add_list(em_store *store, const char *name, em_type type, int64_t count, const void *values, bool scale,
                     em_status *status)
{
    em_dataset dataset = {.type = type, .rank = 1, .dims = {count}};
    snprintf(dataset.name, sizeof dataset.name, "/%s", name);
    hid_t memory = hdf5_type(type), data = create_dataset(store, &dataset, status);
    bool good = data >= 0 && H5Dwrite(data, memory, H5S_ALL, H5S_ALL, store->transfer, values) >= 0 &&
                (!scale || H5DSset_scale(data, name) >= 0);
    if (!good && data >= 0) hdf5_failed(status, EM_CANNOT_WRITE, store->path, name);
    if (data >= 0) H5Dclose(data);
    H5Tclose(memory);
    return good;
}

bool em_store_add_axis(em_store *store, const char *name, int64_t count, const int64_t *labels, em_status *status)
{
    return add_list(store, name, EM_TYPE_INT64, count, labels, true, status);
}

bool em_store_add_word_axis(em_store *store, const char *name, int64_t count, const char *const *words,
                            em_status *status)
{
    return add_list(store, name, EM_TYPE_TEXT, count, words, true, status);
}

bool em_store_add_words(em_store *store, const char *name, int64_t count, const char *const *words, em_status *status)
{
    return add_list(store, name, EM_TYPE_TEXT, count, words, false, status);
}

bool em_store_attach(em_store *store, const char *dataset, int axis, const char *scale, em_status *status)
{
    hid_t data = H5Dopen2(store->file, dataset, H5P_DEFAULT), labels = H5Dopen2(store->file, scale, H5P_DEFAULT);
    bool good = data >= 0 && labels >= 0 && H5DSattach_scale(data, labels, (unsigned)axis) >= 0;
    if (!good) hdf5_failed(status, EM_CANNOT_WRITE, store->path, dataset);
    if (labels >= 0) H5Dclose(labels);
    if (data >= 0) H5Dclose(data);
    return good;
}

/* ---- finding ---- */

/* H5Lexists wants every group on the way to exist. */
bool em_store_has(em_store *store, const char *name)
{
    char *path = em_text("%s", name);
    bool there = true;
    for (char *slash = strchr(path + 1, '/'); there && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        there = H5Lexists(store->file, path, H5P_DEFAULT) > 0;
        *slash = '/';
    }
    H5O_info_t info;
    there = there && H5Lexists(store->file, path, H5P_DEFAULT) > 0 &&
            H5Oget_info_by_name(store->file, path, &info, H5P_DEFAULT) >= 0 && info.type == H5O_TYPE_DATASET;
    H5Eclear2(H5E_DEFAULT);
    free(path);
    return there;
}

/* Where a dataset's bytes lie, when they are all in this file in one piece. */
static int64_t offset_of(const em_store *store, hid_t data, bool *composed)
{
    H5O_info_t info;
    bool here = H5Oget_info(data, &info) >= 0 && info.fileno == store->number;
    hid_t creation = H5Dget_create_plist(data);
    *composed = H5Pget_layout(creation) == H5D_VIRTUAL;
    bool plain = here && H5Pget_layout(creation) == H5D_CONTIGUOUS && H5Pget_external_count(creation) == 0;
    haddr_t offset = plain ? H5Dget_offset(data) : HADDR_UNDEF;
    H5Pclose(creation);
    H5Eclear2(H5E_DEFAULT);
    return offset == HADDR_UNDEF ? -1 : (int64_t)offset;
}

static bool describe(em_store *store, hid_t data, em_dataset *dataset, em_status *status)
{
    hid_t space = H5Dget_space(data), type = H5Dget_type(data);
    hsize_t dims[H5S_MAX_RANK];
    dataset->rank = H5Sget_simple_extent_dims(space, dims, NULL);
    bool good = dataset->rank >= 0 && dataset->rank <= EM_MAX_AXES;
    for (int i = 0; good && i < dataset->rank; i++) dataset->dims[i] = (int64_t)dims[i];
    dataset->type = type_of(type);
    dataset->offset = offset_of(store, data, &dataset->composed);
    H5Tclose(type);
    H5Sclose(space);
    if (good) return true;
    return em_fail(status, EM_BAD_DATA, "%s: %s has %d axes, more than any dataset of this format", store->path,
                   dataset->name, dataset->rank);
}

bool em_store_find(em_store *store, const char *name, em_dataset *dataset, em_status *status)
{
    *dataset = (em_dataset){.offset = -1};
    if (strlen(name) >= sizeof dataset->name)
        return em_fail(status, EM_BAD_DATA, "%s: dataset %s: a longer name than any of this format", store->path, name);
    snprintf(dataset->name, sizeof dataset->name, "%s", name);
    if (!em_store_has(store, name)) return em_fail(status, EM_BAD_DATA, "%s: dataset %s is missing", store->path, name);
    hid_t data = H5Dopen2(store->file, name, H5P_DEFAULT);
    if (data < 0) return hdf5_failed(status, EM_BAD_DATA, store->path, name);
    bool good = describe(store, data, dataset, status);
    H5Dclose(data);
    return good;
}

const char *em_store_type(em_store *store, const em_dataset *dataset, em_type_text buffer)
{
    hid_t data = H5Dopen2(store->file, dataset->name, H5P_DEFAULT), type = H5Dget_type(data);
    describe_type(type, buffer);
    H5Tclose(type);
    H5Dclose(data);
    return buffer;
}

typedef struct name_list {
    char **name;
    int count, room;
} name_list;

static void keep_name(name_list *list, char *name)
{
    if (list->count == list->room) {
        int room = list->room > 0 ? 2 * list->room : 64;
        list->name = em_grow(list->name, list->count, room, sizeof(char *));
        list->room = room;
    }
    list->name[list->count++] = name;
}

static herr_t keep_dataset(hid_t object, const char *name, const H5O_info_t *info, void *context)
{
    (void)object;
    if (info->type == H5O_TYPE_DATASET) keep_name(context, em_text("/%s", name));
    return 0;
}

static herr_t keep_attribute(hid_t object, const char *name, const H5A_info_t *info, void *context)
{
    (void)object;
    (void)info;
    keep_name(context, em_text("%s", name));
    return 0;
}

char **em_store_attributes(em_store *store, const char *object, int *count)
{
    name_list list = {0};
    H5Aiterate_by_name(store->file, object, H5_INDEX_NAME, H5_ITER_INC, NULL, keep_attribute, &list, H5P_DEFAULT);
    H5Eclear2(H5E_DEFAULT);
    *count = list.count;
    return list.name;
}

char **em_store_list(em_store *store, int *count)
{
    name_list list = {0};
    H5Ovisit(store->file, H5_INDEX_NAME, H5_ITER_INC, keep_dataset, &list);
    H5Eclear2(H5E_DEFAULT);
    *count = list.count;
    return list.name;
}

/* ---- reading ---- */

static bool read_bytes(const em_store *store, const em_dataset *dataset, int64_t offset, size_t bytes, char *out,
                       em_status *status)
{
    while (bytes > 0) {
        ssize_t got = pread(store->raw, out, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return em_fail(status, EM_BAD_DATA, "%s: %s cannot be read at byte %lld: %s", store->path, dataset->name,
                           (long long)offset, got == 0 ? "the file ends there" : strerror(errno));
        out += got;
        offset += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool read_in_place(const em_store *store, const em_dataset *dataset, int64_t row, int64_t rows, int64_t col,
                          int64_t cols, char *out, em_status *status)
{
    int64_t width = dataset->rank > 0 ? dataset->dims[dataset->rank - 1] : 1;
    int64_t size = (int64_t)em_type_bytes(dataset->type);
    int64_t calls = cols == width ? 1 : rows, length = cols == width ? rows * cols : cols;
    bool good = true;
    for (int64_t i = 0; good && i < calls; i++)
        good = read_bytes(store, dataset, dataset->offset + ((row + i) * width + col) * size, (size_t)(length * size),
                          out + i * length * size, status);
    return good;
}

/* Read a hyperslab through the library; memory_type < 0: as stored. */
static bool read_slab(em_store *store, const em_dataset *dataset, const hsize_t *start, const hsize_t *count,
                      hid_t memory_type, void *out, em_status *status)
{
    hid_t data = H5Dopen2(store->file, dataset->name, H5P_DEFAULT), from = H5Dget_space(data);
    hid_t to = dataset->rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(dataset->rank, count, NULL);
    hid_t type = memory_type < 0 ? H5Dget_type(data) : H5Tcopy(memory_type);
    bool good = data >= 0 &&
                (dataset->rank == 0 || H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, count, NULL) >= 0) &&
                H5Dread(data, type, to, from, store->transfer, out) >= 0;
    if (!good) hdf5_failed(status, EM_BAD_DATA, store->path, dataset->name);
    H5Tclose(type);
    H5Sclose(to);
    H5Sclose(from);
    H5Dclose(data);
    return good;
}

bool em_store_read_block(em_store *store, const em_dataset *dataset, int64_t row, int64_t rows, int64_t col,
                         int64_t cols, void *out, em_status *status)
{
    if (rows == 0 || cols == 0) return true;
    if (dataset->offset >= 0) return read_in_place(store, dataset, row, rows, col, cols, out, status);
    hsize_t start[EM_MAX_AXES] = {0}, count[EM_MAX_AXES] = {1, 1, 1, 1};
    int last = dataset->rank - 1;
    if (last >= 0) {
        start[last] = (hsize_t)col;
        count[last] = (hsize_t)cols;
    }
    if (last >= 1) count[last - 1] = (hsize_t)rows;
    for (int axis = last - 1; axis >= 0; axis--) {
        start[axis] = (hsize_t)(row % dataset->dims[axis]);
        row /= dataset->dims[axis];
    }
    return read_slab(store, dataset, start, count, -1, out, status);
}

bool em_store_read_numbers(em_store *store, const em_dataset *dataset, const int64_t *start, const int64_t *count,
                           double *out, em_status *status)
{
    hsize_t from[EM_MAX_AXES], size[EM_MAX_AXES];
    for (int i = 0; i < dataset->rank; i++) {
        from[i] = (hsize_t)start[i];
        size[i] = (hsize_t)count[i];
        if (count[i] == 0) return true;
    }
    return read_slab(store, dataset, from, size, H5T_NATIVE_DOUBLE, out, status);
}

bool em_store_read_words(em_store *store, const em_dataset *dataset, char ***words, em_status *status)
{
    hsize_t start = 0, count = (hsize_t)dataset->dims[0];
    hid_t type = text_type();
    char **held = em_zeroed((int64_t)count, sizeof *held);
    bool good = read_slab(store, dataset, &start, &count, type, held, status);
    H5Tclose(type);
    *words = em_zeroed((int64_t)count, sizeof **words);
    for (hsize_t i = 0; i < count; i++) {
        (*words)[i] = em_text("%s", held[i] ? held[i] : "");
        if (held[i]) H5free_memory(held[i]);
    }
    free(held);
    return good;
}
