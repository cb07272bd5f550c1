#include "expertmesh/export.h"

#include "headers.h"
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct exporting {
    const em_source *source;
    em_export_form form;
    em_array *array; /* in the order of the file; place.layer and place.expert are ours */
    int64_t num_arrays;
    em_bytes_list header;
    em_bulk bulk;
    em_room raw, scale, row, out;
    em_progress *progress;
    void *context;
    double done, all; /* bytes of this rank */
} exporting;

/* ---- what becomes of a tensor ---- */

/* Can each scale of a tensor be a half, exactly? */
static bool scales_are_halves(const em_source *source, const em_form *form, em_status *status)
{
    enum { ROWS = 4096 };
    int64_t rows = em_dataset_count(&form->scale) / form->groups;
    int64_t matrix = form->scale.rank > 1 ? form->scale.dims[form->scale.rank - 2] : 1;
    float *scale = em_alloc(ROWS * form->groups, sizeof *scale);
    bool exact = true;
    for (int64_t row = 0, count; exact && row < rows; row += count) {
        count = rows - row < ROWS ? rows - row : ROWS;
        if (count > matrix - row % matrix) count = matrix - row % matrix; /* within one expert */
        exact = em_store_read_block(source->store, &form->scale, row, count, 0, form->groups, scale, status);
        for (int64_t i = 0; exact && i < count * form->groups; i++)
            exact = em_f16_to_f32(em_f32_to_f16(scale[i])) == scale[i];
    }
    free(scale);
    return exact;
}

static em_number number_for(const exporting *x, em_tensor tensor, int64_t layer, const em_storage *storage,
                            em_status *status)
{
    const em_form *form = em_source_form(x->source, tensor, layer);
    em_tensor_shape shape = em_tensor_shape_of(&x->source->config, tensor);
    bool in_32s = shape.cols % EM_Q8_0_NUMBERS == 0;
    if (!shape.quantised) return EM_NUMBER_F32;
    if (storage && *storage == EM_INT8) return in_32s ? EM_NUMBER_Q8_0 : EM_NUMBER_F32;
    if (storage) return *storage == EM_BF16 ? EM_NUMBER_BF16 : EM_NUMBER_F32;
    if (form->storage == EM_BF16) return EM_NUMBER_BF16;
    bool kept = x->form == EM_EXPORT_GGUF && form->storage == EM_INT8 && in_32s &&
                shape.cols / form->groups % EM_Q8_0_NUMBERS == 0 && scales_are_halves(x->source, form, status);
    return kept ? EM_NUMBER_Q8_0 : EM_NUMBER_F32;
}

static void add_array(exporting *x, em_place place, em_number number, const em_tensor_shape *shape)
{
    bool by_expert = place.expert != EM_ALL_EXPERTS;
    em_array array = {.number = number, .rank = by_expert ? 2 : shape->rank, .place = place};
    em_name name;
    memcpy(array.dims, shape->dims + by_expert, (size_t)array.rank * sizeof *array.dims);
    array.name =
        em_text("%s", em_place_name(x->form == EM_EXPORT_GGUF ? EM_NAMING_GGUF : EM_NAMING_TRANSFORMER, &place, name));
    x->array[x->num_arrays++] = array;
}

/* All arrays, and the beginning of the file. */
static void plan(exporting *x, const em_storage *storage, em_status *status)
{
    const em_config *config = &x->source->config;
    x->array = em_zeroed(EM_NUM_TENSORS * config->num_layers * config->num_experts, sizeof *x->array);
    for (int64_t layer = 0; layer < config->num_layers; layer++)
        for (em_tensor t = layer == 0 ? EM_EMBEDDING : EM_FIRST_LAYER_TENSOR; t < EM_NUM_TENSORS; t++) {
            em_tensor_shape shape = em_tensor_shape_of(config, t);
            if (!shape.present) continue;
            em_number number = number_for(x, t, layer, storage, status);
            em_place place = {EM_ROLE_DATA, t, layer, EM_ALL_EXPERTS};
            bool divided = t >= EM_FFN_GATE && x->form == EM_EXPORT_SAFETENSORS;
            if (!divided) add_array(x, place, number, &shape);
            for (place.expert = 0; divided && place.expert < config->num_experts; place.expert++)
                add_array(x, place, number, &shape);
        }
    if (x->form == EM_EXPORT_GGUF)
        em_gguf_header(config, x->array, x->num_arrays, &x->header);
    else
        em_safetensors_header(x->array, x->num_arrays, &x->header);
}

