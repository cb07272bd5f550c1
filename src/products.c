/* Products of packed rows with matrices in panels; declared in kernels.h. */
#include "expertmesh/kernels.h"
#include "expertmesh/standing.h"

#include "dots.h"
#include "panels.h"
#include "tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

em_compute em_compute_fit(em_compute compute, em_storage storage)
{
    bool fits =
        (compute == EM_COMPUTE_BF16 && storage == EM_BF16) || (compute == EM_COMPUTE_INT8 && storage == EM_INT8);
    return fits ? compute : EM_COMPUTE_F32;
}

/* ---- packing ---- */

/* The width of the tile that rows [t, T) begin with. */
static int place_of_width(const em_tiles *tiles, int64_t rows)
{
    int place = 0;
    while (tiles->width[place] > rows) place++;
    return place;
}

/* Columns [first, first + count) of rows beside each other, tile by tile: of each, [count, width]. */
static void pack_tiles(const em_tiles *tiles, int64_t T, const float *const *row, int64_t first, int64_t count,
                       float *out)
{
    for (int64_t t = 0; t < T;) {
        int width = tiles->width[place_of_width(tiles, T - t)];
        for (int i = 0; i < width; i++)
            for (int64_t k = 0; k < count; k++) out[k * width + i] = row[t + i][first + k];
        out += count * width;
        t += width;
    }
}

/* A row of 8 bits: by the row's largest, whose size becomes 127. A row that is not finite becomes NaN. */
static float pack_int8(const em_tiles *tiles, int64_t K, const float *row, int8_t *out)
{
    float most = tiles->largest(K, row), up = most < 0x1p-90F ? 0x1p90F : 1; /* 127 / most must be a float */
    bool finite = em_first_not_finite(K, row) < 0;
    if (!finite || most == 0) {
        memset(out, 0, (size_t)K);
        return finite ? 0 : NAN; /* most passes NaN over, so 0 alone says nothing */
    }
    tiles->round_to_int8(K, row, up, 127 / (most * up), out);
    return most / 127;
}

static void pack_row(em_inputs *x, int64_t t, const float *row)
{
    const em_tiles *tiles = em_tiles_in_use();
    char *out = x->packed + t * x->stride;
    int64_t bytes = x->width * (x->compute == EM_COMPUTE_BF16 ? 2 : 1);
    if (x->compute == EM_COMPUTE_BF16)
        tiles->round_to_bf16(x->width, row, (uint16_t *)(void *)out);
    else
        x->row_scale[t] = pack_int8(tiles, x->width, row, (int8_t *)out);
    memset(out + bytes, 0, (size_t)(x->stride - bytes)); /* read by the last step, times weights of 0 */
}

/* In bytes: whole steps, and one more, so that rows do not all fall into the same lines of a cache. */
static int64_t stride_of(em_compute compute, int64_t K)
{
    int64_t bytes = K * (compute == EM_COMPUTE_BF16 ? 2 : 1);
    return ((bytes + EM_STEP - 1) / EM_STEP + 1) * EM_STEP;
}

static int64_t packed_bytes(em_compute compute, int64_t T, int64_t K)
{
    if (compute == EM_COMPUTE_F32) return T * K * (int64_t)sizeof(float);
    return (T + EM_STRIP - 1) / EM_STRIP * EM_STRIP * stride_of(compute, K);
}

/* Rows [first, past); of float32, whole tiles. */
static void pack_rows(em_inputs *x, int64_t first, int64_t past, const float *const *row)
{
    if (x->compute == EM_COMPUTE_F32)
        pack_tiles(em_tiles_in_use(), past - first, row + first, 0, x->width,
                   (float *)(void *)x->packed + first * x->width);
    for (int64_t t = first; x->compute != EM_COMPUTE_F32 && t < past; t++) pack_row(x, t, row[t]);
}

void em_inputs_pack(em_inputs *x, em_compute compute, int64_t T, int64_t K, const float *const *row)
{
    if (!x->row_scale) x->row_scale = em_alloc(EM_ROW_BLOCK, sizeof(float));
    x->packed = em_room_for(&x->room, packed_bytes(compute, T, K), 1);
    x->compute = compute;
    x->num_rows = T;
    x->width = K;
    x->stride = stride_of(compute, K);
    int64_t together = em_tiles_in_use()->width[0];
    int several = T * K > 1 << 16 ? em_threads() : 1;
    if (several == 1) { /* not even a team of one: attention packs in threads */
        pack_rows(x, 0, T, row);
        return;
    }
#pragma omp parallel for num_threads(several)
    for (int64_t t = 0; t < T; t += together) pack_rows(x, t, t + together < T ? t + together : T, row);
}

