/* panels.h: inside a matrix (kernels.h), for the loops that know its panels. Private to the library. */
#ifndef EXPERTMESH_PANELS_H
#define EXPERTMESH_PANELS_H

#include "expertmesh/kernels.h"

/* The numbers of the panel that begins at a row. */
char *em_matrix_panel(const em_matrix *matrix, int64_t first_row);

/* The number in a row and column, without scale. For the odd ends that no loop is made for. */
float em_matrix_number(const em_matrix *matrix, int64_t row, int64_t col);

#endif
