/* Matrices in panels, and their products; declared in kernels.h. */
#include "expertmesh/kernels.h"

#include "tiles.h"

#include <stdlib.h>
#include <string.h>

/* ---- places ---- */

void em_matrix_allocate(em_matrix *matrix)
{
    matrix->data = em_alloc(matrix->rows * matrix->cols, em_storage_bytes(matrix->storage));
}

void em_matrix_free(em_matrix *matrix)
{
    free(matrix->data);
    free(matrix->scale);
    *matrix = (em_matrix){0};
}

int64_t em_matrix_bytes(const em_matrix *matrix)
{
    if (!matrix->data) return 0;
    int64_t scales = matrix->storage == EM_INT8 ? matrix->rows * matrix->num_groups * (int64_t)sizeof(float) : 0;
    return matrix->rows * matrix->cols * (int64_t)em_storage_bytes(matrix->storage) + scales;
}

/* Neurons in the panel that begins at a row. */
static int64_t panel_width(const em_matrix *m, int64_t first_row)
{
    int64_t whole = m->in_panels ? EM_PANEL : 1;
    return first_row + whole <= m->rows ? whole : m->rows - first_row;
}

static char *panel_at(const em_matrix *m, int64_t first_row)
{
    return (char *)m->data + first_row * m->cols * (int64_t)em_storage_bytes(m->storage);
}

/* The place of column j of neuron i in a panel of bf16 that is 16 wide, and how far the next two columns are. */
static int64_t bf16_place(int64_t cols, int64_t i, int64_t j)
{
    if (j == cols - 1 && cols % 2 == 1) return j * EM_PANEL + i;
    return (j / 2 * EM_PANEL + i) * 2 + j % 2;
}

static void put_f32(int64_t width, int64_t cols, const float *rows, float *panel)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < width; i++) panel[j * width + i] = rows[i * cols + j];
}

static void put_int8(int64_t width, int64_t cols, const int8_t *rows, int8_t *panel)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < width; i++) panel[j * width + i] = rows[i * cols + j];
}

static void put_bf16(int64_t width, int64_t cols, const uint16_t *rows, uint16_t *panel)
{
    if (width == EM_PANEL) {
        for (int64_t j = 0; j + 2 <= cols; j += 2)
            for (int64_t i = 0; i < EM_PANEL; i++)
                memcpy(panel + (j / 2 * EM_PANEL + i) * 2, rows + i * cols + j, 2 * sizeof *rows);
        for (int64_t i = 0; cols % 2 == 1 && i < EM_PANEL; i++)
            panel[(cols - 1) * EM_PANEL + i] = rows[i * cols + cols - 1];
        return;
    }
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < width; i++) panel[j * width + i] = rows[i * cols + j];
}

void em_matrix_put(em_matrix *m, int64_t first, int64_t count, const void *rows)
{
    int64_t row_bytes = m->cols * (int64_t)em_storage_bytes(m->storage);
    if (!m->in_panels) {
        memcpy(panel_at(m, first), rows, (size_t)(count * row_bytes));
        return;
    }
    for (int64_t row = first; row < first + count; row += EM_PANEL) {
        const char *from = (const char *)rows + (row - first) * row_bytes;
        int64_t width = panel_width(m, row);
        if (m->storage == EM_F32)
            put_f32(width, m->cols, (const float *)(const void *)from, (float *)(void *)panel_at(m, row));
        else if (m->storage == EM_BF16)
            put_bf16(width, m->cols, (const uint16_t *)(const void *)from, (uint16_t *)(void *)panel_at(m, row));
        else
            put_int8(width, m->cols, (const int8_t *)from, (int8_t *)panel_at(m, row));
    }
}

/* The number in column j of neuron i of a panel, without scale. */
static float number_at(const em_matrix *m, const char *panel, int64_t width, int64_t i, int64_t j)
{
    int64_t place = j * width + i;
    if (m->storage == EM_F32) return ((const float *)(const void *)panel)[place];
    if (m->storage == EM_INT8) return (float)((const int8_t *)panel)[place];
    if (width == EM_PANEL) place = bf16_place(m->cols, i, j);
    return em_bf16_to_f32(((const uint16_t *)(const void *)panel)[place]);
}

void em_matrix_rows(const em_matrix *m, int64_t first, int64_t count, float *out)
{
    for (int64_t row = first; row < first + count; row++, out += m->cols) {
        int64_t begin = m->in_panels ? row / EM_PANEL * EM_PANEL : row, width = panel_width(m, begin);
        const char *panel = panel_at(m, begin);
        for (int64_t j = 0; j < m->cols; j++) out[j] = number_at(m, panel, width, row - begin, j);
        for (int64_t j = 0; m->storage == EM_INT8 && j < m->cols; j++)
            out[j] *= m->scale[row * m->num_groups + (j + m->group_offset) / m->group_size];
    }
}