/* ---- numbers ---- */

static void put_q8_0(unsigned char *out, uint16_t scale, const int8_t *q)
{
    out[0] = (unsigned char)scale;
    out[1] = (unsigned char)(scale >> 8);
    memcpy(out + 2, q, EM_Q8_0_NUMBERS);
}

/* Each 32 numbers by their largest. */
static void quantise_row(int64_t cols, const float *row, unsigned char *out)
{
    for (int64_t j = 0; j < cols; j += EM_Q8_0_NUMBERS, out += EM_Q8_0_BYTES) {
        int8_t q[EM_Q8_0_NUMBERS];
        float largest = 0;
        for (int i = 0; i < EM_Q8_0_NUMBERS; i++) largest = fabsf(row[j + i]) > largest ? fabsf(row[j + i]) : largest;
        uint16_t scale = em_f32_to_f16(largest / 127);
        float step = em_f16_to_f32(scale);
        for (int i = 0; i < EM_Q8_0_NUMBERS; i++) {
            float ratio = step > 0 ? rintf(row[j + i] / step) : 0;
            q[i] = (int8_t)(ratio > 127 ? 127 : ratio < -127 ? -127 : ratio);
        }
        put_q8_0(out, scale, q);
    }
}

/* Integers stay; their scales become halves. Only where these do not lose more than their last bits. */
static bool keep_row(const em_matrix *m, int64_t row, unsigned char *out)
{
    const float *scale = m->scale + row * m->num_groups;
    const int8_t *q = (const int8_t *)m->data + row * m->cols;
    if (m->storage != EM_INT8 || m->group_size % EM_Q8_0_NUMBERS != 0) return false;
    for (int64_t g = 0; g < m->num_groups; g++) {
        float size = fabsf(scale[g]), half = em_f16_to_f32(em_f32_to_f16(scale[g]));
        if (half != scale[g] && (size < 6.2e-5F || size > 65000)) return false; /* not a normal half */
    }
    for (int64_t j = 0; j < m->cols; j += EM_Q8_0_NUMBERS, out += EM_Q8_0_BYTES)
        put_q8_0(out, em_f32_to_f16(scale[j / m->group_size]), q + j);
    return true;
}

static void convert_row(exporting *x, const em_matrix *m, em_number number, int64_t row, char *out)
{
    float *numbers = em_room_for(&x->row, m->cols, sizeof *numbers);
    if (number == EM_NUMBER_Q8_0 && keep_row(m, row, (unsigned char *)out)) return;
    em_matrix_rows(m, row, 1, numbers);
    if (number == EM_NUMBER_F32)
        memcpy(out, numbers, (size_t)m->cols * sizeof *numbers);
    else if (number == EM_NUMBER_Q8_0)
        quantise_row(m->cols, numbers, (unsigned char *)out);
    for (int64_t j = 0; number == EM_NUMBER_BF16 && j < m->cols; j++)
        ((uint16_t *)(void *)out)[j] = em_f32_to_bf16(numbers[j]);
}

