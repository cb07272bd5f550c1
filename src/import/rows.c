#include "rows.h"

#include "expertmesh/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void em_reader_close(em_reader *reader)
{
    em_input_close(&reader->input);
    em_room_free(&reader->band);
}

static bool turn_to(em_reader *reader, int which, em_status *status)
{
    if (reader->input.path && reader->which == which) return true;
    em_input_close(&reader->input);
    reader->which = which;
    return em_input_open(&reader->input, reader->foreign->input[which], status);
}

/* band [inputs, rows] to columns [col, col + inputs) of out [rows, cols], 64 rows at a time: their lines stay in the cache. */
#define TRANSPOSE(name, type)                                                                              \
    static void name(int64_t inputs, int64_t rows, const void *band, int64_t cols, int64_t col, void *out) \
    {                                                                                                      \
        enum { STEP = 64 };                                                                                \
        const type *from = band;                                                                           \
        type *to = out;                                                                                    \
        for (int64_t first = 0; first < rows; first += STEP)                                               \
            for (int64_t r = first; r < rows && r < first + STEP; r++)                                     \
                for (int64_t j = 0; j < inputs; j++) to[r * cols + col + j] = from[j * rows + r];          \
    }
TRANSPOSE(transpose_1, uint8_t)
TRANSPOSE(transpose_2, uint16_t)
TRANSPOSE(transpose_4, uint32_t)

/* A run of each input's outputs, as long as the rows are many: that is how the file lies. */
static bool read_band(em_reader *reader, int64_t start, int64_t all_rows, int64_t size, int64_t input, int64_t inputs,
                      em_range rows, char *band, em_status *status)
{
    int64_t count = em_range_size(rows);
    bool whole = count == all_rows, good = true;
    int64_t calls = whole ? 1 : inputs, length = whole ? inputs * count : count;
    for (int64_t i = 0; good && i < calls; i++)
        good = em_input_read(&reader->input, start + ((input + i) * all_rows + rows.begin) * size, length * size,
                             band + i * length * size, status);
    return good;
}

static bool read_transposed(em_reader *reader, int64_t start, int64_t all_rows, int64_t cols, int64_t size,
                            em_range rows, void *out, em_status *status)
{
    enum { INPUTS = 64 };
    int64_t count = em_range_size(rows);
    char *band = em_room_for(&reader->band, INPUTS * count, (size_t)size);
    for (int64_t input = 0; input < cols; input += INPUTS) {
        int64_t inputs = cols - input < INPUTS ? cols - input : INPUTS;
        if (!read_band(reader, start, all_rows, size, input, inputs, rows, band, status)) return false;
        if (size == 1)
            transpose_1(inputs, count, band, cols, input, out);
        else if (size == 2)
            transpose_2(inputs, count, band, cols, input, out);
        else
            transpose_4(inputs, count, band, cols, input, out);
    }
    return true;
}

bool em_rows_read(em_reader *reader, const em_array *array, int64_t expert, int64_t all_rows, int64_t cols,
                  em_range rows, void *out, em_status *status)
{
    int64_t row_bytes = em_number_bytes(array->number, cols), start = array->offset;
    if (array->place.expert == EM_ALL_EXPERTS) start += expert * all_rows * row_bytes;
    if (!turn_to(reader, array->input, status)) return false;
    if (array->transposed)
        return read_transposed(reader, start, all_rows, cols, em_number_bytes(array->number, 1), rows, out, status);
    return em_input_read(&reader->input, start + rows.begin * row_bytes, em_range_size(rows) * row_bytes, out, status);
}

/* ---- numbers ---- */

float em_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16, exponent = half >> 10 & 31U, fraction = half & 0x3ffU, bits;
    float number;
    if (exponent == 0) { /* fraction * 2^-24, exactly */
        number = ldexpf((float)fraction, -24);
        return sign ? -number : number;
    }
    bits = sign | (exponent == 31 ? 0xffU : exponent + 112) << 23 | fraction << 13;
    memcpy(&number, &bits, sizeof number);
    return number;
}

uint16_t em_f32_to_f16(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000U);
    bits &= 0x7fffffffU;
    if (bits > 0x7f800000U) return (uint16_t)(sign | 0x7e00U);
    if (bits >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); /* rounds beyond 65504 */
    if (bits < 0x38800000U) { /* below 2^-14: whole multiples of 2^-24, rounded by the processor, ties to even */
        memcpy(&number, &bits, sizeof number);
        return (uint16_t)(sign | (uint16_t)lrintf(ldexpf(number, 24)));
    }
    bits += 0xfffU + (bits >> 13 & 1U);
    return (uint16_t)(sign | (uint16_t)((bits >> 13) - (112U << 10)));
}

static void q8_0_to_f32(int64_t count, const unsigned char *in, float *out)
{
    for (int64_t i = 0; i < count; i += EM_Q8_0_NUMBERS, in += EM_Q8_0_BYTES) {
        float scale = em_f16_to_f32((uint16_t)(in[0] | in[1] << 8));
        for (int j = 0; j < EM_Q8_0_NUMBERS; j++) out[i + j] = (float)(int8_t)in[2 + j] * scale;
    }
}

void em_numbers_to_f32(em_number number, int64_t count, const void *in, float *out)
{
    const uint16_t *halves = in;
    switch (number) {
    case EM_NUMBER_F32: memcpy(out, in, (size_t)count * sizeof *out); break;
    case EM_NUMBER_F16:
        for (int64_t i = 0; i < count; i++) out[i] = em_f16_to_f32(halves[i]);
        break;
    case EM_NUMBER_BF16:
        for (int64_t i = 0; i < count; i++) out[i] = em_bf16_to_f32(halves[i]);
        break;
    case EM_NUMBER_Q8_0: q8_0_to_f32(count, in, out); break;
    default: em_die("%s numbers mean nothing without scales", em_number_name(number));
    }
}
