#include "expertmesh/weights.h"

#include "expertmesh/random.h"
#include "expertmesh/standing.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what they weigh ---- */

static int64_t group_size(const em_source *source, const em_form *form, em_tensor tensor)
{
    return em_tensor_shape_of(&source->config, tensor).cols / form->groups;
}

static int64_t groups_touched(em_range cols, int64_t size)
{
    return (cols.end - 1) / size - cols.begin / size + 1;
}

typedef struct weighing {
    const em_source *source;
    em_held held;
} weighing;

static bool weigh(void *context, const em_block *block)
{
    weighing *w = context;
    const em_form *form = em_source_form(w->source, block->tensor, block->layer);
    int64_t rows = em_range_size(block->rows), scale_bytes = 0, shared_bytes = 0;
    if (form->storage == EM_INT8) {
        int64_t size = group_size(w->source, form, block->tensor);
        scale_bytes = rows * groups_touched(block->cols, size) * (int64_t)sizeof(float);
        /* a group that begins before this block is owned by the block it begins in */
        if (block->cols.begin % size != 0) shared_bytes = rows * (int64_t)sizeof(float);
    }
    int64_t bytes = rows * em_range_size(block->cols) * (int64_t)em_storage_bytes(form->storage) + scale_bytes;
    w->held.owned += block->repeated ? 0 : bytes - shared_bytes;
    w->held.repeated += block->repeated ? bytes : shared_bytes;
    return true;
}

em_held em_weights_held(const em_source *source, const em_layout *layout, int rank)
{
    weighing w = {.source = source};
    em_weights_blocks(&source->config, layout, rank, weigh, &w);
    return w.held;
}

/* Bytes of a tensor's numbers in all layers, of one expert. */
static double number_bytes_of(const em_source *source, em_tensor tensor)
{
    em_tensor_shape shape = em_tensor_shape_of(&source->config, tensor);
    double bytes = 0;
    for (int64_t layer = 0; layer < em_tensor_layers(&source->config, tensor); layer++)
        bytes += (double)em_storage_bytes(em_source_form(source, tensor, layer)->storage);
    return (double)shape.rows * (double)shape.cols * bytes;
}

em_unit_bytes em_weights_unit_bytes(const em_source *source)
{
    const em_config *c = &source->config;
    double ffn = number_bytes_of(source, EM_FFN_UP) + number_bytes_of(source, EM_FFN_DOWN);
    if (c->ffn_kind == EM_FFN_GLU) ffn += number_bytes_of(source, EM_FFN_GATE);
    double query = number_bytes_of(source, EM_ATTN_QUERY) + number_bytes_of(source, EM_ATTN_OUTPUT);
    double key = number_bytes_of(source, EM_ATTN_KEY) + number_bytes_of(source, EM_ATTN_VALUE);
    return (em_unit_bytes){query / (double)c->num_q_heads, key / (double)c->num_kv_heads, ffn / (double)c->ffn_size,
                           number_bytes_of(source, EM_EMBEDDING) / (double)c->vocab_size};
}

int64_t em_weights_model_bytes(const em_source *source)
{
    int64_t bytes = 0;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        em_tensor_shape shape = em_tensor_shape_of(&source->config, t);
        for (int64_t layer = 0; layer < em_tensor_layers(&source->config, t); layer++) {
            const em_form *form = em_source_form(source, t, layer);
            int64_t rows = shape.experts * shape.rows;
            bytes += rows * shape.cols * (int64_t)em_storage_bytes(form->storage);
            if (form->storage == EM_INT8) bytes += rows * form->groups * (int64_t)sizeof(float);
        }
    }
    return bytes;
}

/* ---- making and reading them ---- */

/* The matrix of a block, without memory. */
static em_matrix matrix_of(const em_source *source, const em_block *block)
{
    const em_form *form = em_source_form(source, block->tensor, block->layer);
    em_matrix matrix = {
        .storage = form->storage, .rows = em_range_size(block->rows), .cols = em_range_size(block->cols)};
    if (form->storage != EM_INT8) return matrix;
    matrix.group_size = group_size(source, form, block->tensor);
    matrix.group_offset = block->cols.begin % matrix.group_size;
    matrix.num_groups = groups_touched(block->cols, matrix.group_size);
    return matrix;
}

static int64_t number_bytes(const em_matrix *matrix)
{
    return matrix->rows * matrix->cols * (int64_t)em_storage_bytes(matrix->storage);
}

static int64_t scale_bytes(const em_matrix *matrix)
{
    return matrix->storage == EM_INT8 ? matrix->rows * matrix->num_groups * (int64_t)sizeof(float) : 0;
}

