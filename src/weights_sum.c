/* Which weights these are: a sum over all ranks; declared in weights.h. */
#include "expertmesh/weights.h"

#include <stdlib.h>
#include <zlib.h>

typedef struct block_list {
    em_block *block;
    int64_t count, room;
} block_list;

static bool keep_own(void *context, const em_block *block)
{
    block_list *list = context;
    if (block->repeated) return true;
    if (list->count == list->room) {
        int64_t room = list->room > 0 ? 2 * list->room : 256;
        list->block = em_grow(list->block, list->count, room, sizeof *list->block);
        list->room = room;
    }
    list->block[list->count++] = *block;
    return true;
}

/* The CRC (zlib's) of a block's place in the model, its numbers and its scales. */
static uint64_t sum_block(const em_block *block, const em_matrix *matrix)
{
    const int64_t place[] = {block->tensor,   block->layer,      block->expert,   block->rows.begin,
                             block->rows.end, block->cols.begin, block->cols.end, matrix->storage};
    int64_t scales = matrix->storage == EM_INT8 ? matrix->rows * matrix->num_groups * (int64_t)sizeof(float) : 0;
    int64_t numbers = matrix->rows * matrix->cols * (int64_t)em_storage_bytes(matrix->storage);
    uLong crc = crc32_z(0, (const Bytef *)place, sizeof place);
    crc = crc32_z(crc, (const Bytef *)matrix->data, (z_size_t)numbers);
    if (scales > 0) crc = crc32_z(crc, (const Bytef *)matrix->scale, (z_size_t)scales);
    return crc * UINT64_C(0x9e3779b97f4a7c15); /* spread, so that few changes cancel out */
}

uint64_t em_weights_sum(const em_weights *weights, const em_config *config, const em_layout *layout, int rank)
{
    block_list list = {0};
    uint64_t sum = 0;
    em_weights_blocks(config, layout, rank, keep_own, &list);
#pragma omp parallel for schedule(dynamic) reduction(+ : sum) num_threads(em_threads())
    for (int64_t i = 0; i < list.count; i++) {
        const em_block *b = &list.block[i];
        sum += sum_block(b, em_weights_of(weights, b->tensor, b->layer) + b->place);
    }
    free(list.block);
    return sum;
}
