/* rows.h: rows of a foreign array as the model wants them, one neuron a row, and numbers from one type to another. Private to
 * the library. No MPI. */
#ifndef EXPERTMESH_ROWS_H
#define EXPERTMESH_ROWS_H

#include "expertmesh/layout.h"
#include "foreign.h"

/* Opens the files of a checkpoint as they are needed, one at a time. Starts zeroed. */
typedef struct em_reader {
    const em_foreign *foreign; /* borrowed */
    em_input input;            /* the open one: path is NULL where none is */
    int which;
    em_room band; /* inputs on their way to being transposed */
} em_reader;

void em_reader_close(em_reader *reader);

/* Rows [rows) of one expert's matrix, as their file has them, into out: em_number_bytes(array->number, cols) a row. all_rows
 * and cols are those of the matrix. Where the file has [inputs, outputs] they are transposed in bands of inputs. */
bool em_rows_read(em_reader *reader, const em_array *array, int64_t expert, int64_t all_rows, int64_t cols,
                  em_range rows, void *out, em_status *status);

/* count numbers as float32. Exact. Not int8, which needs scales. */
void em_numbers_to_f32(em_number number, int64_t count, const void *in, float *out);

/* IEEE half precision: exact; and to nearest, ties to even, infinity beyond 65504. */
float em_f16_to_f32(uint16_t half);
uint16_t em_f32_to_f16(float number);

#endif
