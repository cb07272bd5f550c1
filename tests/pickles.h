/* pickles.h: writes the pickles of the official checkpoint: an array, or int8 with bfloat16 scales. Independent of the reader;
 * byte for byte what Python writes (pickles.py). */
#ifndef EXPERTMESH_TEST_PICKLES_H
#define EXPERTMESH_TEST_PICKLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum pickled { PICKLED_F4, PICKLED_I1, PICKLED_BF16 } pickled;

/* An array: data NULL leaves a hole in the file. */
typedef struct pickled_array {
    pickled type;
    int rank;
    int64_t dims[4];
    const void *data;
} pickled_array;

typedef struct pickler {
    FILE *file;
    unsigned char frame[70000]; /* opcodes not yet written */
    size_t length;
    int memos;
    int reconstruct, ndarray, letter, numpy, dtype, angle; /* where they are kept; -1: not yet */
} pickler;

static inline int64_t pickled_bytes(const pickled_array *array)
{
    static const int64_t size[] = {4, 1, 2};
    int64_t bytes = size[array->type];
    for (int i = 0; i < array->rank; i++) bytes *= array->dims[i];
    return bytes;
}

static inline void pickle_code(pickler *p, const void *bytes, size_t count)
{
    memcpy(p->frame + p->length, bytes, count);
    p->length += count;
}

static inline void pickle_op(pickler *p, int op)
{
    p->frame[p->length++] = (unsigned char)op;
}

static inline int pickle_keep(pickler *p)
{
    pickle_op(p, 0x94);
    return p->memos++;
}

static inline void pickle_number(pickler *p, int bytes, uint64_t value)
{
    for (int i = 0; i < bytes; i++) pickle_op(p, (int)(value >> 8 * i & 255));
}

static inline int pickle_word(pickler *p, const char *word)
{
    pickle_op(p, 0x8c);
    pickle_op(p, (int)strlen(word));
    pickle_code(p, word, strlen(word));
    return pickle_keep(p);
}

/* A word, or what was kept of it. */
static inline void pickle_again(pickler *p, int *kept, const char *word)
{
    if (*kept < 0) {
        *kept = pickle_word(p, word);
    } else {
        pickle_op(p, 'h');
        pickle_op(p, *kept);
    }
}

static inline void pickle_int(pickler *p, int64_t value)
{
    if (value >= 0 && value < 256) {
        pickle_op(p, 'K');
        pickle_number(p, 1, (uint64_t)value);
    } else if (value >= 0 && value < 65536) {
        pickle_op(p, 'M');
        pickle_number(p, 2, (uint64_t)value);
    } else {
        pickle_op(p, 'J');
        pickle_number(p, 4, (uint64_t)value);
    }
}

static inline void pickle_end_frame(pickler *p)
{
    if (p->length >= 4) {
        fputc(0x95, p->file);
        for (int i = 0; i < 8; i++) fputc((int)(p->length >> 8 * i & 255), p->file);
    }
    fwrite(p->frame, 1, p->length, p->file);
    p->length = 0;
}

static inline void pickle_data(pickler *p, int64_t bytes, const void *data)
{
    unsigned char head[9] = {0};
    size_t count = bytes < 256 ? 2 : bytes <= (int64_t)UINT32_MAX ? 5 : 9;
    head[0] = count == 2 ? 'C' : count == 5 ? 'B' : 0x8e;
    for (size_t i = 1; i < count; i++) head[i] = (unsigned char)((uint64_t)bytes >> 8 * (i - 1));
    if (bytes < 65536) {
        pickle_code(p, head, count);
        if (data)
            pickle_code(p, data, (size_t)bytes);
        else
            for (int64_t i = 0; i < bytes; i++) pickle_op(p, 0);
    } else {
        pickle_end_frame(p);
        fwrite(head, 1, count, p->file);
        if (data)
            fwrite(data, 1, (size_t)bytes, p->file);
        else
            fseek(p->file, (long)bytes, SEEK_CUR);
    }
    pickle_keep(p);
}

static inline void pickle_tuple(pickler *p, int op)
{
    pickle_op(p, op);
    pickle_keep(p);
}