/* Say which number of a block's data or scales is not finite: its place in the whole tensor. */
static bool check_finite(const em_source *source, const em_dataset *dataset, const em_block *block, em_storage storage,
                         const void *numbers, int64_t rows, int64_t cols, int64_t first_col, em_status *status)
{
    bool bf16 = storage == EM_BF16;
    int64_t at = bf16 ? em_first_not_finite_bf16(rows * cols, numbers) : em_first_not_finite(rows * cols, numbers);
    if (at < 0) return true;
    em_dims_text place;
    char layer[32] = "";
    em_dataset index = {.rank = dataset->rank};
    int64_t row = block->rows.begin + at / cols;
    int last = dataset->rank - 1;
    index.dims[last] = first_col + at % cols;
    if (last >= 1)
        index.dims[last - 1] = em_tensor_shape_of(&source->config, block->tensor).rows > 1 ? row : block->expert;
    if (last >= 2) index.dims[0] = block->expert;
    float value = bf16 ? em_bf16_to_f32(((const uint16_t *)numbers)[at]) : ((const float *)numbers)[at];
    if (block->tensor >= EM_FIRST_LAYER_TENSOR) snprintf(layer, sizeof layer, "layer %lld: ", (long long)block->layer);
    return em_fail(status, EM_BAD_DATA, "%s: %s%s%s is %s, but weights must be finite numbers",
                   em_store_path(source->store), layer, dataset->name, em_dims(&index, place),
                   isnan(value) ? "NaN" : "infinite");
}

static bool read_block(const em_source *source, const em_form *form, const em_block *block, em_matrix *matrix,
                       em_status *status)
{
    int64_t row = block->expert * em_tensor_shape_of(&source->config, block->tensor).rows + block->rows.begin;
    if (!em_store_read_block(source->store, &form->data, row, matrix->rows, block->cols.begin, matrix->cols,
                             matrix->data, status))
        return false;
    if (form->storage != EM_INT8) return true;
    int64_t group = block->cols.begin / matrix->group_size;
    return em_store_read_block(source->store, &form->scale, row, matrix->rows, group, matrix->num_groups, matrix->scale,
                               status) &&
           check_finite(source, &form->scale, block, EM_F32, matrix->scale, matrix->rows, matrix->num_groups, group,
                        status);
}

/* All blocks of a rank in the order of a file: what lies beside each other there is neighbours. */
typedef struct block_list {
    em_block *block;
    int64_t count, room;
} block_list;

static bool list_block(void *context, const em_block *block)
{
    block_list *list = context;
    if (list->count == list->room) {
        list->room = 2 * list->room + 64;
        list->block = em_grow(list->block, list->count, list->room, sizeof *block);
    }
    list->block[list->count++] = *block;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const em_block *x = a, *y = b;
    const int64_t step[] = {(int64_t)x->tensor - (int64_t)y->tensor, x->layer - y->layer, x->expert - y->expert,
                            x->rows.begin - y->rows.begin, x->cols.begin - y->cols.begin};
    for (size_t i = 0; i < sizeof step / sizeof *step; i++)
        if (step[i] != 0) return step[i] < 0 ? -1 : 1;
    return 0;
}

/* What one thread makes or reads at a time: a few rows, whole panels, of blocks with the same rows and neighbouring
 * columns. A matrix cut by columns is so read row by row, and not once for each of its blocks. */
typedef struct piece {
    const em_block *block; /* [num_blocks] */
    int64_t num_blocks;
    em_range rows; /* of the expert's matrix */
    double bytes;
} piece;

enum { ROUND = 256 }; /* most pieces between two words of progress */

typedef struct loading {
    em_weights *weights;
    const em_source *source;
    em_progress *progress;
    void *context;
    double done, all; /* bytes */
    int64_t num_pieces;
    piece piece[ROUND];
    em_status *status;
} loading;

static em_matrix *matrix_for(const loading *l, const em_block *block)
{
    return &l->weights->block[(int64_t)block->tensor * l->weights->num_layers + block->layer][block->place];
}

/* The part of its tensor that a piece is. */
static em_block part_of(const piece *p)
{
    em_block part = *p->block;
    part.rows = p->rows;
    part.cols.end = p->block[p->num_blocks - 1].cols.end;
    return part;
}

