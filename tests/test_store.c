/* HDF5 files: what is put in comes out, bytes lie where they are said to lie, and no file, however damaged, is more than a
 * message. */
#include "suite.h"

#include "draw.h"
#include "scratch.h"

#include "expertmesh/kernels.h"
#include "expertmesh/store.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static bool contains(const em_status *status, const char *word)
{
    return strstr(status->text, word) != NULL;
}

static em_store *created(const char *path)
{
    em_status status = {0};
    em_store *store = em_store_create(path, &status);
    CU_ASSERT_PTR_NOT_NULL(store);
    CU_ASSERT_STRING_EQUAL(status.text, "");
    return store;
}

static em_store *opened(const char *path)
{
    em_status status = {0};
    em_store *store = em_store_open(path, &status);
    CU_ASSERT_PTR_NOT_NULL(store);
    CU_ASSERT_STRING_EQUAL(status.text, "");
    return store;
}

static void closed(em_store *store)
{
    em_status status = {0};
    CU_ASSERT(em_store_close(store, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

static em_dataset found(em_store *store, const char *name)
{
    em_dataset dataset;
    em_status status = {0};
    CU_ASSERT(em_store_find(store, name, &dataset, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    return dataset;
}

/* A failure: this code, and a message that holds the words up to the first NULL. */
static void check_failed(bool good, const em_status *status, int code, const char *const *words)
{
    CU_ASSERT_FALSE(good);
    CU_ASSERT_EQUAL(status->code, code);
    for (int i = 0; words[i]; i++) CU_ASSERT(contains(status, words[i]));
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- attributes ---- */

static void check_attributes(em_store *store, const char *object, int64_t number)
{
    static const double reals[] = {0.1, -1e-300, 1.7976931348623157e308};
    em_status status = {0};
    int64_t integer = 0;
    double real = 0;
    char *text = NULL;
    CU_ASSERT(em_store_get_int(store, object, "integer", &integer, &status) && integer == number);
    CU_ASSERT(em_store_get_real(store, object, "integer", &real, &status) && real == (double)number);
    CU_ASSERT(em_store_get_real(store, object, "real", &real, &status) && real == reals[number % 3]);
    CU_ASSERT(em_store_get_text(store, object, "text", &text, &status));
    if (text) CU_ASSERT_STRING_EQUAL(text, "na\xc3\xafve \xe2\x86\x92 text");
    free(text);
    CU_ASSERT(em_store_has_attribute(store, object, "real"));
    CU_ASSERT_FALSE(em_store_has_attribute(store, object, "rea"));
    CU_ASSERT_FALSE(em_store_has_attribute(store, "/nowhere", "real"));
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

static void put_attributes(em_store *store, const char *object, int64_t number)
{
    static const double reals[] = {0.1, -1e-300, 1.7976931348623157e308};
    em_status status = {0};
    CU_ASSERT(em_store_put_int(store, object, "integer", number, &status));
    CU_ASSERT(em_store_put_real(store, object, "real", reals[number % 3], &status));
    CU_ASSERT(em_store_put_text(store, object, "text", "na\xc3\xafve \xe2\x86\x92 text", &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

/* On the root, a group and a dataset; put again, they are replaced; and again after the file was closed. */
static void attributes_come_back(void)
{
    static const char *const objects[] = {"/", "/config", "/config/data"};
    const char *path = scratch_path("attributes.h5");
    em_store *store = created(path);
    em_status status = {0};
    em_dataset data = {.name = "/config/data", .type = EM_TYPE_F32, .rank = 1, .dims = {3}};
    CU_ASSERT_STRING_EQUAL(em_store_path(store), path);
    CU_ASSERT(em_store_add_group(store, "/config", &status));
    CU_ASSERT(em_store_add(store, &data, &status));
    for (int i = 0; i < 3; i++) put_attributes(store, objects[i], 8 + i);
    for (int i = 0; i < 3; i++) put_attributes(store, objects[i], INT64_MAX - i);
    for (int i = 0; i < 3; i++) check_attributes(store, objects[i], INT64_MAX - i);
    closed(store);
    store = opened(path);
    for (int i = 0; i < 3; i++) check_attributes(store, objects[i], INT64_MAX - i);
    closed(store);
    store = em_store_reopen(path, &status);
    CU_ASSERT_PTR_NOT_NULL(store);
    put_attributes(store, "/", 5);
    closed(store);
    store = opened(path);
    check_attributes(store, "/", 5);
    closed(store);
}

static void empty_and_long_texts_come_back(void)
{
    enum { LONG = 50000 }; /* a command line may be */
    const char *path = scratch_path("texts.h5");
    em_store *store = created(path);
    em_status status = {0};
    char *back = NULL, *words = malloc(LONG + 1);
    memset(words, 'w', LONG);
    words[LONG] = '\0';
    CU_ASSERT(em_store_put_text(store, "/", "empty", "", &status));
    CU_ASSERT(em_store_put_text(store, "/", "long", words, &status));
    closed(store);
    store = opened(path);
    CU_ASSERT(em_store_get_text(store, "/", "long", &back, &status));
    if (back) CU_ASSERT_STRING_EQUAL(back, words);
    free(back);
    back = NULL;
    CU_ASSERT(em_store_get_text(store, "/", "empty", &back, &status));
    if (back) CU_ASSERT_STRING_EQUAL(back, "");
    CU_ASSERT_STRING_EQUAL(status.text, "");
    free(back);
    free(words);
    closed(store);
}

/* As other writers make them: narrow integers, texts of a fixed length. */
static void attributes_of_other_writers_are_read(void)
{
    const char *path = scratch_path("others.h5");
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    hid_t fixed = H5Tcopy(H5T_C_S1), narrow, text;
    int16_t seven = 7;
    H5Tset_size(fixed, 4);
    H5Tset_strpad(fixed, H5T_STR_NULLPAD); /* as h5py and Fortran pad: no NUL when it is full */
    narrow = H5Acreate2(file, "narrow", H5T_STD_I16BE, space, H5P_DEFAULT, H5P_DEFAULT);
    text = H5Acreate2(file, "text", fixed, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(narrow, H5T_NATIVE_INT16, &seven);
    H5Awrite(text, fixed, "four");
    H5Aclose(narrow);
    H5Aclose(text);
    H5Tclose(fixed);
    H5Sclose(space);
    H5Fclose(file);
    em_store *store = opened(path);
    em_status status = {0};
    int64_t integer = 0;
    char *back = NULL;
    CU_ASSERT(em_store_get_int(store, "/", "narrow", &integer, &status) && integer == 7);
    CU_ASSERT(em_store_get_text(store, "/", "text", &back, &status));
    if (back) CU_ASSERT_STRING_EQUAL(back, "four");
    free(back);
    closed(store);
}

/* The message says which file, which object, which attribute, and what was wanted. */
static void attributes_that_do_not_fit_are_named(void)
{
    const char *path = scratch_path("wrong.h5");
    em_store *store = created(path);
    int64_t integer = 0;
    double real = 0;
    char *text = NULL;
    put_attributes(store, "/", 1);
    em_status s[6] = {{0}};
    check_failed(em_store_get_int(store, "/", "nope", &integer, &s[0]), &s[0], EM_BAD_DATA,
                 WORDS(path, "\"nope\"", "missing", "whole number"));
    check_failed(em_store_get_int(store, "/", "real", &integer, &s[1]), &s[1], EM_BAD_DATA,
                 WORDS(path, "\"real\"", "a whole number"));
    check_failed(em_store_get_int(store, "/", "text", &integer, &s[2]), &s[2], EM_BAD_DATA,
                 WORDS(path, "\"text\"", "a whole number"));
    check_failed(em_store_get_real(store, "/", "text", &real, &s[3]), &s[3], EM_BAD_DATA,
                 WORDS(path, "\"text\"", "a number"));
    check_failed(em_store_get_text(store, "/", "integer", &text, &s[4]), &s[4], EM_BAD_DATA,
                 WORDS(path, "\"integer\"", "a string"));
    check_failed(em_store_get_text(store, "/config", "text", &text, &s[5]), &s[5], EM_BAD_DATA,
                 WORDS(path, "/config", "\"text\"", "missing"));
    closed(store);
}

static void several_values_are_not_one(void)
{
    const char *path = scratch_path("several.h5");
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t three = 3;
    int64_t values[3] = {1, 2, 3}, integer = 0;
    hid_t space = H5Screate_simple(1, &three, NULL);
    hid_t attribute = H5Acreate2(file, "three", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, values);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Fclose(file);
    em_store *store = opened(path);
    em_status status = {0};
    check_failed(em_store_get_int(store, "/", "three", &integer, &status), &status, EM_BAD_DATA,
                 WORDS(path, "\"three\"", "a whole number"));
    closed(store);
}

/* ---- datasets ---- */

static const em_type number_types[] = {EM_TYPE_F32,  EM_TYPE_F64,   EM_TYPE_BF16,
                                       EM_TYPE_INT8, EM_TYPE_INT32, EM_TYPE_INT64};
enum { NUM_TYPES = sizeof number_types / sizeof *number_types };

static void types_have_names_and_sizes(void)
{
    static const struct {
        em_type type;
        const char *name;
        size_t bytes;
    } expected[] = {{EM_TYPE_F32, "float32", 4}, {EM_TYPE_F64, "float64", 8}, {EM_TYPE_BF16, "bfloat16", 2},
                    {EM_TYPE_INT8, "int8", 1},   {EM_TYPE_INT32, "int32", 4}, {EM_TYPE_INT64, "int64", 8},
                    {EM_TYPE_TEXT, "text", 0}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        CU_ASSERT_STRING_EQUAL(em_type_name(expected[i].type), expected[i].name);
        CU_ASSERT_EQUAL(em_type_bytes(expected[i].type), expected[i].bytes);
    }
    em_dims_text text;
    em_dataset data = {.rank = 3, .dims = {8, 192, 48}}, scalar = {.rank = 0};
    CU_ASSERT_EQUAL(em_dataset_count(&data), 8 * 192 * 48);
    CU_ASSERT_EQUAL(em_dataset_count(&scalar), 1);
    CU_ASSERT_STRING_EQUAL(em_dims(&data, text), "[8, 192, 48]");
    CU_ASSERT_STRING_EQUAL(em_dims(&scalar, text), "[]");
    em_dataset large = {.rank = 4, .dims = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}};
    CU_ASSERT_EQUAL(strlen(em_dims(&large, text)), 4 * 19 + 3 * 2 + 2);
}

/* Number i of a dataset as double, and stored: small enough to be exact in every type. */
static double number(int64_t i)
{
    return (double)(i * 37 % 251 - 125);
}

static void store_number(em_type type, int64_t i, void *out)
{
    double value = number(i);
    switch (type) {
    case EM_TYPE_F32: ((float *)out)[i] = (float)value; break;
    case EM_TYPE_F64: ((double *)out)[i] = value; break;
    case EM_TYPE_BF16: ((uint16_t *)out)[i] = em_f32_to_bf16((float)value); break;
    case EM_TYPE_INT8: ((int8_t *)out)[i] = (int8_t)value; break;
    case EM_TYPE_INT32: ((int32_t *)out)[i] = (int32_t)value; break;
    default: ((int64_t *)out)[i] = (int64_t)value; break;
    }
}

/* All numbers of a dataset as the library itself reads and converts them. */
static void check_library_reads(const char *path, const char *name, int64_t count)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), data = H5Dopen2(file, name, H5P_DEFAULT);
    double *numbers = calloc((size_t)count, sizeof *numbers);
    CU_ASSERT(H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    for (int64_t i = 0; i < count; i++) CU_ASSERT_EQUAL(numbers[i], number(i));
    free(numbers);
    H5Dclose(data);
    H5Fclose(file);
}

static em_dataset draw_shape(em_type type, int rank, const char *name)
{
    em_dataset data = {.type = type, .rank = rank};
    snprintf(data.name, sizeof data.name, "%s", name);
    for (int a = 0; a < rank; a++) data.dims[a] = draw_from(1, 7);
    return data;
}

static int64_t width_of(const em_dataset *data)
{
    return data->rank > 0 ? data->dims[data->rank - 1] : 1;
}

/* Write all of it at its offset. */
static void write_all(const char *path, const em_dataset *data)
{
    em_bulk bulk;
    em_status status = {0};
    int64_t count = em_dataset_count(data), width = width_of(data);
    char *bytes = malloc((size_t)count * em_type_bytes(data->type));
    for (int64_t i = 0; i < count; i++) store_number(data->type, i, bytes);
    CU_ASSERT(em_bulk_open(&bulk, path, &status));
    CU_ASSERT(em_bulk_reserve(&bulk, &status));
    CU_ASSERT(em_bulk_write(&bulk, data, width, 0, count / width, 0, width, bytes, width, &status));
    CU_ASSERT(em_bulk_close(&bulk, &status));
    CU_ASSERT_EQUAL(bulk.file, -1);
    CU_ASSERT_STRING_EQUAL(status.text, "");
    free(bytes);
}

static void check_description(em_store *store, const em_dataset *expected)
{
    em_dataset data = found(store, expected->name);
    em_type_text type;
    CU_ASSERT(em_store_has(store, expected->name));
    CU_ASSERT_STRING_EQUAL(data.name, expected->name);
    CU_ASSERT_EQUAL(data.type, expected->type);
    CU_ASSERT_STRING_EQUAL(em_store_type(store, &data, type), em_type_name(expected->type));
    CU_ASSERT_EQUAL(data.rank, expected->rank);
    for (int a = 0; a < expected->rank; a++) CU_ASSERT_EQUAL(data.dims[a], expected->dims[a]);
    CU_ASSERT(data.offset > 0 && data.offset == expected->offset);
}

/* Of each type and number of axes: created, closed, written at the offsets, described the same, read by the library. */
static void datasets_lie_where_they_are_said_to(void)
{
    const char *path = scratch_path("datasets.h5");
    em_dataset data[NUM_TYPES * (EM_MAX_AXES + 1)];
    int count = 0;
    em_status status = {0};
    em_store *store = created(path);
    for (int t = 0; t < NUM_TYPES; t++)
        for (int rank = 0; rank <= EM_MAX_AXES; rank++, count++) {
            char name[64];
            snprintf(name, sizeof name, "/groups/on/the/way/%d/data%d", t, rank);
            data[count] = draw_shape(number_types[t], rank, name);
            CU_ASSERT(em_store_add(store, &data[count], &status));
        }
    closed(store);
    for (int i = 0; i < count; i++) write_all(path, &data[i]);
    for (int i = 0; i < count; i++) check_library_reads(path, data[i].name, em_dataset_count(&data[i]));
    store = opened(path);
    for (int i = 0; i < count; i++) check_description(store, &data[i]);
    closed(store);
}

/* The type by which every reader of HDF5 knows bfloat16, for all its finite numbers and infinities. */
static void bf16_is_a_number_to_the_library(void)
{
    enum { ALL = 1 << 16 };
    const char *path = scratch_path("bf16.h5");
    em_dataset data = {.name = "/all", .type = EM_TYPE_BF16, .rank = 1, .dims = {ALL}};
    em_store *store = created(path);
    em_status status = {0};
    em_bulk bulk;
    uint16_t *bits = malloc(ALL * sizeof *bits);
    float *numbers = malloc(ALL * sizeof *numbers);
    for (int i = 0; i < ALL; i++) bits[i] = (uint16_t)i;
    CU_ASSERT(em_store_add(store, &data, &status));
    closed(store);
    CU_ASSERT(em_bulk_open(&bulk, path, &status));
    CU_ASSERT(em_bulk_write(&bulk, &data, ALL, 0, 1, 0, ALL, bits, ALL, &status));
    CU_ASSERT(em_bulk_close(&bulk, &status));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), all = H5Dopen2(file, "/all", H5P_DEFAULT);
    hid_t type = H5Dget_type(all);
    CU_ASSERT(H5Tget_class(type) == H5T_FLOAT && H5Tget_size(type) == 2 && H5Tget_ebias(type) == 127);
    CU_ASSERT(H5Dread(all, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    for (int i = 0; i < ALL; i++)
        if ((i & 0x7fff) <= 0x7f80) CU_ASSERT_EQUAL(numbers[i], em_bf16_to_f32((uint16_t)i));
    H5Tclose(type);
    H5Dclose(all);
    H5Fclose(file);
    free(numbers);
    free(bits);
}

/* ---- reading blocks ---- */

/* A dataset of 32-bit integers 0, 1, 2, ... in chunks that do not divide it, by the library. */
static void write_chunked(const char *path, const em_dataset *data)
{
    hsize_t dims[EM_MAX_AXES], chunk[EM_MAX_AXES];
    int64_t count = em_dataset_count(data);
    int32_t *numbers = malloc((size_t)count * sizeof *numbers);
    for (int64_t i = 0; i < count; i++) numbers[i] = (int32_t)i;
    for (int a = 0; a < data->rank; a++) {
        dims[a] = (hsize_t)data->dims[a];
        chunk[a] = (hsize_t)draw_from(1, data->dims[a]);
    }
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(data->rank, dims, NULL);
    H5Pset_chunk(creation, data->rank, chunk);
    hid_t made = H5Dcreate2(file, data->name, H5T_STD_I32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    CU_ASSERT(H5Dwrite(made, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(made);
    H5Sclose(space);
    H5Pclose(creation);
    H5Fclose(file);
    free(numbers);
}

static void write_contiguous(const char *path, em_dataset *data)
{
    em_status status = {0};
    em_bulk bulk;
    int64_t count = em_dataset_count(data), width = width_of(data);
    int32_t *numbers = malloc((size_t)count * sizeof *numbers);
    for (int64_t i = 0; i < count; i++) numbers[i] = (int32_t)i;
    em_store *store = created(path);
    CU_ASSERT(em_store_add(store, data, &status));
    closed(store);
    CU_ASSERT(em_bulk_open(&bulk, path, &status));
    CU_ASSERT(em_bulk_write(&bulk, data, width, 0, count / width, 0, width, numbers, width, &status));
    CU_ASSERT(em_bulk_close(&bulk, &status));
    free(numbers);
}

/* Random blocks: number (row, col) of the dataset seen as rows is row * width + col. */
static void check_blocks(em_store *store, const em_dataset *data)
{
    em_status status = {0};
    int64_t width = width_of(data), all_rows = em_dataset_count(data) / width;
    int64_t height = data->rank > 1 ? data->dims[data->rank - 2] : 1; /* of one index of the axes before the last two */
    for (int i = 0; i < 40; i++) {
        int64_t base = draw_below(all_rows / height) * height, first = draw_below(height), col = draw_below(width);
        int64_t rows = draw_from(0, height - first), cols = draw_from(0, width - col), row = base + first;
        int32_t *out = malloc((size_t)(rows * cols + 1) * sizeof *out);
        out[rows * cols] = -77;
        CU_ASSERT(em_store_read_block(store, data, row, rows, col, cols, out, &status));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) CU_ASSERT_EQUAL(out[r * cols + c], (row + r) * width + col + c);
        CU_ASSERT_EQUAL(out[rows * cols], -77);
        free(out);
    }
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

static void check_numbers(em_store *store, const em_dataset *data)
{
    int64_t start[EM_MAX_AXES] = {0}, count[EM_MAX_AXES] = {0}, size = 1, at[EM_MAX_AXES] = {0};
    em_status status = {0};
    for (int a = 0; a < data->rank; a++) {
        start[a] = draw_below(data->dims[a]);
        count[a] = draw_from(1, data->dims[a] - start[a]);
        size *= count[a];
    }
    double *out = malloc((size_t)size * sizeof *out);
    CU_ASSERT(em_store_read_numbers(store, data, start, count, out, &status));
    for (int64_t i = 0; i < size; i++) {
        int64_t place = 0, rest = i;
        for (int a = data->rank - 1; a >= 0; rest /= count[a], a--) at[a] = start[a] + rest % count[a];
        for (int a = 0; a < data->rank; a++) place = place * data->dims[a] + at[a];
        CU_ASSERT_EQUAL(out[i], (double)place);
    }
    free(out);
}

static void blocks_are_read_however_they_are_stored(void)
{
    for (int i = 0; i < 60; i++) {
        int rank = 1 + i / 2 % 4;
        bool chunked = i % 2;
        const char *path = scratch_path(chunked ? "chunked.h5" : "contiguous.h5");
        em_dataset data = draw_shape(EM_TYPE_INT32, rank, "/data");
        if (chunked)
            write_chunked(path, &data);
        else
            write_contiguous(path, &data);
        em_store *store = opened(path);
        data = found(store, "/data");
        CU_ASSERT_EQUAL(data.offset < 0, chunked);
        CU_ASSERT_EQUAL(data.type, EM_TYPE_INT32);
        check_blocks(store, &data);
        check_numbers(store, &data);
        closed(store);
    }
}

/* A dataset may be a link to another file: its bytes are there, and not at this place of the file that has the link. */
static void linked_datasets_are_read_where_they_are(void)
{
    const char *path = scratch_path("linking.h5");
    em_dataset data = draw_shape(EM_TYPE_INT32, 2, "/data"), here = data;
    write_contiguous(scratch_path("linked.h5"), &data);
    write_contiguous(path, &here);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    CU_ASSERT(H5Lcreate_external("linked.h5", "/data", file, "/elsewhere", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    em_store *store = opened(path);
    here = found(store, "/data");
    data = found(store, "/elsewhere");
    CU_ASSERT(here.offset >= 0);
    CU_ASSERT_EQUAL(data.offset, -1);
    check_blocks(store, &data);
    check_numbers(store, &data);
    closed(store);
}

/* A block that crosses the axes before the last two can be read in place where the dataset is contiguous. */
static void contiguous_rows_run_on(void)
{
    const char *path = scratch_path("rows.h5");
    em_dataset data = {.name = "/data", .type = EM_TYPE_INT32, .rank = 3, .dims = {3, 4, 5}};
    int32_t out[8 * 2];
    em_status status = {0};
    write_contiguous(path, &data);
    em_store *store = opened(path);
    data = found(store, "/data");
    CU_ASSERT(em_store_read_block(store, &data, 2, 8, 1, 2, out, &status));
    for (int r = 0; r < 8; r++)
        for (int c = 0; c < 2; c++) CU_ASSERT_EQUAL(out[r * 2 + c], (2 + r) * 5 + 1 + c);
    closed(store);
}

/* ---- writing blocks ---- */

/* The bytes of a dataset are these. */
static void check_bytes(const char *path, const em_dataset *data, const int32_t *expected)
{
    size_t bytes = (size_t)em_dataset_count(data) * sizeof *expected;
    int32_t *back = calloc(1, bytes);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_EQUAL(pread(file, back, bytes, data->offset), (ssize_t)bytes);
    CU_ASSERT_EQUAL(memcmp(back, expected, bytes), 0);
    close(file);
    free(back);
}

/* A copy of the dataset in memory, seen as rows of some width, is given the same writes and compared after each. */
static void check_writes(const em_dataset *data, const char *path, int64_t width, int64_t rows)
{
    enum { WRITES = 60, ROOM = 400 };
    int32_t *expected = malloc((size_t)(width * rows) * sizeof *expected), out[ROOM];
    em_status status = {0};
    em_bulk bulk;
    for (int64_t i = 0; i < width * rows; i++) expected[i] = -1;
    CU_ASSERT(em_bulk_open(&bulk, path, &status));
    CU_ASSERT(em_bulk_write(&bulk, data, width, 0, rows, 0, width, expected, width, &status));
    for (int i = 0; i < WRITES; i++) {
        bool whole = i % 3 == 0, strided = i % 2;
        int64_t row = draw_below(rows), high = draw_from(0, rows - row), col = whole ? 0 : draw_below(width);
        int64_t wide = whole ? width : draw_from(0, width - col), stride = wide + (strided ? draw_below(4) : 0);
        for (int k = 0; k < ROOM; k++) out[k] = i * 1000 + k; /* what lies between the rows must not be written */
        CU_ASSERT(em_bulk_write(&bulk, data, width, row, high, col, wide, out, stride, &status));
        for (int64_t r = 0; r < high; r++)
            for (int64_t c = 0; c < wide; c++)
                expected[(row + r) * width + col + c] = (int32_t)(i * 1000 + r * stride + c);
        check_bytes(path, data, expected);
    }
    CU_ASSERT(em_bulk_close(&bulk, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    free(expected);
}

/* Blocks with strides and windows of columns go where they belong; the datasets on both sides stay as they were. */
static void writes_touch_nothing_else(void)
{
    const char *path = scratch_path("writes.h5");
    em_dataset before = {.name = "/before", .type = EM_TYPE_INT32, .rank = 1, .dims = {5}};
    em_dataset data = {.name = "/data", .type = EM_TYPE_INT32, .rank = 3, .dims = {3, 7, 11}}, after = before;
    snprintf(after.name, sizeof after.name, "/after");
    em_store *store = created(path);
    em_status status = {0};
    CU_ASSERT(em_store_add(store, &before, &status));
    CU_ASSERT(em_store_add(store, &data, &status));
    CU_ASSERT(em_store_add(store, &after, &status));
    closed(store);
    write_all(path, &before);
    write_all(path, &after);
    check_writes(&data, path, 11, 21);
    check_writes(&data, path, 77, 3); /* the last two axes seen as one */
    check_library_reads(path, "/before", 5);
    check_library_reads(path, "/after", 5);
}

static void what_cannot_be_written_is_told(void)
{
    em_bulk bulk;
    em_status missing = {0}, folder = {0}, full = {0}, no_folder = {0}, over_folder = {0};
    const char *none = scratch_path("none/none.h5");
    check_failed(em_bulk_open(&bulk, none, &missing), &missing, EM_CANNOT_WRITE, WORDS(none));
    check_failed(em_bulk_open(&bulk, scratch_folder, &folder), &folder, EM_CANNOT_WRITE, WORDS(scratch_folder));
    check_failed(em_store_create(none, &no_folder) != NULL, &no_folder, EM_CANNOT_WRITE, WORDS(none));
    check_failed(em_store_create(scratch_folder, &over_folder) != NULL, &over_folder, EM_CANNOT_WRITE,
                 WORDS(scratch_folder));
    em_dataset data = {.name = "/data", .type = EM_TYPE_INT32, .rank = 1, .dims = {3}, .offset = 0};
    int32_t numbers[3] = {0};
    if (access("/dev/full", W_OK) != 0) return; /* a device that is always full; not everywhere */
    em_status status = {0};
    CU_ASSERT(em_bulk_open(&bulk, "/dev/full", &status));
    check_failed(em_bulk_write(&bulk, &data, 3, 0, 1, 0, 3, numbers, 3, &full), &full, EM_CANNOT_WRITE,
                 WORDS("/dev/full", "/data", "space"));
    em_bulk_close(&bulk, &status);
}

/* ---- axes ---- */

static void check_words(em_store *store, const char *name, const char *const *words, int64_t count)
{
    em_dataset data = found(store, name);
    em_status status = {0};
    char **back = NULL;
    CU_ASSERT(data.type == EM_TYPE_TEXT && data.rank == 1 && data.dims[0] == count);
    CU_ASSERT(em_store_read_words(store, &data, &back, &status));
    for (int64_t i = 0; back && i < count; i++) {
        CU_ASSERT_STRING_EQUAL(back[i], words[i]);
        free(back[i]);
    }
    free(back);
}

static void axes_have_labels_and_are_attached(void)
{
    static const char *const phases[] = {"attention", "r\xc3\xb4uter", ""};
    static const int64_t layers[] = {0, 5};
    const char *path = scratch_path("axes.h5");
    em_status status = {0};
    em_store *store = created(path);
    em_dataset data = {.name = "/seconds", .type = EM_TYPE_F64, .rank = 2, .dims = {2, 3}};
    CU_ASSERT(em_store_add_axis(store, "layer", 2, layers, &status));
    CU_ASSERT(em_store_add_word_axis(store, "phase", 3, phases, &status));
    CU_ASSERT(em_store_add(store, &data, &status));
    CU_ASSERT(em_store_attach(store, "/seconds", 0, "layer", &status));
    CU_ASSERT(em_store_attach(store, "/seconds", 1, "phase", &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    closed(store);
    store = opened(path);
    check_words(store, "/phase", phases, 3);
    em_dataset layer = found(store, "/layer");
    int64_t back[2] = {-1, -1};
    CU_ASSERT(em_store_read_block(store, &layer, 0, 1, 0, 2, back, &status));
    CU_ASSERT(layer.type == EM_TYPE_INT64 && back[0] == 0 && back[1] == 5);
    CU_ASSERT(em_store_has_attribute(store, "/seconds", "DIMENSION_LIST"));
    char *class = NULL;
    CU_ASSERT(em_store_get_text(store, "/layer", "CLASS", &class, &status));
    if (class) CU_ASSERT_STRING_EQUAL(class, "DIMENSION_SCALE");
    free(class);
    closed(store);
}

/* ---- finding ---- */

static void datasets_are_listed_in_order(void)
{
    static const char *const expected[] = {"/a", "/b/c", "/b/d/e", "/z"};
    const char *path = scratch_path("list.h5");
    em_store *store = created(path);
    em_status status = {0};
    for (int i = 3; i >= 0; i--) {
        em_dataset data = {.type = EM_TYPE_INT8, .rank = 1, .dims = {1}};
        snprintf(data.name, sizeof data.name, "%s", expected[i]);
        CU_ASSERT(em_store_add(store, &data, &status));
    }
    CU_ASSERT(em_store_add_group(store, "/empty", &status));
    closed(store);
    store = opened(path);
    int count = 0;
    char **names = em_store_list(store, &count);
    CU_ASSERT_EQUAL(count, 4);
    for (int i = 0; i < count; i++) {
        if (i < 4) CU_ASSERT_STRING_EQUAL(names[i], expected[i]);
        free(names[i]);
    }
    free(names);
    closed(store);
}

static void what_is_not_a_dataset_is_missing(void)
{
    static const char *const names[] = {"/nope", "/group", "/group/nope", "/nope/nope", "/data/nope", "/"};
    const char *path = scratch_path("missing.h5");
    em_store *store = created(path);
    em_status status = {0};
    em_dataset data = {.name = "/data", .type = EM_TYPE_INT8, .rank = 1, .dims = {1}};
    CU_ASSERT(em_store_add_group(store, "/group", &status));
    CU_ASSERT(em_store_add(store, &data, &status));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        em_status failed = {0};
        CU_ASSERT_FALSE(em_store_has(store, names[i]));
        check_failed(em_store_find(store, names[i], &data, &failed), &failed, EM_BAD_DATA, WORDS(path, names[i]));
    }
    closed(store);
}

/* Made by the library: big-endian numbers, half floats, a compound, five axes, a link to nothing, no numbers at all. */
static void write_strange_things(const char *path, const char *long_name)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t dims[] = {2, 1, 1, 1, 1}, nothing[] = {0, 3};
    hid_t two = H5Screate_simple(1, dims, NULL), five = H5Screate_simple(5, dims, NULL);
    hid_t none = H5Screate_simple(2, nothing, NULL), null = H5Screate(H5S_NULL), pair = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(pair, "x", 0, H5T_NATIVE_FLOAT);
    H5Tinsert(pair, "y", 4, H5T_NATIVE_FLOAT);
    const struct {
        const char *name;
        hid_t type, space;
    } things[] = {{"big", H5T_IEEE_F32BE, two},   {"unsigned", H5T_STD_U16LE, two}, {"pair", pair, two},
                  {"five", H5T_STD_I8LE, five},   {"none", H5T_STD_I8LE, none},     {"null", H5T_STD_I8LE, null},
                  {long_name, H5T_STD_I32LE, two}};
    static const float values[] = {1.5F, -2};
    for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
        hid_t data =
            H5Dcreate2(file, things[i].name, things[i].type, things[i].space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        CU_ASSERT(data >= 0);
        if (i == 0) H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
        H5Dclose(data);
    }
    H5Lcreate_soft("/nowhere", file, "dangling", H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(pair);
    H5Sclose(null);
    H5Sclose(none);
    H5Sclose(five);
    H5Sclose(two);
    H5Fclose(file);
}

static void strange_things_are_told_apart(void)
{
    const char *path = scratch_path("strange.h5");
    write_strange_things(path, "plain");
    em_store *store = opened(path);
    em_dataset big = found(store, "/big"), other, none = found(store, "/none");
    em_status status = {0}, five = {0};
    em_type_text type;
    double numbers[2] = {0};
    CU_ASSERT_EQUAL(big.type, EM_TYPE_OTHER);
    CU_ASSERT_STRING_EQUAL(em_store_type(store, &big, type), "big-endian float32");
    CU_ASSERT(em_store_read_numbers(store, &big, (int64_t[]){0}, (int64_t[]){2}, numbers, &status));
    CU_ASSERT(numbers[0] == 1.5 && numbers[1] == -2);
    other = found(store, "/unsigned");
    CU_ASSERT_STRING_EQUAL(em_store_type(store, &other, type), "uint16");
    other = found(store, "/pair");
    CU_ASSERT(other.type == EM_TYPE_OTHER);
    CU_ASSERT_STRING_EQUAL(em_store_type(store, &other, type), "neither a number nor text");
    CU_ASSERT_EQUAL(em_dataset_count(&none), 0);
    check_failed(em_store_find(store, "/five", &other, &five), &five, EM_BAD_DATA, WORDS(path, "/five", "5 axes"));
    CU_ASSERT_FALSE(em_store_has(store, "/dangling"));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    closed(store);
}

/* A message, not numbers that were never there. */
static void a_dataset_without_a_space_has_no_numbers(void)
{
    const char *path = scratch_path("null.h5");
    write_strange_things(path, "plain");
    em_store *store = opened(path);
    em_dataset null;
    em_status status = {0};
    double one = 77;
    bool good = em_store_find(store, "/null", &null, &status) &&
                em_store_read_numbers(store, &null, (int64_t[]){0}, (int64_t[]){1}, &one, &status);
    check_failed(good, &status, EM_BAD_DATA, WORDS(path, "/null"));
    closed(store);
}

/* Others may give longer names than this format has: such a dataset is read, or refused by its name, not lost halfway. */
static void long_names_are_read_or_refused(void)
{
    char name[200] = "/", *bare = name + 1;
    memset(bare, 'n', 150);
    const char *path = scratch_path("long.h5");
    write_strange_things(path, bare);
    em_store *store = opened(path);
    em_dataset data;
    em_status status = {0};
    double numbers[2];
    if (em_store_find(store, name, &data, &status))
        CU_ASSERT(em_store_read_numbers(store, &data, (int64_t[]){0}, (int64_t[]){2}, numbers, &status))
    else
        CU_ASSERT(contains(&status, name))
    closed(store);
}

/* ---- files that are no use ---- */

static void check_cannot_open(const char *path, int code, const char *word)
{
    em_status status = {0};
    em_store *store = em_store_open(path, &status);
    check_failed(store != NULL, &status, code, WORDS(path, word));
    em_store_close(store, &status);
}

static void files_that_are_no_use_are_refused(void)
{
    static const char text[] = "This is no HDF5 file, but a text of more than eight bytes.\n";
    check_cannot_open(scratch_path("none.h5"), EM_NO_INPUT, "No such file");
    check_cannot_open(scratch_path("none/none.h5"), EM_NO_INPUT, "No such file");
    check_cannot_open(scratch_write("text.h5", text, sizeof text - 1), EM_BAD_DATA, "not an HDF5 file");
    check_cannot_open(scratch_write("empty.h5", "", 0), EM_BAD_DATA, "not an HDF5 file");
    check_cannot_open(scratch_write("magic.h5", "\211HDF\r\n\032\n", 8), EM_BAD_DATA, "");
    check_cannot_open(scratch_folder, EM_NO_INPUT, "");
    em_status status = {0};
    CU_ASSERT(em_store_close(NULL, &status));
    CU_ASSERT_PTR_NULL(em_store_reopen(scratch_path("none.h5"), &status));
    CU_ASSERT_EQUAL(status.code, EM_CANNOT_WRITE);
}

/* A small file with all that a weights file and a trace have. Returns its length. */
static int64_t write_specimen(const char *path)
{
    static const char *const words[] = {"one", "two"};
    static const int64_t labels[] = {0, 1};
    em_status status = {0};
    em_store *store = created(path);
    em_dataset a = {.name = "/layers/000/up", .type = EM_TYPE_BF16, .rank = 2, .dims = {2, 3}};
    em_dataset b = {.name = "/embedding", .type = EM_TYPE_F32, .rank = 2, .dims = {2, 2}};
    put_attributes(store, "/", 3);
    CU_ASSERT(em_store_add_group(store, "/config", &status));
    put_attributes(store, "/config", 4);
    CU_ASSERT(em_store_add(store, &a, &status) && em_store_add(store, &b, &status));
    CU_ASSERT(em_store_add_axis(store, "layer", 2, labels, &status));
    CU_ASSERT(em_store_add_word_axis(store, "word", 2, words, &status));
    CU_ASSERT(em_store_attach(store, "/embedding", 0, "layer", &status));
    closed(store);
    write_all(path, &a);
    write_all(path, &b);
    struct stat info;
    CU_ASSERT_EQUAL(stat(path, &info), 0);
    return info.st_size;
}

/* Every shorter file is refused, and named. */
static void truncated_files_are_refused(void)
{
    const char *path = scratch_path("truncated.h5");
    int64_t length = write_specimen(path), wrong = 0;
    closed(opened(path));
    while (length-- > 0) {
        em_status status = {0};
        if (truncate(path, length) != 0) perror(path);
        em_store *store = em_store_open(path, &status);
        bool as_wanted = !store && status.code == EM_BAD_DATA && contains(&status, path);
        if (!as_wanted && wrong++ < 5)
            printf("cut to %lld bytes: %s, code %d: %s\n", (long long)length, store ? "opened" : "refused", status.code,
                   status.text);
        em_store_close(store, &status);
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* ---- files with a wrong byte ---- */

/* Everything that inspecting a file would do. Any answer is good, as long as there is one. */
static void look_through(const char *path)
{
    em_status status = {0};
    em_store *store = em_store_open(path, &status);
    if (!store) return;
    int count = 0;
    char **names = em_store_list(store, &count), *text = NULL;
    int64_t integer;
    double numbers[6];
    for (int i = 0; i < count; i++) {
        em_status failed = {0};
        em_dataset data;
        em_dims_text dims;
        if (em_store_find(store, names[i], &data, &failed)) em_dims(&data, dims);
        if (failed.code == EM_OK && data.rank == 2 && data.type != EM_TYPE_TEXT)
            em_store_read_numbers(store, &data, (int64_t[]){0, 0}, (int64_t[]){1, 1}, numbers, &failed);
        free(names[i]);
    }
    free(names);
    em_store_get_int(store, "/config", "integer", &integer, &status);
    if (em_store_get_text(store, "/", "text", &text, &(em_status){0})) free(text);
    em_store_close(store, &status);
}

/* Some bits of one byte; twice, and it is as it was. */
static void flip(int file, int64_t place)
{
    unsigned char byte = 0, mask = (unsigned char)(place * 37 % 255 + 1);
    if (pread(file, &byte, 1, place) != 1) perror("flip");
    byte ^= mask;
    if (pwrite(file, &byte, 1, place) != 1) perror("flip");
}

enum { OURS = 1, THEIRS = 2 };

/* Where does this process stand, at a crash or in an endless loop: in the HDF5 library, or in this project? glibc aborts
 * when it finds the heap broken, which says nothing of who broke it; our part of that is the sanitizer's to find. */
static void tell_whose(int signal_number)
{
    void *frame[64];
    int count = backtrace(frame, 64);
    Dl_info info;
    for (int i = 0; i < count; i++) {
        if (!dladdr(frame[i], &info) || !info.dli_fname) continue;
        if (strstr(info.dli_fname, "libhdf5")) _exit(THEIRS);
        if (strstr(info.dli_fname, "libexpertmesh")) _exit(signal_number == SIGABRT ? THEIRS : OURS);
    }
    _exit(OURS);
}

/* Called by AddressSanitizer, where there is one, before it reports. */
void __asan_on_error(void);
void __asan_on_error(void)
{
    tell_whose(0);
}

static void end_quietly(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGPROF, SIGALRM};
    static char stack[1 << 16]; /* the other one may be full */
    struct sigaction action = {.sa_handler = tell_whose, .sa_flags = SA_ONSTACK};
    void *frame[1];
    backtrace(frame, 1); /* the first call loads what it needs */
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    if (!freopen("/dev/null", "w", stderr)) perror("/dev/null");
}

/* End this process when it has worked for half a second or waited for half a minute: looking through a small file takes a
 * millisecond, so then it hangs. */
static void limit_time(bool on)
{
    struct itimerval worked = {.it_value = {.tv_usec = on ? 500000 : 0}};
    setitimer(ITIMER_PROF, &worked, NULL);
    alarm(on ? 30 : 0);
}

enum { LANES = 2 }; /* processes that look at once, each through a file of its own */

/* Of the bytes lane, lane + LANES, ... how many ended the process that looked. In memory shared with that. */
typedef struct flips {
    int64_t place; /* the byte at hand; it stays at one that ended the process */
    int64_t ours, theirs;
} flips;

/* In a process of its own, for it may end there: look through the file with each byte of a lane from its place on wrong in
 * turn. Returns 0 when it came to the end. */
static int flip_in_turn(const char *path, int file, int64_t end, volatile flips *lane)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        end_quietly();
        for (; lane->place < end; lane->place += LANES) {
            flip(file, lane->place);
            limit_time(true);
            look_through(path);
            limit_time(false);
            flip(file, lane->place);
        }
        _exit(0);
    }
    int ended = 0;
    return waitpid(child, &ended, 0) == child && WIFEXITED(ended) ? WEXITSTATUS(ended) : OURS;
}

static void flip_all(const char *path, int64_t end, volatile flips *lane)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    for (int whose; (whose = flip_in_turn(path, file, end, lane)) != 0; lane->place += LANES) {
        flip(file, lane->place);
        lane->theirs += whose == THEIRS;
        lane->ours += whose != THEIRS;
        if (whose != THEIRS) printf("wrong byte at %lld: ended with %d\n", (long long)lane->place, whose);
    }
    close(file);
}

/* Every byte of a small file in turn. A crash or an endless loop inside of the HDF5 library is not ours to mend: it is only
 * counted. */
static void a_wrong_byte_anywhere_is_survived(void)
{
    static const char *const name[LANES] = {"flipped-0.h5", "flipped-1.h5"};
    flips *lane = mmap(NULL, sizeof(flips[LANES]), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int64_t length = 0, theirs = 0;
    pid_t child[LANES];
    for (int i = 0; i < LANES; i++) {
        const char *path = scratch_path(name[i]);
        length = write_specimen(path);
        lane[i] = (flips){.place = i};
        fflush(stdout);
        if ((child[i] = fork()) != 0) continue;
        flip_all(path, length, &lane[i]);
        fflush(stdout);
        _exit(0);
    }
    for (int i = 0; i < LANES; i++) {
        int ended = -1;
        CU_ASSERT(waitpid(child[i], &ended, 0) == child[i] && ended == 0);
        CU_ASSERT_EQUAL(lane[i].ours, 0);
        CU_ASSERT(lane[i].place >= length && lane[i].place < length + LANES);
        theirs += lane[i].theirs;
    }
    if (theirs > 0)
        printf("note: %lld wrong bytes of %lld end the HDF5 library itself\n", (long long)theirs, (long long)length);
    munmap(lane, sizeof(flips[LANES]));
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"attributes come back", attributes_come_back},
        {"empty and long texts come back", empty_and_long_texts_come_back},
        {"attributes of other writers are read", attributes_of_other_writers_are_read},
        {"attributes that do not fit are named", attributes_that_do_not_fit_are_named},
        {"several values are not one", several_values_are_not_one},
        {"types have names and sizes", types_have_names_and_sizes},
        {"datasets lie where they are said to", datasets_lie_where_they_are_said_to},
        {"bf16 is a number to the library", bf16_is_a_number_to_the_library},
        {"blocks are read however they are stored", blocks_are_read_however_they_are_stored},
        {"linked datasets are read where they are", linked_datasets_are_read_where_they_are},
        {"contiguous rows run on", contiguous_rows_run_on},
        {"writes touch nothing else", writes_touch_nothing_else},
        {"what cannot be written is told", what_cannot_be_written_is_told},
        {"axes have labels and are attached", axes_have_labels_and_are_attached},
        {"datasets are listed in order", datasets_are_listed_in_order},
        {"what is not a dataset is missing", what_is_not_a_dataset_is_missing},
        {"strange things are told apart", strange_things_are_told_apart},
        {"a dataset without a space has no numbers", a_dataset_without_a_space_has_no_numbers},
        {"long names are read or refused", long_names_are_read_or_refused},
        {"files that are no use are refused", files_that_are_no_use_are_refused},
        {"truncated files are refused", truncated_files_are_refused},
        {"a wrong byte anywhere is survived", a_wrong_byte_anywhere_is_survived},
        {NULL, NULL},
    };
    int code = suite_main(argc, argv, "store", tests);
    scratch_remove();
    return code;
}