/* ---- products ---- */

/* The sets that this program was built with; NULL: not for this kind of processor. */
static const em_tiles *const sets[EM_NUM_ISAS] = {
    &em_tiles_plain,
#ifdef EM_TILES_X86
    &em_tiles_avx2,
    &em_tiles_avx512,
#endif
};

/* One process, one set. */
static const em_tiles *chosen;

static bool processor_has(em_isa isa)
{
#ifdef EM_TILES_X86
    if (isa == EM_ISA_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == EM_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("fma");
#endif
    return isa == EM_ISA_PLAIN;
}

bool em_isa_choose(em_isa *isa, em_status *status)
{
    const char *asked = getenv("EXPERTMESH_ISA");
    for (int i = EM_NUM_ISAS - 1; i >= 0; i--) {
        *isa = (em_isa)i;
        if (sets[i] && processor_has(*isa) && (!asked || strcmp(asked, sets[i]->name) == 0)) return true;
    }
    *isa = EM_ISA_PLAIN;
    return em_fail(status, EM_USAGE,
                   "EXPERTMESH_ISA is \"%s\", but this processor and program have no such set (of plain, "
                   "avx2, avx512)",
                   asked);
}

void em_isa_use(em_isa isa)
{
    chosen = sets[isa];
}

static const em_tiles *tiles_in_use(void)
{
    em_status ignored = {0};
    em_isa isa;
    if (chosen) return chosen;
    em_isa_choose(&isa, &ignored);
    em_isa_use(isa);
    return chosen;
}

enum { BLOCK = 1024 }; /* most inputs in one block of a sum; even, for pairs of bf16 */

/* One block of inputs of one product. */
typedef struct block {
    const em_tiles *tiles;
    const em_matrix *w;      /* NULL: no scales */
    int64_t T, first, count; /* rows; inputs [first, first + count) */
    int64_t group;           /* their scale group, counted from the matrix's first */
    const float *x;          /* packed: for each tile of rows, [count, width] */
    float *y;
    int64_t ldy;
} block;

/* The width of the tile that rows [t, T) begin with. */
static int place_of_width(const em_tiles *tiles, int64_t rows)
{
    int place = 0;
    while (tiles->width[place] > rows) place++;
    return place;
}

/* Rows of x beside each other, tile by tile. */
static void pack_inputs(const em_tiles *tiles, int64_t T, const float *x, int64_t ldx, int64_t first, int64_t count,
                        float *out)
{
    for (int64_t t = 0; t < T;) {
        int width = tiles->width[place_of_width(tiles, T - t)];
        for (int i = 0; i < width; i++)
            for (int64_t k = 0; k < count; k++) out[k * width + i] = x[(t + i) * ldx + first + k];
        out += count * width;
        t += width;
    }
}

/* Add a block's sums of one panel, `lanes` neurons of it, to y, times the group's scales. */
static void add_sums(const block *b, int64_t row, int64_t lanes, int64_t t, int width, const float *sums)
{
    float scale[EM_PANEL];
    for (int64_t i = 0; i < lanes; i++)
        scale[i] = b->w && b->w->storage == EM_INT8 ? b->w->scale[(row + i) * b->w->num_groups + b->group] : 1;
    for (int r = 0; r < width; r++) {
        float *y = b->y + (t + r) * b->ldy + row;
        const float *sum = sums + r * EM_PANEL;
        if (b->first == 0)
            for (int64_t i = 0; i < lanes; i++) y[i] = sum[i] * scale[i];
        else
            for (int64_t i = 0; i < lanes; i++) y[i] += sum[i] * scale[i];
    }
}

/* All rows through `panels` neighbouring panels that begin at a row of the matrix. */
static void run_panels(const block *b, em_storage storage, int64_t row, int panels, int64_t lanes, const char *w,
                       int64_t panel_bytes)
{
    float sums[EM_MAX_TILE] __attribute__((aligned(64)));
    const float *x = b->x;
    for (int64_t t = 0; t < b->T;) {
        int place = place_of_width(b->tiles, b->T - t), width = b->tiles->width[place], most = b->tiles->panels[place];
        for (int p = 0; p < panels;) {
            int step = panels - p >= most ? most : 1;
            (step == most ? b->tiles->large : b->tiles->small)[storage][place](b->count, w + p * panel_bytes,
                                                                               panel_bytes, x, sums);
            for (int q = 0; q < step; q++)
                add_sums(b, row + (p + q) * EM_PANEL, lanes, t, width, sums + q * width * EM_PANEL);
            p += step;
        }
        x += b->count * width;
        t += width;
    }
}

/* The inputs of a block in the panel of a row, 16 wide: where they lie, or, of a last narrow panel, widened in spare. */
static void run_narrow(const block *b, int64_t row, float *spare)
{
    int64_t width = panel_width(b->w, row);
    const char *panel = panel_at(b->w, row);
    for (int64_t k = 0; k < b->count; k++)
        for (int64_t i = 0; i < EM_PANEL; i++)
            spare[k * EM_PANEL + i] = i < width ? number_at(b->w, panel, width, i, b->first + k) : 0;
    run_panels(b, EM_F32, row, 1, width, (const char *)spare, 0);
}

static void run_block(const block *b, float *spare)
{
    enum { TOGETHER = 8, WORTH_EXPANDING = 24 };
    const em_matrix *w = b->w;
    int64_t size = (int64_t)em_storage_bytes(w->storage), panel_bytes = w->cols * EM_PANEL * size;
    int64_t whole = w->rows / EM_PANEL * EM_PANEL, expanded_bytes = BLOCK * EM_PANEL * (int64_t)sizeof(float);
    for (int64_t row = 0; row < whole; row += TOGETHER * EM_PANEL) {
        int panels = (int)((row + TOGETHER * EM_PANEL < whole ? TOGETHER * EM_PANEL : whole - row) / EM_PANEL);
        const char *data = panel_at(w, row) + b->first * EM_PANEL * size;
        if (w->storage == EM_F32 || b->T < WORTH_EXPANDING) {
            run_panels(b, w->storage, row, panels, EM_PANEL, data, panel_bytes);
            continue;
        }
        for (int p = 0; p < panels; p++)
            b->tiles->expand(w->storage, b->count, data + p * panel_bytes, spare + p * BLOCK * EM_PANEL);
        run_panels(b, EM_F32, row, panels, EM_PANEL, (const char *)spare, expanded_bytes);
    }
    if (whole < w->rows) run_narrow(b, whole, spare);
}

/* A matrix with panels, made of one whose rows lie one after another. */
static em_matrix with_panels(const em_matrix *w)
{
    em_matrix copy = *w;
    copy.in_panels = true;
    em_matrix_allocate(&copy);
    em_matrix_put(&copy, 0, w->rows, w->data);
    return copy;
}

/* The end of the scale group that an input lies in. */
static int64_t group_end(const em_matrix *w, int64_t input)
{
    if (w->storage != EM_INT8) return w->cols;
    int64_t end = ((input + w->group_offset) / w->group_size + 1) * w->group_size - w->group_offset;
    return end < w->cols ? end : w->cols;
}

void em_matmul(int64_t T, const em_matrix *w, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    if (T == 0 || w->rows == 0) return;
    em_matrix copy = w->in_panels ? *w : with_panels(w);
    block b = {.tiles = tiles_in_use(), .w = &copy, .T = T, .y = y, .ldy = ldy};
    float *packed = em_alloc(T * BLOCK, sizeof(float)), *spare = em_alloc(8 * BLOCK * EM_PANEL, sizeof(float));
    for (b.first = 0; b.first < w->cols; b.first += b.count) {
        int64_t end = group_end(w, b.first);
        b.count = b.first + BLOCK < end ? BLOCK : end - b.first;
        b.group = w->storage == EM_INT8 ? (b.first + w->group_offset) / w->group_size : 0;
        pack_inputs(b.tiles, T, x, ldx, b.first, b.count, packed);
        b.x = packed;
        run_block(&b, spare);
    }
    free(packed);
    free(spare);
    if (!w->in_panels) free(copy.data);
}

void em_panel_product(int64_t T, int64_t panels, int64_t K, const float *w, int64_t panel_stride, const float *x,
                      int64_t ldx, float *y, int64_t ldy)
{
    if (T == 0 || panels == 0) return;
    block b = {.tiles = tiles_in_use(), .T = T, .y = y, .ldy = ldy};
    float *packed = em_alloc(T * (K < BLOCK ? K : BLOCK), sizeof(float));
    for (b.first = 0; b.first < K; b.first += b.count) {
        b.count = b.first + BLOCK < K ? BLOCK : K - b.first;
        pack_inputs(b.tiles, T, x, ldx, b.first, b.count, packed);
        b.x = packed;
        run_panels(&b, EM_F32, 0, (int)panels, EM_PANEL, (const char *)(w + b.first * EM_PANEL),
                   panel_stride * (int64_t)sizeof(float));
    }
    free(packed);
}
