/* Files of a foreign checkpoint: opening, reading exactly, and the list of what lies in them. */
#include "foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool em_input_open(em_input *input, const char *path, em_status *status)
{
    struct stat info;
    *input = (em_input){.file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)}; /* a pipe would wait for its writer */
    if (input->file < 0 || fstat(input->file, &info) != 0)
        em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        em_fail(status, EM_NO_INPUT, "%s: not a plain file", path);
    if (status->code != EM_OK) {
        if (input->file >= 0) close(input->file);
        input->file = -1;
        return false;
    }
    input->size = (int64_t)info.st_size;
    input->changed = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    input->path = em_text("%s", path);
    return true;
}

bool em_input_read(const em_input *input, int64_t offset, int64_t bytes, void *out, em_status *status)
{
    char *to = out;
    while (bytes > 0) {
        ssize_t got = pread(input->file, to, (size_t)bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return em_fail(status, EM_BAD_DATA, "%s: cannot be read at byte %lld: %s", input->path, (long long)offset,
                           got == 0 ? "the file ends there" : strerror(errno));
        to += got;
        offset += got;
        bytes -= got;
    }
    return true;
}

void em_input_close(em_input *input)
{
    if (input->path && input->file >= 0) close(input->file);
    free(input->path);
    *input = (em_input){.file = -1};
}

/* ---- headers ---- */

static bool ends(const em_cursor *cursor, em_status *status)
{
    return em_fail(status, EM_BAD_DATA, "%s: the file ends at byte %lld, within its header", cursor->input->path,
                   (long long)cursor->input->size);
}

bool em_cursor_take(em_cursor *cursor, int64_t bytes, void *out, em_status *status)
{
    for (char *to = out; bytes > 0;) {
        int64_t in = cursor->next - cursor->window_at, left = cursor->input->size - cursor->next;
        if (in < 0 || in >= cursor->window_length) {
            if (left <= 0) return ends(cursor, status);
            in = 0;
            cursor->window_at = cursor->next;
            cursor->window_length = left < (int64_t)sizeof cursor->window ? left : (int64_t)sizeof cursor->window;
            if (!em_input_read(cursor->input, cursor->next, cursor->window_length, cursor->window, status))
                return false;
        }
        int64_t have = cursor->window_length - in < bytes ? cursor->window_length - in : bytes;
        memcpy(to, cursor->window + in, (size_t)have);
        to += have;
        cursor->next += have;
        bytes -= have;
    }
    return true;
}

bool em_cursor_number(em_cursor *cursor, int bytes, uint64_t *number, em_status *status)
{
    unsigned char raw[8];
    *number = 0;
    if (!em_cursor_take(cursor, bytes, raw, status)) return false;
    for (int i = bytes - 1; i >= 0; i--) *number = *number << 8 | raw[i];
    return true;
}

bool em_cursor_skip(em_cursor *cursor, uint64_t bytes, em_status *status)
{
    if (bytes > (uint64_t)(cursor->input->size - cursor->next)) return ends(cursor, status);
    cursor->next += (int64_t)bytes;
    return true;
}

/* ---- numbers and arrays ---- */

static const struct {
    const char *name;
    int bytes;
} numbers[EM_NUM_NUMBERS] = {
    [EM_NUMBER_F32] = {"float32", 4}, [EM_NUMBER_F16] = {"float16", 2}, [EM_NUMBER_BF16] = {"bfloat16", 2},
    [EM_NUMBER_INT8] = {"int8", 1},   [EM_NUMBER_Q8_0] = {"Q8_0", 0},
};

const char *em_number_name(em_number number)
{
    return numbers[number].name;
}

int64_t em_number_bytes(em_number number, int64_t cols)
{
    return number == EM_NUMBER_Q8_0 ? cols / EM_Q8_0_NUMBERS * EM_Q8_0_BYTES : cols * numbers[number].bytes;
}

int64_t em_array_bytes(const em_array *array)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < array->rank; i++) rows *= array->dims[i];
    return rows * em_number_bytes(array->number, array->rank > 0 ? array->dims[array->rank - 1] : 1);
}

const char *em_array_dims(const em_array *array, em_dims_text buffer)
{
    em_dataset shape = {.rank = array->rank};
    memcpy(shape.dims, array->dims, sizeof shape.dims);
    return em_dims(&shape, buffer);
}

/* ---- the list ---- */