void em_inputs_free(em_inputs *x)
{
    em_room_free(&x->room);
    free(x->row_scale);
    *x = (em_inputs){0};
}

int64_t em_inputs_bytes(int64_t T, int64_t K)
{
    int64_t rows = T < EM_ROW_BLOCK ? T : EM_ROW_BLOCK, most = 0;
    for (int c = 0; c < EM_NUM_COMPUTES; c++) { /* of few rows those of few bits take more: strips are whole */
        int64_t bytes = packed_bytes((em_compute)c, rows, K);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- one block of inputs, or, of one row, a run of them ---- */

/* Where few rows wait for the weights, 4 panels at a time, for memory gives fewer runs of weights faster; and a single row
 * takes them through all of its inputs, so that runs are long. Two cores of an EPYC (Zen 5) so read f32, bf16 and int8 at
 * 1.04, 1.02 and 1.00 times the rate of a plain read; 8 panels at a time, block by block, at 0.91, 0.83 and 0.73. */
enum { FEW_ROWS = 16, FEW_PANELS = 4 };
enum { MOST_BLOCKS = 32 };                                /* in a run */
enum { MOST_SUMS = MOST_BLOCKS * FEW_PANELS * EM_PANEL }; /* a tile's are fewer */
_Static_assert((int)MOST_SUMS >= (int)EM_MAX_TILE, "a tile's sums have room");

#define SIXTEEN(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
static const float ones[EM_TOGETHER * EM_PANEL] = {SIXTEEN(1), SIXTEEN(1), SIXTEEN(1), SIXTEEN(1),
                                                   SIXTEEN(1), SIXTEEN(1), SIXTEEN(1), SIXTEEN(1)};

/* Neighbouring panels of a matrix on their way through a block of inputs. */
typedef struct block {
    const em_tiles *tiles;
    const em_inputs *x;
    const em_matrix *w;
    int64_t panel;        /* the first of the panels */
    int panels;           /* at most EM_TOGETHER */
    int64_t lanes;        /* their neurons */
    int64_t first, count; /* inputs [first, first + count) */
    int64_t next;         /* bytes from the end of the first panel's to what is needed next */
    const float *scale;   /* [lanes] of the inputs' group; 1 where weights have none */
    em_scratch *scratch;
    float *y; /* of the first neuron of the first panel */
    int64_t ldy;
} block;

/* The end of the scale group that an input lies in. */
static int64_t group_end(const em_matrix *w, int64_t input)
{
    if (w->storage != EM_INT8) return w->cols;
    int64_t end = ((input + w->group_offset) / w->group_size + 1) * w->group_size - w->group_offset;
    return end < w->cols ? end : w->cols;
}

static void find_scales(block *b)
{
    const em_matrix *w = b->w;
    int64_t row = b->panel * EM_PANEL, group = (b->first + w->group_offset) / (w->group_size > 0 ? w->group_size : 1);
    if (w->storage != EM_INT8)
        b->scale = ones;
    else if (w->num_groups == 1)
        b->scale = w->scale + row;
    else {
        for (int64_t i = 0; i < b->lanes; i++) b->scratch->scale[i] = w->scale[(row + i) * w->num_groups + group];
        b->scale = b->scratch->scale;
    }
}

/* Do the block's weights lie as loops want them: whole panels, cut where columns lie beside each other? */
static bool well_cut(const block *b, int64_t beside)
{
    bool end = b->first + b->count == b->w->cols;
    return b->lanes == b->panels * EM_PANEL && b->first % beside == 0 && (end || b->count % beside == 0);
}

/* Add the sums of `rows` rows from t on, for `lanes` neurons from lane on, to y; or, of a first block, put them there. */
static void add_tile(const block *b, int64_t blocks, int64_t t, int64_t rows, int64_t lane, int64_t lanes,
                     const float *sums)
{
    int64_t left = b->lanes - lane;
    b->tiles->add_floats(&(em_sums){.blocks = blocks,
                                    .rows = rows,
                                    .lanes = left < lanes ? left : lanes,
                                    .sums = sums,
                                    .ld = lanes,
                                    .scale = b->scale + lane,
                                    .first = b->first == 0,
                                    .y = b->y + t * b->ldy + lane,
                                    .ldy = b->ldy});
}

/* The most panels that a tile of this width may work on where so many are left. */
static int kind_of_tile(const em_tiles *tiles, int place, int panels)
{
    int kind = 0;
    while (tiles->panels[place][kind] > panels) kind++;
    return kind;
}

/* All rows, packed in tiles that are tile_length inputs long, from input `first` of the tiles on, through the block's
 * panels; of one row several blocks. The first rows call for weights a little ahead, which brings them into the cache; the
 * others, a whole block ahead (64 rows of f32 then run 1.1 times as fast on an EPYC, Zen 5). What is a block's whole sum goes
 * straight from the tile to y (1.05 to 1.1 times); what is scaled, of several blocks, or of part of a panel goes by add_tile. */
static void run_tiles(const block *b, em_storage storage, int64_t T, const float *x, int64_t tile_length, int64_t first,
                      const char *w, int64_t panel_bytes)
{
    enum { AHEAD = 1024 }; /* 512 to 1,536 are as good; of int8, which takes longer over a byte, 2,048 to 3,072 */
    float sums[MOST_SUMS] __attribute__((aligned(64)));
    int64_t blocks = (b->count + EM_BLOCK - 1) / EM_BLOCK;
    int64_t bytes = b->count * EM_PANEL * (int64_t)em_storage_bytes(storage);
    bool direct = blocks == 1 && b->scale == ones && b->lanes == b->panels * EM_PANEL;
    for (int64_t t = 0; t < T;) {
        int place = place_of_width(b->tiles, T - t), width = b->tiles->width[place];
        int64_t ahead = t > 0 ? bytes : storage == EM_INT8 ? 2 * AHEAD : AHEAD;
        for (int p = 0, step; p < b->panels; p += step) {
            int kind = kind_of_tile(b->tiles, place, b->panels - p);
            step = b->tiles->panels[place][kind];
            int64_t next = b->next;
            if (t == 0) next = p + step < b->panels ? step * panel_bytes - bytes : b->next - p * panel_bytes;
            float *out = direct ? b->y + t * b->ldy + (ptrdiff_t)p * EM_PANEL : sums;
            b->tiles->tile[storage][place][kind](b->count, w + p * panel_bytes, panel_bytes, ahead, next,
                                                 x + first * width, direct && b->first > 0, out,
                                                 direct ? b->ldy : step * EM_PANEL);
            if (!direct) add_tile(b, blocks, t, width, p * EM_PANEL, step * EM_PANEL, sums);
        }
        x += tile_length * width;
        t += width;
    }
}

/* Float32 inputs: weights where they lie; of int8, made float32 once for many rows; one by one at odd ends. */
static void run_floats(const block *b)
{
    enum { WORTH_EXPANDING = 16 };
    const em_matrix *w = b->w;
    em_storage storage = w->storage;
    int64_t size = (int64_t)em_storage_bytes(storage), panel_bytes = w->cols * EM_PANEL * size;
    const char *weights = em_matrix_panel(w, b->panel * EM_PANEL) + b->first * EM_PANEL * size;
    float *spare = b->scratch->weights;
    bool cut = well_cut(b, (int64_t)sizeof(float) / size);
    if (!cut)
        for (int64_t i = 0; i < b->panels * EM_PANEL; i++)
            for (int64_t k = 0; k < b->count; k++)
                spare[(i / EM_PANEL * EM_BLOCK + k) * EM_PANEL + i % EM_PANEL] =
                    i < b->lanes ? em_matrix_number(w, b->panel * EM_PANEL + i, b->first + k) : 0;
    else if (storage == EM_INT8 && b->x->num_rows >= WORTH_EXPANDING)
        for (int p = 0; p < b->panels; p++)
            b->tiles->expand(storage, b->count, weights + p * panel_bytes, spare + p * EM_BLOCK * EM_PANEL);
    else
        spare = NULL;
    if (spare) {
        storage = EM_F32;
        weights = (const char *)spare;
        panel_bytes = EM_BLOCK * EM_PANEL * (int64_t)sizeof(float);
    }
    run_tiles(b, storage, b->x->num_rows, (const float *)(const void *)b->x->packed, b->x->width, b->first, weights,
              panel_bytes);
}

/* The block's weights in whole steps, zeros beyond its end. */
static void fill_steps(const block *b, int64_t steps)
{
    int64_t size = (int64_t)em_storage_bytes(b->w->storage), beside = 4 / size;
    memset(b->scratch->weights, 0, (size_t)(b->panels * steps * EM_STEP_PANEL));
    for (int64_t i = 0; i < b->lanes; i++)
        for (int64_t k = 0; k < b->count; k++) {
            float number = em_matrix_number(b->w, b->panel * EM_PANEL + i, b->first + k);
            int64_t place = (k / beside * EM_PANEL + i % EM_PANEL) * beside + k % beside;
            char *panel = (char *)b->scratch->weights + i / EM_PANEL * steps * EM_STEP_PANEL;
            if (size == 1)
                ((int8_t *)panel)[place] = (int8_t)number;
            else
                ((uint16_t *)(void *)panel)[place] = em_f32_to_bf16(number);
        }
}

/* Inputs of 16 or 8 bits. */
static void run_dots(const block *b)
{
    em_dots *dot = em_dots_in_use(b->x->compute);
    const em_matrix *w = b->w;
    const em_inputs *x = b->x;
    int64_t size = (int64_t)em_storage_bytes(w->storage), inputs = EM_STEP / size;
    int64_t steps = (b->count + inputs - 1) / inputs, panel_bytes = w->cols * EM_PANEL * size;
    const char *weights = em_matrix_panel(w, b->panel * EM_PANEL) + b->first * EM_PANEL * size;
    if (!well_cut(b, 4 / size) || b->count % inputs != 0) {
        fill_steps(b, steps);
        weights = (const char *)b->scratch->weights;
        panel_bytes = steps * EM_STEP_PANEL;
    }
    em_sums sums = {.blocks = 1,
                    .lanes = b->lanes,
                    .sums = b->scratch->sums,
                    .ld = EM_TOGETHER * EM_PANEL,
                    .scale = b->scale,
                    .first = b->first == 0,
                    .ldy = b->ldy};
    for (int64_t t = 0; t < x->num_rows; t += EM_STRIP) {
        sums.rows = x->num_rows - t < EM_STRIP ? x->num_rows - t : EM_STRIP;
        sums.row_scale = x->compute == EM_COMPUTE_INT8 ? x->row_scale + t : NULL;
        sums.y = b->y + t * b->ldy;
        dot(sums.rows, steps, b->panels, weights, panel_bytes, b->next, x->packed + t * x->stride + b->first * size,
            x->stride, b->scratch->sums);
        (x->compute == EM_COMPUTE_INT8 ? b->tiles->add_ints : b->tiles->add_floats)(&sums);
    }
}

/* ---- products ---- */

/* The block's inputs: at most a block of a sum, or, of one row, as many blocks as its weights lie right for; of one scale
 * group. And what is needed next: the panels' next inputs, or the next panels. */
static void find_inputs(block *b)
{
    const em_matrix *w = b->w;
    int64_t size = (int64_t)em_storage_bytes(w->storage), end = group_end(w, b->first);
    int64_t most = b->x->compute == EM_COMPUTE_F32 ? EM_BLOCK : EM_DOT_BLOCK;
    b->count = end - b->first;
    if (b->x->compute == EM_COMPUTE_F32 && b->x->num_rows == 1 && well_cut(b, (int64_t)sizeof(float) / size))
        most = MOST_BLOCKS * EM_BLOCK;
    if (b->count > most) b->count = most;
    b->next = b->first + b->count < w->cols ? 0 : (b->panels - 1) * w->cols * EM_PANEL * size;
}

/* Panels at a time. */
static int64_t panels_together(const em_inputs *x)
{
    return x->num_rows > FEW_ROWS ? EM_TOGETHER : FEW_PANELS;
}

void em_product_panels(const em_inputs *x, const em_matrix *w, int64_t first, int64_t past, float *y, int64_t ldy)
{
    int64_t most = panels_together(x);
    block b = {.tiles = em_tiles_in_use(), .x = x, .w = w, .ldy = ldy};
    b.scratch = em_thread_scratch();
    em_beat(); /* once where rows are few: threads that all beat hinder each other */
    for (b.panel = first; x->num_rows > 0 && b.panel < past; b.panel += b.panels) {
        b.panels = (int)(past - b.panel < most ? past - b.panel : most);
        if (w->rows % EM_PANEL != 0 && b.panels > 1 && b.panel + b.panels == (w->rows + EM_PANEL - 1) / EM_PANEL)
            b.panels--; /* the last, narrow one by itself */
        if (x->num_rows > FEW_ROWS) em_beat();
        b.lanes =
            w->rows - b.panel * EM_PANEL < b.panels * EM_PANEL ? w->rows - b.panel * EM_PANEL : b.panels * EM_PANEL;
        b.y = y + (b.panel - first) * EM_PANEL;
        for (b.first = 0; b.first < w->cols; b.first += b.count) {
            find_inputs(&b);
            find_scales(&b);
            if (x->compute == EM_COMPUTE_F32)
                run_floats(&b);
            else
                run_dots(&b);
        }
    }
}

static int64_t panels_of(const em_matrix *w)
{
    return (w->rows + EM_PANEL - 1) / EM_PANEL;
}

/* Panels [begin, end) of all products, one after another. */
static void run_share(const em_inputs *x, const em_product *product, int64_t begin, int64_t end)
{
    for (int64_t before = 0; before < end; product++) {
        int64_t panels = panels_of(product->w), first = begin > before ? begin - before : 0;
        int64_t past = end - before < panels ? end - before : panels;
        if (first < past) em_product_panels(x, product->w, first, past, product->y + first * EM_PANEL, product->ldy);
        before += panels;
    }
}

void em_products(const em_inputs *x, int64_t count, const em_product *product)
{
    enum { WORTH_SHARING = 1 << 18 }; /* multiplications: starting threads takes as long as some ten thousand */
    int64_t panels = 0, work = 0;
    for (int64_t i = 0; i < count; i++) {
        panels += panels_of(product[i].w);
        work += product[i].w->rows * x->width * x->num_rows;
    }
    if (x->num_rows == 0 || panels == 0) return;
    int several = work >= WORTH_SHARING ? em_threads() : 1;
    if (several > panels) several = (int)panels;
    /* in turns: a thread that the system lets run less takes fewer */
    int64_t each = (panels + several - 1) / several, step = panels_together(x);
    if (several == 1 || each < step) step = each;
#pragma omp parallel for schedule(guided) num_threads(several)
    for (int64_t panel = 0; panel < panels; panel += step)
        run_share(x, product, panel, panel + step < panels ? panel + step : panels);
}

/* A matrix with panels, made of one whose rows lie one after another. */
static em_matrix with_panels(const em_matrix *w)
{
    em_matrix copy = *w;
    copy.in_panels = true;
    em_matrix_allocate(&copy);
    em_matrix_put(&copy, 0, w->rows, w->data, w->cols);
    return copy;
}

void em_matmul(int64_t T, const em_matrix *w, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    if (T == 0 || w->rows == 0) return;
    em_matrix copy = w->in_panels ? *w : with_panels(w);
    em_inputs inputs = {0};
    const float *row[EM_ROW_BLOCK];
    for (int64_t t = 0; t < T; t += EM_ROW_BLOCK) {
        int64_t rows = t + EM_ROW_BLOCK < T ? EM_ROW_BLOCK : T - t;
        for (int64_t i = 0; i < rows; i++) row[i] = x + (t + i) * ldx;
        em_inputs_pack(&inputs, EM_COMPUTE_F32, rows, w->cols, row);
        em_products(&inputs, 1, &(em_product){&copy, y + t * ldy, ldy});
    }
    em_inputs_free(&inputs);
    if (!w->in_panels) free(copy.data);
}

void em_panel_product(int64_t T, int64_t panels, int64_t K, const float *w, int64_t panel_stride, const float *x,
                      int64_t ldx, float *y, int64_t ldy)
{
    if (T == 0 || panels == 0) return;
    block b = {.tiles = em_tiles_in_use(), .scale = ones, .ldy = ldy};
    float *packed = em_alloc(T * (K < EM_BLOCK ? K : EM_BLOCK), sizeof(float));
    const float **row = em_alloc(T, sizeof *row);
    for (int64_t t = 0; t < T; t++) row[t] = x + t * ldx;
    for (b.first = 0; b.first < K; b.first += b.count) {
        b.count = b.first + EM_BLOCK < K ? EM_BLOCK : K - b.first;
        pack_tiles(b.tiles, T, row, b.first, b.count, packed);
        for (b.panel = 0; b.panel < panels; b.panel += b.panels) {
            b.panels = panels - b.panel < EM_TOGETHER ? (int)(panels - b.panel) : EM_TOGETHER;
            b.lanes = b.panels * EM_PANEL;
            b.y = y + b.panel * EM_PANEL;
            run_tiles(&b, EM_F32, T, packed, b.count, 0,
                      (const char *)(w + b.panel * panel_stride + b.first * EM_PANEL),
                      panel_stride * (int64_t)sizeof(float));
        }
    }
    free(packed);
    free(row);
}
