#include "expertmesh/embedding.h"

#include <stdlib.h>

int64_t em_embedding_look_up(const em_config *config, const em_layout *layout, int rank, const em_matrix *blocks,
                             int64_t T, const int32_t *token_id, float *out)
{
    em_units units = em_layout_vocab_units(layout, rank);
    int64_t D = config->emb_size, n = 0;
    int32_t *here = em_alloc(T, sizeof *here);
    float factor = (float)config->embedding_multiplier_scale;
    for (int64_t t = 0; t < T; t++)
        if (em_layout_vocab_owner(layout, token_id[t]) == rank) here[n++] = token_id[t];
#pragma omp parallel for num_threads(n > 1 ? em_threads() : 1)
    for (int64_t i = 0; i < (out ? n : 0); i++) {
        int64_t unit = here[i] / layout->vocab_block;
        float *row = out + i * D;
        em_matrix_rows(&blocks[em_units_place(units, unit)], here[i] - em_layout_vocab_rows(layout, unit).begin, 1,
                       row);
        for (int64_t d = 0; d < D; d++) row[d] *= factor;
    }
    free(here);
    return n;
}

void em_embedding_logits(const em_config *config, const em_layout *layout, int rank, const em_matrix *blocks, int64_t T,
                         const float *const *x, em_compute compute, em_inputs *inputs, float *logits)
{
    em_units units = em_layout_vocab_units(layout, rank);
    int64_t width = em_layout_vocab_held(layout, rank), count = units.count;
    float factor = (float)config->output_multiplier_scale;
    em_product *product = em_alloc(count, sizeof *product);
    for (int64_t t = 0; count > 0 && t < T; t += EM_ROW_BLOCK) {
        for (int64_t u = 0, first = 0; u < count; first += blocks[u++].rows)
            product[u] = (em_product){&blocks[u], logits + t * width + first, width};
        em_inputs_pack(inputs, em_compute_fit(compute, blocks[0].storage), t + EM_ROW_BLOCK < T ? EM_ROW_BLOCK : T - t,
                       config->emb_size, x + t);
        em_products(inputs, count, product);
    }
    free(product);
    for (int64_t i = 0; i < T * width; i++) logits[i] *= factor;
}