int em_foreign_add_input(em_foreign *foreign, const em_input *input)
{
    int n = foreign->num_inputs++;
    foreign->input = em_grow(foreign->input, n, n + 1, sizeof *foreign->input);
    foreign->size = em_grow(foreign->size, n, n + 1, sizeof *foreign->size);
    foreign->changed = em_grow(foreign->changed, n, n + 1, sizeof *foreign->changed);
    foreign->input[n] = em_text("%s", input->path);
    foreign->size[n] = input->size;
    foreign->changed[n] = input->changed;
    return n;
}

/* The bytes of an array of any shape; -1 where they cannot be counted. */
static int64_t count_bytes(const em_array *array)
{
    int64_t count = 1;
    for (int i = 0; i < array->rank; i++)
        if (array->dims[i] < 1 || __builtin_mul_overflow(count, array->dims[i], &count)) return -1;
    if (count > INT64_MAX / 8) return -1;
    if (array->number == EM_NUMBER_Q8_0 && (array->rank == 0 || array->dims[array->rank - 1] % EM_Q8_0_NUMBERS != 0))
        return -1;
    return em_array_bytes(array);
}

bool em_foreign_add(em_foreign *foreign, const em_input *input, const em_array *array, const char *name, size_t length,
                    em_status *status)
{
    enum { LONGEST = 200 };
    em_dims_text dims;
    int shown = length < LONGEST ? (int)length : LONGEST;
    int64_t bytes = count_bytes(array);
    if (length > LONGEST || memchr(name, '\0', length))
        return em_fail(status, EM_BAD_DATA, "%s: an array's name, \"%.*s\", is longer than any model's, or has a NUL",
                       input->path, shown, name);
    if (bytes < 0)
        return em_fail(status, EM_BAD_DATA, "%s: %.*s has shape %s, which %s numbers cannot have", input->path, shown,
                       name, em_array_dims(array, dims), em_number_name(array->number));
    if (array->offset < 0 || array->offset > input->size || bytes > input->size - array->offset)
        return em_fail(status, EM_BAD_DATA,
                       "%s: %.*s should take %lld bytes from byte %lld on, but the file has %lld bytes", input->path,
                       shown, name, (long long)bytes, (long long)array->offset, (long long)input->size);
    if (foreign->num_arrays == foreign->room) {
        foreign->room = 2 * foreign->room + 16;
        foreign->array = em_grow(foreign->array, foreign->num_arrays, foreign->room, sizeof *array);
    }
    em_array *added = &foreign->array[foreign->num_arrays++];
    *added = *array;
    added->name = em_text("%.*s", (int)length, name);
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const em_array *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

bool em_foreign_check_overlap(const em_foreign *foreign, const em_input *input, int number, em_status *status)
{
    const em_array **sorted = em_alloc(foreign->num_arrays, sizeof *sorted);
    int64_t count = 0;
    for (int64_t i = 0; i < foreign->num_arrays; i++)
        if (foreign->array[i].input == number) sorted[count++] = &foreign->array[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_offset);
    for (int64_t i = 1; i < count && status->code == EM_OK; i++)
        if (sorted[i]->offset < sorted[i - 1]->offset + em_array_bytes(sorted[i - 1]))
            em_fail(status, EM_BAD_DATA, "%s: %s and %s overlap: both have byte %lld", input->path, sorted[i - 1]->name,
                    sorted[i]->name, (long long)sorted[i]->offset);
    free(sorted);
    return status->code == EM_OK;
}

void em_foreign_tell(em_foreign *foreign, const char *field, double value)
{
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *known = &em_config_fields[f];
        if (strcmp(known->name, field) != 0 || (foreign->given >> f & 1)) continue;
        if (known->type == EM_FIELD_INTEGER) /* no such number: em_config_check refuses it by name */
            *em_config_integer(&foreign->config, known) =
                value == floor(value) && fabs(value) < 9e15 ? (int64_t)value : -1;
        else
            *em_config_real(&foreign->config, known) = value;
        foreign->given |= UINT32_C(1) << f;
    }
}

void em_foreign_close(em_foreign *foreign)
{
    for (int64_t i = 0; i < foreign->num_arrays; i++) free(foreign->array[i].name);
    for (int i = 0; i < foreign->num_inputs; i++) free(foreign->input[i]);
    free(foreign->array);
    free(foreign->input);
    free(foreign->size);
    free(foreign->changed);
    free(foreign->path);
    *foreign = (em_foreign){0};
}