/* dtype("f4", False, True), built from its state. */
static inline void pickle_dtype(pickler *p, pickled type)
{
    if (p->dtype < 0) {
        pickle_again(p, &p->numpy, "numpy");
        pickle_word(p, "dtype");
        pickle_op(p, 0x93);
        p->dtype = pickle_keep(p);
    } else {
        pickle_op(p, 'h');
        pickle_op(p, p->dtype);
    }
    if (type == PICKLED_BF16) {
        pickle_word(p, "ml_dtypes");
        pickle_word(p, "bfloat16");
        pickle_op(p, 0x93);
        pickle_keep(p);
    } else {
        pickle_word(p, type == PICKLED_F4 ? "f4" : "i1");
    }
    pickle_code(p, "\x89\x88", 2);
    pickle_tuple(p, 0x87);
    pickle_op(p, 'R');
    pickle_keep(p);
    pickle_code(p, "(K\x03", 3);
    if (type == PICKLED_I1)
        pickle_word(p, "|");
    else
        pickle_again(p, &p->angle, "<");
    pickle_code(p, "NNN", 3);
    for (int i = 0; i < 2; i++) pickle_int(p, type == PICKLED_BF16 ? 2 : -1);
    pickle_int(p, type == PICKLED_BF16 ? 112 : 0);
    pickle_tuple(p, 't');
    pickle_op(p, 'b');
}

static inline void pickle_array(pickler *p, const pickled_array *array)
{
    static const int tuples[] = {')', 0x85, 0x86, 0x87};
    if (p->reconstruct < 0) {
        pickle_word(p, "numpy.core.multiarray");
        pickle_word(p, "_reconstruct");
        pickle_op(p, 0x93);
        p->reconstruct = pickle_keep(p);
        pickle_again(p, &p->numpy, "numpy");
        pickle_word(p, "ndarray");
        pickle_op(p, 0x93);
        p->ndarray = pickle_keep(p);
    } else {
        pickle_op(p, 'h');
        pickle_op(p, p->reconstruct);
        pickle_op(p, 'h');
        pickle_op(p, p->ndarray);
    }
    pickle_int(p, 0);
    pickle_tuple(p, 0x85);
    if (p->letter < 0) {
        pickle_code(p,
                    "C\x01"
                    "b",
                    3);
        p->letter = pickle_keep(p);
    } else {
        pickle_op(p, 'h');
        pickle_op(p, p->letter);
    }
    pickle_tuple(p, 0x87);
    pickle_op(p, 'R');
    pickle_keep(p);
    pickle_code(p, "(K\x01", 3);
    for (int i = 0; i < array->rank; i++) pickle_int(p, array->dims[i]);
    pickle_tuple(p, tuples[array->rank]);
    pickle_dtype(p, array->type);
    pickle_op(p, 0x89);
    pickle_data(p, pickled_bytes(array), array->data);
    pickle_tuple(p, 't');
    pickle_op(p, 'b');
}

/* One array, or weight and scales. */
static inline void pickle_write(const char *path, const pickled_array *data, const pickled_array *scales)
{
    pickler *p = calloc(1, sizeof *p);
    p->file = fopen(path, "wb");
    p->reconstruct = p->ndarray = p->letter = p->numpy = p->dtype = p->angle = -1;
    if (!p->file) {
        perror(path);
        exit(1);
    }
    fwrite("\x80\x04", 1, 2, p->file);
    if (scales) {
        pickle_word(p, "__main__");
        pickle_word(p, "QuantizedWeight8bit");
        pickle_op(p, 0x93);
        pickle_keep(p);
        pickle_op(p, ')');
        pickle_op(p, 0x81);
        pickle_keep(p);
        pickle_op(p, '}');
        pickle_keep(p);
        pickle_op(p, '(');
        pickle_word(p, "weight");
        pickle_array(p, data);
        pickle_word(p, "scales");
        pickle_array(p, scales);
        pickle_code(p, "ub", 2);
    } else {
        pickle_array(p, data);
    }
    pickle_op(p, '.');
    pickle_end_frame(p);
    if (fclose(p->file) != 0) perror(path);
    free(p);
}

#endif
