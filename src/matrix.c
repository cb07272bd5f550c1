/* Matrices and their panels; declared in kernels.h. */
#include "expertmesh/kernels.h"

#include "panels.h"
#include "tiles.h"

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

static bool is_finite(em_storage storage, int64_t count, const void *numbers)
{
    if (storage == EM_F32) return em_first_not_finite(count, numbers) < 0;
    return storage != EM_BF16 || em_first_not_finite_bf16(count, numbers) < 0;
}

/* One panel of numbers, from rows `stride` bytes apart; 16 units of 16 neurons at a time, then one by one. */
static bool put_panel(const em_matrix *m, int64_t width, const char *rows, int64_t stride, char *panel)
{
    int64_t size = (int64_t)em_storage_bytes(m->storage), n = together(m->storage), units = 0;
    if (width == EM_PANEL) units = m->cols / n / EM_PANEL * EM_PANEL;
    bool finite = em_tiles_in_use()->turn(m->storage, units, rows, stride, panel);
    for (int64_t i = 0; i < width; i++, rows += stride) {
        finite &= is_finite(m->storage, m->cols - units * n, rows + units * n * size);
        for (int64_t j = units * n; j < m->cols; j++) {
            int64_t place = width == EM_PANEL ? place_of(m, i, j) : j * width + i;
            memcpy(panel + place * size, rows + j * size, (size_t)size);
        }
    }
    return finite;
}

bool em_matrix_put(em_matrix *m, int64_t first, int64_t count, const void *rows, int64_t stride)
{
    int64_t size = (int64_t)em_storage_bytes(m->storage), step = m->in_panels ? EM_PANEL : 1;
    bool finite = true;
    for (int64_t row = first; row < first + count; row += step) {
        const char *from = (const char *)rows + (row - first) * stride * size;
        if (m->in_panels) {
            finite &= put_panel(m, panel_width(m, row), from, stride * size, em_matrix_panel(m, row));
        } else {
            finite &= is_finite(m->storage, m->cols, from);
            memcpy(em_matrix_panel(m, row), from, (size_t)(m->cols * size));
        }
    }
    return finite;
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
