#include "expertmesh/experts.h"

/* A block of one expert's rows on its way through its slices. */
typedef struct row_block {
    const em_experts *experts;
    int64_t expert, first_row, rows;
    float *hidden, *gated; /* [rows, slice_size] each, scratch */
    em_hidden_sink *sink;
    void *context;
} row_block;

static void add_bias(int64_t rows, int64_t count, const em_matrix *bias, float *y)
{
    for (int64_t i = 0; i < rows; i++) em_add(count, bias->data, y + i * count);
}

/* hidden [rows, n] = the outputs of a slice's first-layer neurons. */
static void first_layer(const row_block *b, int64_t place)
{
    const em_experts *e = b->experts;
    int64_t n = e->up[place].rows;
    bool gated = e->config->ffn_kind == EM_FFN_GLU;
    em_product product[] = {{&e->up[place], b->hidden, n}, {gated ? &e->gate[place] : NULL, b->gated, n}};
    em_products(&e->inputs[0], gated ? 2 : 1, product);
#pragma omp parallel for num_threads(b->rows *n > 1 << 14 ? em_threads() : 1)
    for (int64_t i = 0; i < b->rows; i++) {
        float *hidden = b->hidden + i * n, *gate = b->gated + i * n;
        if (!gated) em_add(n, e->up_bias[place].data, hidden);
        em_gelu(n, gated ? gate : hidden);
        for (int64_t j = 0; gated && j < n; j++) hidden[j] *= gate[j];
    }
}

static void second_layer(const row_block *b, int64_t place, float *out)
{
    const em_experts *e = b->experts;
    int64_t n = e->down[place].cols;
    const float *row[EM_ROW_BLOCK];
    for (int64_t i = 0; i < b->rows; i++) row[i] = b->hidden + i * n;
    em_inputs_pack(&e->inputs[1], e->compute, b->rows, n, row);
    em_products(&e->inputs[1], 1, &(em_product){&e->down[place], out, e->config->emb_size});
}

static void run_slice(void *context, int64_t slice, float *out)
{
    const row_block *b = context;
    const em_experts *e = b->experts;
    int64_t unit = b->expert * e->layout->slices_per_expert + slice, D = e->config->emb_size;
    int64_t place = unit - em_layout_ffn_units(e->layout, e->rank).begin;
    first_layer(b, place);
    if (b->sink) b->sink(b->context, em_layout_neurons(e->layout, slice), b->first_row, b->rows, b->hidden);
    second_layer(b, place, out);
    if (e->config->ffn_kind == EM_FFN_MLP && slice == 0) add_bias(b->rows, D, &e->down_bias[place], out);
}

void em_experts_run(const em_experts *experts, const int64_t *first_row, const float *const *rows,
                    const int64_t *first_output, float *outputs, em_hidden_sink *sink, void *context)
{
    int64_t D = experts->config->emb_size, n = experts->layout->slice_size;
    em_range here = em_layout_experts(experts->layout, experts->rank);
    float *hidden = em_room_for(&experts->rooms[0], 2 * EM_ROW_BLOCK * n, sizeof(float));
    float *gated = hidden + EM_ROW_BLOCK * n;
    for (int64_t e = here.begin; e < here.end; e++) {
        const em_cover *cover = &experts->covers[e];
        int64_t count = first_row[e + 1] - first_row[e];
        int first_node = cover->first_node[experts->rank], past_node = cover->first_node[experts->rank + 1];
        for (int64_t row = 0; row < count; row += EM_ROW_BLOCK) {
            int64_t size = row + EM_ROW_BLOCK < count ? EM_ROW_BLOCK : count - row;
            row_block block = {experts, e, first_row[e] + row, size, hidden, gated, sink, context};
            em_inputs_pack(&experts->inputs[0], experts->compute, size, D, rows + first_row[e] + row);
            for (int node = first_node; node < past_node; node++) {
                int64_t output = first_output[e] + (node - first_node) * count + row;
                float *scratch =
                    em_room_for(&experts->rooms[1], em_tree_depth(cover->node[node]) * size * D, sizeof(float));
                em_tree_sum(cover->node[node], size * D, run_slice, &block, outputs + output * D, scratch);
            }
        }
    }
}
