#include "convert.h"

#include "expertmesh/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const em_array *array_of(const em_selection *s, em_role role, em_tensor tensor, int64_t layer, int64_t expert)
{
    bool layered = tensor >= EM_FIRST_LAYER_TENSOR, divided = tensor >= EM_FFN_GATE; /* into experts */
    return em_foreign_find(s->foreign, role, tensor, layered ? s->layer[layer] : 0, divided ? s->expert[expert] : 0);
}

static em_storage storage_of(em_number number)
{
    static const em_storage storage[EM_NUM_NUMBERS] = {[EM_NUMBER_F32] = EM_F32,
                                                       [EM_NUMBER_F16] = EM_F32,
                                                       [EM_NUMBER_BF16] = EM_BF16,
                                                       [EM_NUMBER_INT8] = EM_INT8,
                                                       [EM_NUMBER_Q8_0] = EM_INT8};
    return storage[number];
}

static int64_t groups_of(const em_array *array, const em_array *scale, int64_t cols)
{
    if (array->number == EM_NUMBER_Q8_0) return cols / EM_Q8_0_NUMBERS;
    return scale ? scale->dims[scale->rank - (scale->transposed ? 2 : 1)] : 1;
}

em_form em_import_form(const em_selection *s, em_tensor tensor, int64_t layer, const em_storage *storage)
{
    em_tensor_shape shape = em_tensor_shape_of(&s->target.config, tensor);
    const em_array *first = array_of(s, EM_ROLE_DATA, tensor, layer, 0);
    const em_array *scale = array_of(s, EM_ROLE_SCALE, tensor, layer, 0);
    em_form form = {.storage = EM_F32, .groups = 1};
    if (!shape.quantised) return form;
    bool integer = storage_of(first->number) == EM_INT8, alike = true;
    for (int64_t e = 1; e < shape.experts; e++)
        alike = alike && array_of(s, EM_ROLE_DATA, tensor, layer, e)->number == first->number;
    if (!storage)
        form.storage = alike ? storage_of(first->number) : EM_F32; /* f32 holds each of them */
    else
        form.storage = *storage == EM_INT8 && integer && alike ? EM_INT8 : em_tensor_storage(tensor, *storage);
    if (form.storage == EM_INT8 && integer && alike) form.groups = groups_of(first, scale, shape.cols);
    return form;
}

/* ---- one block ---- */

/* What is at hand for a block. */
typedef struct block_view {
    const em_array *array, *scale;
    const em_form *form;
    int64_t all_rows, cols; /* of one expert's matrix in its file */
    int64_t expert;         /* theirs */
    em_range rows;          /* theirs */
} block_view;

static bool read_rows(em_reader *reader, const em_array *array, const block_view *v, int64_t cols, em_room *room,
                      em_status *status)
{
    void *out = em_room_for(room, em_range_size(v->rows) * em_number_bytes(array->number, cols), 1);
    return em_rows_read(reader, array, v->expert, v->all_rows, cols, v->rows, out, status);
}

/* Scales as float32, [rows, groups]. */
static bool read_scales(em_converter *c, const block_view *v, em_status *status)
{
    int64_t groups = groups_of(v->array, v->scale, v->cols), count = em_range_size(v->rows) * groups;
    if (!read_rows(&c->reader, v->scale, v, groups, &c->other, status)) return false;
    c->scales = em_room_for(&c->scale, count, sizeof *c->scales);
    em_numbers_to_f32(v->scale->number, count, c->other.memory, c->scales);
    return true;
}

/* A row of what was read as float32. */
static void row_to_f32(const em_converter *c, const block_view *v, int64_t row, float *out)
{
    const char *raw = (const char *)c->raw.memory + row * em_number_bytes(v->array->number, v->cols);
    if (v->array->number != EM_NUMBER_INT8) {
        em_numbers_to_f32(v->array->number, v->cols, raw, out);
        return;
    }
    int64_t groups = groups_of(v->array, v->scale, v->cols), size = v->cols / groups;
    for (int64_t j = 0; j < v->cols; j++) out[j] = (float)((const int8_t *)raw)[j] * c->scales[row * groups + j / size];
}

