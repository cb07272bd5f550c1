/* Matrices and their panels; declared in kernels.h. */
#include "expertmesh/kernels.h"

#include "panels.h"

#include <stdlib.h>
#include <string.h>

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

char *em_matrix_panel(const em_matrix *m, int64_t first_row)
{
    return (char *)m->data + first_row * m->cols * (int64_t)em_storage_bytes(m->storage);
}

/* Columns that lie beside each other in a panel of 16, so that products of 16 and 8 bits find them in one register: a
 * neuron's 32 bits. What columns are left at the end lie as in float32. */
static int64_t together(em_storage storage)
{
    return (int64_t)(sizeof(float) / em_storage_bytes(storage));
}

/* The place of column j of neuron i in a panel of 16. */
static int64_t place_of(const em_matrix *m, int64_t i, int64_t j)
{
    int64_t n = together(m->storage);
    return j >= m->cols / n * n ? j * EM_PANEL + i : (j / n * EM_PANEL + i) * n + j % n;
}

typedef uint32_t u32x4 __attribute__((vector_size(16), aligned(1), may_alias));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (u32x4){i, j, k, l})
#endif

/* What is [4 rows, 4 columns of 32 bits] becomes columns of a panel. */
static inline void turn(const char *rows, int64_t stride, char *panel)
{
    u32x4 row[4], half[4];
    for (int i = 0; i < 4; i++) row[i] = *(const u32x4 *)(const void *)(rows + i * stride);
    half[0] = PICK(row[0], row[1], 0, 4, 1, 5);
    half[1] = PICK(row[0], row[1], 2, 6, 3, 7);
    half[2] = PICK(row[2], row[3], 0, 4, 1, 5);
    half[3] = PICK(row[2], row[3], 2, 6, 3, 7);
    for (int i = 0; i < 2; i++) {
        u32x4 *at = (u32x4 *)(void *)(panel + (ptrdiff_t)i * 2 * EM_PANEL * 4);
        at[0] = PICK(half[i], half[i + 2], 0, 1, 4, 5);
        at[EM_PANEL / 4] = PICK(half[i], half[i + 2], 2, 3, 6, 7);
    }
}

/* A panel of 16 is [units, 16] units of 32 bits: one number, or as many as lie together. All but the last few, 16 at a time;
 * 4 rows are read a cache line each, for 16 rows, often a power of two apart, would drive each other out. Returns how many. */
static int64_t put_units(int64_t units, const char *rows, int64_t stride, char *panel)
{
    int64_t whole = units / EM_PANEL * EM_PANEL;
    for (int64_t j = 0; j < whole; j += EM_PANEL)
        for (int64_t i = 0; i < EM_PANEL; i += 4)
            for (int64_t k = j; k < j + EM_PANEL; k += 4)
                turn(rows + i * stride + k * 4, stride, panel + (k * EM_PANEL + i) * 4);
    return whole;
}

/* One panel of numbers of `size` bytes, from rows `stride` bytes apart. */
static void put_panel(const em_matrix *m, int64_t width, const char *rows, int64_t stride, char *panel)
{
    int64_t size = (int64_t)em_storage_bytes(m->storage), n = together(m->storage), done = 0;
    if (width == EM_PANEL) done = n * put_units(m->cols / n, rows, stride, panel);
    for (int64_t i = 0; i < width; i++)
        for (int64_t j = done; j < m->cols; j++) {
            int64_t place = width == EM_PANEL ? place_of(m, i, j) : j * width + i;
            memcpy(panel + place * size, rows + i * stride + j * size, (size_t)size);
        }
}

void em_matrix_put(em_matrix *m, int64_t first, int64_t count, const void *rows, int64_t stride)
{
    int64_t size = (int64_t)em_storage_bytes(m->storage), step = m->in_panels ? EM_PANEL : 1;
    for (int64_t row = first; row < first + count; row += step) {
        const char *from = (const char *)rows + (row - first) * stride * size;
        if (m->in_panels)
            put_panel(m, panel_width(m, row), from, stride * size, em_matrix_panel(m, row));
        else
            memcpy(em_matrix_panel(m, row), from, (size_t)(m->cols * size));
    }
}

float em_matrix_number(const em_matrix *m, int64_t row, int64_t j)
{
    int64_t begin = m->in_panels ? row / EM_PANEL * EM_PANEL : row, width = panel_width(m, begin), i = row - begin;
    int64_t place = width == EM_PANEL ? place_of(m, i, j) : j * width + i;
    const char *panel = em_matrix_panel(m, begin);
    if (m->storage == EM_F32) return ((const float *)(const void *)panel)[place];
    if (m->storage == EM_BF16) return em_bf16_to_f32(((const uint16_t *)(const void *)panel)[place]);
    return (float)((const int8_t *)panel)[place];
}

/* A row of a whole panel, 32 bits at a time; returns how many of its columns lie so. */
static int64_t read_words(const em_matrix *m, int64_t row, float *out)
{
    const char *word = em_matrix_panel(m, row / EM_PANEL * EM_PANEL) + row % EM_PANEL * 4;
    int64_t n = together(m->storage), whole = m->cols / n * n;
    for (int64_t j = 0; j < whole; j += n, word += EM_PANEL * 4) {
        if (m->storage == EM_F32)
            out[j] = *(const float *)(const void *)word;
        else if (m->storage == EM_BF16)
            for (int i = 0; i < 2; i++) out[j + i] = em_bf16_to_f32(((const uint16_t *)(const void *)word)[i]);
        else
            for (int i = 0; i < 4; i++) out[j + i] = (float)((const int8_t *)word)[i];
    }
    return whole;
}

void em_matrix_rows(const em_matrix *m, int64_t first, int64_t count, float *out)
{
    for (int64_t row = first; row < first + count; row++, out += m->cols) {
        bool whole = m->in_panels && panel_width(m, row / EM_PANEL * EM_PANEL) == EM_PANEL;
        for (int64_t j = whole ? read_words(m, row, out) : 0; j < m->cols; j++) out[j] = em_matrix_number(m, row, j);
        for (int64_t j = 0; m->storage == EM_INT8 && j < m->cols; j++)
            out[j] *= m->scale[row * m->num_groups + (j + m->group_offset) / m->group_size];
    }
}