/* Rows of the whole tensor, over all experts, as they are stored here. They are rows of one expert. */
static bool read_rows(exporting *x, const em_array *array, int64_t row, int64_t rows, em_matrix *m, em_status *status)
{
    const em_form *form = em_source_form(x->source, array->place.tensor, array->place.layer);
    int64_t cols = em_tensor_shape_of(&x->source->config, array->place.tensor).cols;
    *m = (em_matrix){.storage = form->storage, .rows = rows, .cols = cols};
    m->data = em_room_for(&x->raw, rows * cols, em_storage_bytes(form->storage));
    if (!em_store_read_block(x->source->store, &form->data, row, rows, 0, cols, m->data, status)) return false;
    if (form->storage != EM_INT8) return true;
    m->num_groups = form->groups;
    m->group_size = cols / form->groups;
    m->scale = em_room_for(&x->scale, rows * form->groups, sizeof *m->scale);
    return em_store_read_block(x->source->store, &form->scale, row, rows, 0, form->groups, m->scale, status);
}

/* A share of an array's rows, a few megabytes at a time. */
static bool write_array(exporting *x, const em_array *array, em_range share, em_status *status)
{
    enum { PIECE = 1 << 22 };
    em_tensor_shape shape = em_tensor_shape_of(&x->source->config, array->place.tensor);
    int64_t row_bytes = em_number_bytes(array->number, shape.cols),
            step = PIECE / row_bytes > 0 ? PIECE / row_bytes : 1;
    int64_t first = array->place.expert == EM_ALL_EXPERTS ? 0 : array->place.expert * shape.rows;
    em_dataset to = {.type = EM_TYPE_INT8, .offset = array->offset}; /* bytes */
    snprintf(to.name, sizeof to.name, "%.63s", array->name);
    for (int64_t row = share.begin, rows; row < share.end; row += rows) {
        em_matrix m;
        rows = share.end - row < step ? share.end - row : step;
        if (rows > shape.rows - row % shape.rows) rows = shape.rows - row % shape.rows;
        if (!read_rows(x, array, first + row, rows, &m, status)) return false;
        char *out = em_room_for(&x->out, rows * row_bytes, 1);
        for (int64_t r = 0; r < rows; r++) convert_row(x, &m, array->number, r, out + r * row_bytes);
        if (!em_bulk_write(&x->bulk, &to, row_bytes, row, rows, 0, row_bytes, out, row_bytes, status)) return false;
        x->done += (double)(rows * row_bytes);
        if (x->progress) x->progress(x->context, x->done < x->all ? x->done : 0.999 * x->all, x->all);
    }
    return true;
}

/* ---- files ---- */

static int64_t file_bytes(const exporting *x)
{
    const em_array *last = &x->array[x->num_arrays - 1];
    int64_t end = last->offset + em_array_bytes(last);
    return x->form == EM_EXPORT_GGUF ? (end + 31) / 32 * 32 : end;
}

/* The file with its beginning, and room for the rest. On rank 0. */
static bool create_file(const exporting *x, const char *path, em_status *status)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    em_bulk bulk = {.file = file, .path = path};
    em_dataset header = {.name = "its header", .type = EM_TYPE_INT8};
    if (file < 0) return em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    bool good =
        ftruncate(file, (off_t)file_bytes(x)) == 0 || em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    good = good && em_bulk_reserve(&bulk, status) &&
           em_bulk_write(&bulk, &header, x->header.length, 0, 1, 0, x->header.length, x->header.memory,
                         x->header.length, status);
    return em_bulk_close(&bulk, status) && good;
}

