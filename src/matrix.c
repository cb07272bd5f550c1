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

/* One panel of numbers of `size` bytes, from rows one after another. */
static void put_panel(const em_matrix *m, int64_t width, const char *rows, char *panel)
{
    size_t size = em_storage_bytes(m->storage);
    for (int64_t i = 0; i < width; i++)
        for (int64_t j = 0; j < m->cols; j++) {
            int64_t place = width == EM_PANEL ? place_of(m, i, j) : j * width + i;
            memcpy(panel + place * (int64_t)size, rows + (i * m->cols + j) * (int64_t)size, size);
        }
}

void em_matrix_put(em_matrix *m, int64_t first, int64_t count, const void *rows)
{
    int64_t row_bytes = m->cols * (int64_t)em_storage_bytes(m->storage);
    if (!m->in_panels) {
        memcpy(em_matrix_panel(m, first), rows, (size_t)(count * row_bytes));
        return;
    }
    for (int64_t row = first; row < first + count; row += EM_PANEL)
        put_panel(m, panel_width(m, row), (const char *)rows + (row - first) * row_bytes, em_matrix_panel(m, row));
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

void em_matrix_rows(const em_matrix *m, int64_t first, int64_t count, float *out)
{
    for (int64_t row = first; row < first + count; row++, out += m->cols) {
        for (int64_t j = 0; j < m->cols; j++) out[j] = em_matrix_number(m, row, j);
        for (int64_t j = 0; m->storage == EM_INT8 && j < m->cols; j++)
            out[j] *= m->scale[row * m->num_groups + (j + m->group_offset) / m->group_size];
    }
}