/* From the rows of a piece to the places in its blocks. False where a number (not a scale) is not finite. */
static bool put_piece(const loading *l, const piece *p, const em_matrix *part)
{
    bool finite = true;
    for (int64_t b = 0; b < p->num_blocks; b++) {
        const em_block *block = &p->block[b];
        em_matrix *matrix = matrix_for(l, block);
        int64_t first = p->rows.begin - block->rows.begin, left = block->cols.begin - p->block->cols.begin;
        finite &= em_matrix_put(matrix, first, part->rows,
                                (const char *)part->data + left * (int64_t)em_storage_bytes(part->storage), part->cols);
        if (part->storage != EM_INT8) continue;
        int64_t group = block->cols.begin / part->group_size - p->block->cols.begin / part->group_size;
        for (int64_t i = 0; i < part->rows; i++)
            memcpy(matrix->scale + (first + i) * matrix->num_groups, part->scale + i * part->num_groups + group,
                   (size_t)matrix->num_groups * sizeof(float));
    }
    return finite;
}

static bool load_piece(const loading *l, const piece *p, char *spare, em_status *status)
{
    const em_source *source = l->source;
    em_block part = part_of(p);
    const em_form *form = em_source_form(source, part.tensor, part.layer);
    em_matrix rows = matrix_of(source, &part);
    rows.scale = (float *)(void *)spare;
    rows.data = spare + scale_bytes(&rows);
    em_beat();
    if (!source->store)
        em_random_fill(&source->config, source->seed, part.tensor, part.layer, part.expert, part.rows, part.cols,
                       &rows);
    else if (!read_block(source, form, &part, &rows, status))
        return false;
    return put_piece(l, p, &rows) || check_finite(source, &form->data, &part, form->storage, rows.data, rows.rows,
                                                  rows.cols, part.cols.begin, status);
}

/* Is it read through HDF5, which only one thread at a time may call? */
static bool through_library(const em_source *source, const em_block *block)
{
    const em_form *form = em_source_form(source, block->tensor, block->layer);
    return source->store && (form->data.offset < 0 || (form->storage == EM_INT8 && form->scale.offset < 0));
}

static int64_t spare_bytes(const em_source *source, const piece *p)
{
    em_block part = part_of(p);
    em_matrix rows = matrix_of(source, &part);
    return number_bytes(&rows) + scale_bytes(&rows);
}

/* All pieces that are gathered, on all threads. Of those that fail the first speaks, whichever thread was faster. */
static bool load_round(loading *l)
{
    int64_t room = 0, failed = l->num_pieces;
    int threads = em_threads();
    if (l->num_pieces == 0) return true;
    for (int64_t i = 0; i < l->num_pieces; i++) {
        int64_t bytes = spare_bytes(l->source, &l->piece[i]);
        if (bytes > room) room = bytes;
        if (through_library(l->source, l->piece[i].block)) threads = 1;
    }
    em_stand((int)l->piece[0].block->layer, l->source->store ? "reading weights" : "generating weights");
    em_isa_in_use(); /* chosen before the threads need it */
#pragma omp parallel num_threads(threads)
    {
        char *spare = em_alloc(room, 1);
#pragma omp for schedule(guided) /* neighbours to one thread: two would wait for each other where memory begins */
        for (int64_t i = 0; i < l->num_pieces; i++) {
            em_status status = {0};
            int64_t earlier;
#pragma omp atomic read
            earlier = failed;
            if (earlier < i || load_piece(l, &l->piece[i], spare, &status)) continue;
#pragma omp critical(em_weights_failed)
            if (i < failed) {
                *l->status = status;
#pragma omp atomic write
                failed = i;
            }
        }
        free(spare);
    }
    for (int64_t i = 0; i < l->num_pieces; i++) l->done += l->piece[i].bytes;
    bool good = failed == l->num_pieces;
    l->num_pieces = 0;
    if (good && l->progress) l->progress(l->context, l->done, l->all);
    return good;
}

/* Gather the pieces of blocks beside each other; whenever there are enough, load them. */
static bool load_strip(loading *l, const em_block *block, int64_t num_blocks)
{
    enum { IN_PLACE = 1 << 19, CHUNKED = 1 << 23 }; /* bytes: stays in a core's cache; HDF5 unpacks whole chunks */
    piece whole = {block, num_blocks, block->rows, 0};
    int64_t rows = em_range_size(block->rows), panel_bytes = spare_bytes(l->source, &whole) * EM_PANEL / rows;
    int64_t most = through_library(l->source, block) ? CHUNKED : IN_PLACE;
    int64_t step = EM_PANEL * (most / panel_bytes > 0 ? most / panel_bytes : 1);
    for (int64_t b = 0; b < num_blocks; b++) whole.bytes += (double)em_matrix_bytes(matrix_for(l, &block[b]));
    for (int64_t row = block->rows.begin; row < block->rows.end; row += step) {
        piece *p = &l->piece[l->num_pieces++];
        *p = whole;
        p->rows.begin = row;
        if (row + step < p->rows.end) p->rows.end = row + step;
        p->bytes = whole.bytes * (double)em_range_size(p->rows) / (double)rows;
        if (l->num_pieces == ROUND && !load_round(l)) return false;
    }
    return true;
}