/* To the nearest of 255 numbers up to the largest of the row, ties to even. */
static void row_to_int8(int64_t cols, const float *row, int8_t *out, float *scale)
{
    float largest = 0;
    for (int64_t j = 0; j < cols; j++) largest = fabsf(row[j]) > largest ? fabsf(row[j]) : largest;
    *scale = largest > 0 ? largest / 127 : 1;
    for (int64_t j = 0; j < cols; j++) {
        float q = rintf(row[j] / *scale);
        out[j] = (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

/* Integers and scales of Q8_0, apart. */
static void split_q8_0(em_converter *c, const block_view *v)
{
    int64_t count = em_range_size(v->rows) * v->cols, blocks = count / EM_Q8_0_NUMBERS;
    const unsigned char *in = c->raw.memory;
    int8_t *out = em_room_for(&c->out, count, 1);
    c->scales = em_room_for(&c->scale, blocks, sizeof *c->scales);
    for (int64_t b = 0; b < blocks; b++, in += EM_Q8_0_BYTES) {
        c->scales[b] = em_f16_to_f32((uint16_t)(in[0] | in[1] << 8));
        memcpy(out + b * EM_Q8_0_NUMBERS, in + 2, EM_Q8_0_NUMBERS);
    }
    c->data = out;
}

/* Row by row through float32. */
static void convert_rows(em_converter *c, const block_view *v)
{
    int64_t rows = em_range_size(v->rows), cols = v->cols;
    float *row = em_room_for(&c->row, cols, sizeof *row);
    char *out = em_room_for(&c->out, rows * cols, em_storage_bytes(v->form->storage));
    float *scales = v->form->storage == EM_INT8 ? em_room_for(&c->scale, rows, sizeof *scales) : NULL;
    for (int64_t r = 0; r < rows; r++) {
        row_to_f32(c, v, r, row);
        if (v->form->storage == EM_F32)
            memcpy(out + r * cols * (int64_t)sizeof *row, row, (size_t)cols * sizeof *row);
        else if (v->form->storage == EM_INT8)
            row_to_int8(cols, row, (int8_t *)out + r * cols, &scales[r]);
        for (int64_t j = 0; v->form->storage == EM_BF16 && j < cols; j++)
            ((uint16_t *)(void *)out)[r * cols + j] = em_f32_to_bf16(row[j]);
    }
    c->data = out;
    if (scales) c->scales = scales;
}

static bool check_finite(const em_converter *c, const block_view *v, em_status *status)
{
    int64_t count = em_range_size(v->rows) * v->cols, at = -1;
    if (v->form->storage == EM_F32) at = em_first_not_finite(count, c->data);
    if (v->form->storage == EM_BF16) at = em_first_not_finite_bf16(count, c->data);
    if (v->form->storage == EM_INT8) at = em_first_not_finite(em_range_size(v->rows) * v->form->groups, c->scales);
    if (at < 0) return true;
    int64_t width = v->form->storage == EM_INT8 ? v->form->groups : v->cols;
    return em_fail(status, EM_BAD_DATA, "%s: %s has a NaN or infinity for output %lld, input %s %lld%s",
                   c->reader.foreign->input[v->array->input], v->array->name, (long long)(v->rows.begin + at / width),
                   v->form->storage == EM_INT8 ? "group" : "number", (long long)(at % width),
                   v->form->storage == EM_F32 ? "" : ", as it would be stored");
}

/* An output matrix of its own must be the embedding, number by number. */
static bool check_head(em_converter *c, const em_foreign *foreign, const block_view *v, em_status *status)
{
    const em_array *head = em_foreign_find(foreign, EM_ROLE_HEAD, EM_EMBEDDING, 0, EM_ALL_EXPERTS);
    if (!head) return true;
    if (!read_rows(&c->head, head, v, v->cols, &c->other, status)) return false;
    int64_t row_bytes = em_number_bytes(head->number, v->cols);
    float *mine = em_room_for(&c->row, 2 * v->cols, sizeof *mine), *theirs = mine + v->cols;
    for (int64_t r = 0; r < em_range_size(v->rows); r++) {
        row_to_f32(c, v, r, mine);
        em_numbers_to_f32(head->number, v->cols, (const char *)c->other.memory + r * row_bytes, theirs);
        if (memcmp(mine, theirs, (size_t)v->cols * sizeof *mine) == 0) continue;
        return em_fail(status, EM_BAD_DATA,
                       "%s: %s differs from %s, first in row %lld; the model uses one matrix for both, so such a "
                       "checkpoint cannot be run",
                       foreign->input[head->input], head->name, v->array->name, (long long)(v->rows.begin + r));
    }
    return true;
}

static bool make(em_converter *c, const em_selection *s, const block_view *v, em_tensor tensor, em_status *status)
{
    em_number number = v->array->number;
    if (!read_rows(&c->reader, v->array, v, v->cols, &c->raw, status)) return false;
    if (number == EM_NUMBER_INT8 && !read_scales(c, v, status)) return false;
    if (tensor == EM_EMBEDDING && !check_head(c, s->foreign, v, status)) return false;
    bool kept = storage_of(number) == v->form->storage && number != EM_NUMBER_F16;
    c->data = c->raw.memory;
    if (!kept)
        convert_rows(c, v);
    else if (number == EM_NUMBER_Q8_0)
        split_q8_0(c, v);
    return check_finite(c, v, status);
}

/* The rows of a router are experts: chosen ones lie apart. */
static bool make_router(em_converter *c, const em_selection *s, block_view *v, em_range rows, em_status *status)
{
    int64_t count = em_range_size(rows);
    float *all = em_alloc(count * v->cols, sizeof *all);
    bool good = true;
    for (int64_t i = 0; good && i < count; i++) {
        int64_t theirs = s->expert[rows.begin + i];
        v->rows = (em_range){theirs, theirs + 1};
        good = make(c, s, v, EM_ROUTER, status);
        if (good) memcpy(all + i * v->cols, c->data, (size_t)v->cols * sizeof *all);
    }
    c->data = em_room_for(&c->out, count * v->cols, sizeof *all);
    memcpy(c->data, all, (size_t)(count * v->cols) * sizeof *all);
    free(all);
    return good;
}

bool em_convert_block(em_converter *c, const em_selection *s, const em_import_block *block, em_status *status)
{
    em_tensor_shape shape = em_tensor_shape_of(&s->foreign->config, block->tensor);
    block_view v = {.array = array_of(s, EM_ROLE_DATA, block->tensor, block->layer, block->expert),
                    .scale = array_of(s, EM_ROLE_SCALE, block->tensor, block->layer, block->expert),
                    .form = em_source_form(&s->target, block->tensor, block->layer),
                    .all_rows = shape.rows,
                    .cols = shape.cols,
                    .expert = block->tensor >= EM_FFN_GATE ? s->expert[block->expert] : 0,
                    .rows = block->rows};
    c->scales = NULL;
    return block->tensor == EM_ROUTER ? make_router(c, s, &v, block->rows, status)
                                      : make(c, s, &v, block->tensor, status);
}

void em_converter_free(em_converter *c)
{
    em_reader_close(&c->reader);
    em_reader_close(&c->head);
    em_room *const rooms[] = {&c->raw, &c->out, &c->scale, &c->row, &c->other};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) em_room_free(rooms[i]);
}