static bool write_text(const char *path, const char *text, em_status *status)
{
    FILE *file = fopen(path, "wb");
    if (!file) return em_fail(status, EM_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    bool good = fputs(text, file) >= 0;
    good = fclose(file) == 0 && good;
    return good || em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", path, strerror(errno));
}

/* A folder, what is in it, and the file of its weights. Of GGUF there is only the file. */
typedef struct output {
    char *partial; /* until it is whole */
    char *weights, *config;
} output;

static output name_output(em_export_form form, const char *path)
{
    output o = {.partial = em_text("%s.partial", path)};
    bool folder = form == EM_EXPORT_SAFETENSORS;
    o.weights = folder ? em_text("%s/model.safetensors", o.partial) : em_text("%s", o.partial);
    o.config = folder ? em_text("%s/config.json", o.partial) : NULL;
    return o;
}

static void create_output(const exporting *x, const output *o, em_status *status)
{
    bool bf16 = false;
    for (int64_t i = 0; i < x->num_arrays; i++) bf16 |= x->array[i].number == EM_NUMBER_BF16;
    if (o->config && mkdir(o->partial, 0777) != 0 && errno != EEXIST)
        em_fail(status, EM_CANNOT_WRITE, "%s: %s", o->partial, strerror(errno));
    if (status->code == EM_OK) create_file(x, o->weights, status);
    if (status->code != EM_OK || !o->config) return;
    char *text = em_config_json_text(&x->source->config, bf16);
    write_text(o->config, text, status);
    free(text);
}

static void remove_output(const output *o)
{
    if (o->config) unlink(o->config);
    unlink(o->weights);
    if (o->config) rmdir(o->partial);
}

static bool check_exportable(const em_source *source, em_export_form form, const em_storage *storage, em_status *status)
{
    if (source->config.ffn_kind != EM_FFN_GLU)
        return em_fail(status, EM_BAD_DATA,
                       "%s: its neurons have biases (ffn_kind mlp), which no other form of Grok-1 has",
                       em_store_path(source->store));
    return form == EM_EXPORT_GGUF || !storage || *storage != EM_INT8 ||
           em_fail(status, EM_USAGE, "safetensors of this model hold f32 or bf16, but no int8");
}

static bool write_output(MPI_Comm comm, exporting *x, const output *o, const char *path, em_status *status)
{
    int rank, ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    if (rank == 0) create_output(x, o, status);
    bool good = em_agree(comm, status);
    x->all = (double)file_bytes(x) / ranks;
    if (good && em_bulk_open(&x->bulk, o->weights, status)) {
        for (int64_t i = 0; i < x->num_arrays && status->code == EM_OK; i++) {
            const em_array *array = &x->array[i];
            em_tensor_shape shape = em_tensor_shape_of(&x->source->config, array->place.tensor);
            int64_t rows = shape.rows * (array->place.expert == EM_ALL_EXPERTS ? shape.experts : 1);
            em_stand((int)array->place.layer, "exporting weights");
            write_array(x, array, em_share(rows, ranks, rank), status);
        }
        em_bulk_close(&x->bulk, status);
        em_stand(-1, NULL);
    }
    good = good && em_agree(comm, status);
    if (good && rank == 0 && rename(o->partial, path) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", o->partial, path, strerror(errno));
    good = good && em_agree(comm, status);
    if (!good && rank == 0) remove_output(o);
    return good;
}

bool em_weights_export(MPI_Comm comm, const char *weights, em_export_form form, const em_storage *storage,
                       const char *path, em_progress *progress, void *context, double *bytes, em_status *status)
{
    em_source source = {0};
    exporting x = {.source = &source, .form = form, .bulk.file = -1, .progress = progress, .context = context};
    output o = name_output(form, path);
    if (em_source_open(&source, weights, status) && check_exportable(&source, form, storage, status))
        plan(&x, storage, status);
    bool good = em_agree(comm, status) && write_output(comm, &x, &o, path, status);
    if (good && progress) progress(context, 1, 1);
    if (good && bytes) *bytes = (double)file_bytes(&x);
    for (int64_t i = 0; i < x.num_arrays; i++) free(x.array[i].name);
    em_room *const rooms[] = {&x.raw, &x.scale, &x.row, &x.out};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) em_room_free(rooms[i]);
    free(x.array);
    free(x.header.memory);
    free(o.partial);
    free(o.weights);
    free(o.config);
    em_source_close(&source);
    return good;
}