static bool beside(const em_block *a, const em_block *b)
{
    return a->tensor == b->tensor && a->layer == b->layer && a->expert == b->expert && a->rows.begin == b->rows.begin &&
           a->rows.end == b->rows.end && a->cols.end == b->cols.begin;
}

static bool load_blocks(loading *l, const block_list *list)
{
    for (int64_t i = 0, count; i < list->count; i += count) {
        count = 1;
        while (i + count < list->count && beside(&list->block[i + count - 1], &list->block[i + count])) count++;
        if (!load_strip(l, &list->block[i], count)) return false;
    }
    return load_round(l);
}

/* Places in a piece of memory, each on a cache line of its own. */
static int64_t take(int64_t *used, int64_t bytes)
{
    int64_t at = *used;
    *used += (bytes + 63) / 64 * 64;
    return at;
}

/* Memory for the blocks of one tensor and layer, in one: large enough for huge pages where the blocks are not. */
static void allocate_blocks(loading *l, const em_block *block, int64_t count)
{
    int64_t used = 0, index = (int64_t)block->tensor * l->weights->num_layers + block->layer;
    em_stand((int)block->layer, "allocating weights");
    for (int64_t i = 0; i < count; i++) {
        em_matrix matrix = matrix_of(l->source, &block[i]);
        take(&used, number_bytes(&matrix));
        take(&used, scale_bytes(&matrix));
    }
    char *memory = l->weights->memory[index] = em_alloc(used, 1);
    used = 0;
    for (int64_t i = 0; i < count; i++) {
        em_matrix *matrix = matrix_for(l, &block[i]);
        *matrix = matrix_of(l->source, &block[i]);
        matrix->in_panels = em_tensor_shape_of(&l->source->config, block->tensor).quantised;
        matrix->data = memory + take(&used, number_bytes(matrix));
        int64_t scale = take(&used, scale_bytes(matrix));
        if (matrix->storage == EM_INT8) matrix->scale = (float *)(void *)(memory + scale);
    }
}

/* The lists of blocks, and their memory. */
static void allocate(loading *l, const block_list *list)
{
    const em_config *config = &l->source->config;
    em_weights *weights = l->weights;
    weights->places = em_zeroed(EM_NUM_TENSORS, sizeof *weights->places);
    weights->block = em_zeroed(EM_NUM_TENSORS * config->num_layers, sizeof *weights->block);
    weights->memory = em_zeroed(EM_NUM_TENSORS * config->num_layers, sizeof *weights->memory);
    for (int64_t i = 0; i < list->count; i++) {
        int64_t *places = &weights->places[list->block[i].tensor];
        if (list->block[i].place >= *places) *places = list->block[i].place + 1;
    }
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(config, t); layer++)
            weights->block[(int64_t)t * config->num_layers + layer] = em_zeroed(weights->places[t], sizeof(em_matrix));
    for (int64_t i = 0, count; i < list->count; i += count) {
        const em_block *block = &list->block[i];
        count = 1;
        while (i + count < list->count && block[count].tensor == block->tensor && block[count].layer == block->layer)
            count++;
        allocate_blocks(l, block, count);
    }
}

bool em_weights_load(em_weights *weights, const em_source *source, const em_layout *layout, int rank,
                     em_progress *progress, void *context, em_status *status)
{
    *weights = (em_weights){.num_layers = source->config.num_layers};
    block_list list = {0};
    em_weights_blocks(&source->config, layout, rank, list_block, &list);
    qsort(list.block, (size_t)list.count, sizeof *list.block, by_place);
    em_held held = em_weights_held(source, layout, rank);
    loading l = {.weights = weights,
                 .source = source,
                 .progress = progress,
                 .context = context,
                 .all = (double)(held.owned + held.repeated),
                 .status = status};
    allocate(&l, &list);
    bool good = load_blocks(&l, &list);
    em_stand(-1, NULL);
    free(list.block);
    return good;
}

