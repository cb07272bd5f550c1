/* matrices.h: random matrices of every storage, and sums to hold products against. */
#ifndef EXPERTMESH_MATRICES_H
#define EXPERTMESH_MATRICES_H

#include "fields.h"

/* One element of a product and the bound of its error: K products and K additions in any order, and a scale. */
static inline void check_sum(int64_t K, const float *a, const float *b, int64_t step_b, float got)
{
    double sum = 0, size = 0;
    for (int64_t k = 0; k < K; k++) {
        double term = (double)a[k] * (double)b[k * step_b];
        sum += term;
        size += fabs(term);
    }
    double bound = (double)(K + 3) * HALF_ULP * size;
    CU_ASSERT(near(got, sum, bound + (double)K * SMALLEST));
}

/* A random matrix, and what its numbers weigh in full. int8: columns [first, first + cols) of neurons with inputs cut into
 * groups of group_size. */
static inline em_matrix draw_matrix(em_storage storage, int64_t rows, int64_t cols, int64_t group_size, int64_t first,
                                    float *weights)
{
    em_matrix m = {.storage = storage, .rows = rows, .cols = cols, .group_size = group_size};
    int64_t last_group = (first + cols - 1) / group_size, first_group = first / group_size;
    m.num_groups = last_group - first_group + 1;
    m.group_offset = first - first_group * group_size;
    m.data = em_alloc(rows * cols, em_storage_bytes(storage));
    m.scale = storage == EM_INT8 ? em_alloc(rows * m.num_groups, sizeof(float)) : NULL;
    for (int64_t i = 0; m.scale && i < rows * m.num_groups; i++) m.scale[i] = draw_wide(8);
    for (int64_t o = 0; o < rows; o++)
        for (int64_t j = 0; j < cols; j++) {
            int64_t at = o * cols + j, group = (first + j) / group_size - first_group;
            if (storage == EM_F32) {
                ((float *)m.data)[at] = weights[at] = draw_wide(8);
            } else if (storage == EM_BF16) {
                uint32_t bits = (uint32_t)draw_from(0x3000, 0x4800) << 16 | (uint32_t)draw_below(2) << 31;
                ((uint16_t *)m.data)[at] = (uint16_t)(bits >> 16);
                memcpy(&weights[at], &bits, sizeof bits);
            } else {
                ((int8_t *)m.data)[at] = (int8_t)draw_from(-128, 127);
                weights[at] = (float)((int8_t *)m.data)[at] * m.scale[o * m.num_groups + group];
            }
        }
    return m;
}

/* The same numbers in panels, put there a few rows at a time. */
static inline em_matrix in_panels(const em_matrix *m)
{
    em_matrix copy = *m;
    copy.in_panels = true;
    em_matrix_allocate(&copy);
    int64_t row_bytes = m->cols * (int64_t)em_storage_bytes(m->storage), step;
    for (int64_t row = 0; row < m->rows; row += step) {
        step = EM_PANEL * draw_from(1, 3);
        em_matrix_put(&copy, row, row + step < m->rows ? step : m->rows - row, (char *)m->data + row * row_bytes,
                      m->cols);
    }
    return copy;
}

#endif