void em_weights_free(em_weights *weights)
{
    for (int64_t i = 0; weights->block && i < EM_NUM_TENSORS * weights->num_layers; i++) {
        free(weights->block[i]);
        free(weights->memory[i]);
    }
    free(weights->block);
    free(weights->memory);
    free(weights->places);
    *weights = (em_weights){0};
}

/* ---- writing a whole model ---- */

/* Rows [rows) of a tensor seen as one matrix over all experts: made in spare, then written. */
static bool write_rows(const em_source *source, const em_bulk *bulk, em_tensor tensor, int64_t layer, em_range rows,
                       char *spare, em_status *status)
{
    const em_form *form = em_source_form(source, tensor, layer);
    em_range cols = {0, em_tensor_shape_of(&source->config, tensor).cols};
    em_block block = {.tensor = tensor, .layer = layer, .rows = rows, .cols = cols};
    em_matrix matrix = matrix_of(source, &block);
    em_beat();
    matrix.scale = (float *)(void *)spare;
    matrix.data = spare + scale_bytes(&matrix);
    em_random_fill(&source->config, source->seed, tensor, layer, 0, rows, cols, &matrix);
    return em_bulk_write(bulk, &form->data, cols.end, rows.begin, matrix.rows, 0, cols.end, matrix.data, cols.end,
                         status) &&
           (form->storage != EM_INT8 ||
            em_bulk_write(bulk, &form->scale, 1, rows.begin, matrix.rows, 0, 1, matrix.scale, 1, status));
}

typedef struct writing {
    const em_source *source;
    const em_bulk *bulk;
    em_progress *progress;
    void *context;
    double done, all; /* bytes */
} writing;

/* This rank's share of a tensor, in pieces that stay in a core's cache from the generator to the system's buffers. */
static bool write_tensor(writing *w, em_tensor tensor, int64_t layer, em_range share, em_status *status)
{
    enum { PIECE = 1 << 20 };
    int64_t cols = em_tensor_shape_of(&w->source->config, tensor).cols;
    int64_t row_bytes = cols * (int64_t)em_storage_bytes(em_source_form(w->source, tensor, layer)->storage);
    int64_t step = PIECE / row_bytes > 0 ? PIECE / row_bytes : 1;
    char *spare = em_alloc(step * (row_bytes + (int64_t)sizeof(float)), 1);
    bool good = true;
    for (int64_t row = share.begin; good && row < share.end; row += step) {
        em_range rows = {row, row + step < share.end ? row + step : share.end};
        good = write_rows(w->source, w->bulk, tensor, layer, rows, spare, status);
        w->done += (double)(em_range_size(rows) * row_bytes);
        if (good && w->progress) /* the last row is not the end */
            w->progress(w->context, w->done < w->all ? w->done : 0.999 * w->all, w->all);
    }
    free(spare);
    return good;
}

/* This rank's share of every tensor. */
static bool write_share(const em_source *source, const em_bulk *bulk, int num_ranks, int rank, em_progress *progress,
                        void *context, em_status *status)
{
    writing w = {source, bulk, progress, context, 0, (double)em_weights_model_bytes(source) / num_ranks};
    em_stand(-1, "writing weights");
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        em_tensor_shape shape = em_tensor_shape_of(&source->config, t);
        em_range share = em_share(shape.experts * shape.rows, num_ranks, rank);
        for (int64_t layer = 0; layer < em_tensor_layers(&source->config, t); layer++)
            if (!write_tensor(&w, t, layer, share, status)) return false;
    }
    return true;
}

bool em_weights_write(MPI_Comm comm, const em_config *config, uint64_t seed, em_storage storage, const char *path,
                      em_progress *progress, void *context, em_status *status)
{
    int rank, num_ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &num_ranks);
    em_source source;
    em_source_generate(&source, config, seed, storage);
    char *partial = em_text("%s.partial", path);
    em_bulk bulk = {.file = -1};

    if (rank == 0) em_source_create(&source, partial, status);
    bool good = em_agree(comm, status);
    if (good)
        MPI_Bcast(source.form, (int)(EM_NUM_TENSORS * config->num_layers * (int64_t)sizeof(em_form)), MPI_BYTE, 0,
                  comm);
    if (good && em_bulk_open(&bulk, partial, status)) {
        write_share(&source, &bulk, num_ranks, rank, progress, context, status);
        em_bulk_close(&bulk, status);
    }
    good = good && em_agree(comm, status);
    if (rank == 0 && good && rename(partial, path) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", partial, path, strerror(errno));
    good = good && em_agree(comm, status);
    if (good && progress) progress(context, 1, 1);
    if (rank == 0 && !good) unlink(partial);
    free(partial);
    em_source_close(&source);
    return good;
}
