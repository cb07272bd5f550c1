#include "expertmesh/experts.h"

/* A block of one expert's rows on its way through its slices. */
typedef struct row_block {
    const em_experts *experts;
    int64_t expert, first_row, rows;
    float *hidden, *gated; /* [rows, slice_size] each, scratch */
    em_hidden_sink *sink;
    void *context;
    int64_t outputs_done; /* rows of the outputs before those of this group */
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
        (e->numerics->gelu_erf ? em_gelu_erf : em_gelu)(n, gated ? gate : hidden);
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
    int64_t place = em_units_place(em_layout_ffn_units(e->layout, e->rank), unit);
    first_layer(b, place);
    if (b->sink) b->sink(b->context, em_layout_neurons(e->layout, slice), b->first_row, b->rows, b->hidden);
    second_layer(b, place, out);
    if (e->done) e->done(e->done_context, b->outputs_done);
    if (e->config->ffn_kind == EM_FFN_MLP && slice == 0) add_bias(b->rows, D, &e->down_bias[place], out);
}

/* The nodes of a group that this rank sums, for one block of its rows, which lie at outputs and on; of each node, `count`
 * rows. */
static void run_nodes(row_block *b, const em_cover *cover, int64_t count, float *outputs)
{
    const em_experts *e = b->experts;
    int64_t D = e->config->emb_size;
    for (int node = 0; node < cover->num_nodes; node++) {
        if (cover->rank[node] != e->rank) continue;
        int64_t floats = em_tree_depth(cover->node[node]) * b->rows * D;
        float *scratch = em_room_for(&e->rooms[1], floats, sizeof(float));
        em_tree_sum(cover->node[node], b->rows * D, run_slice, b, outputs + cover->place[node] * count * D, scratch);
    }
}

void em_experts_run(const em_experts *experts, const int64_t *first_row, const float *const *rows,
                    const int64_t *first_output, float *outputs, em_hidden_sink *sink, void *context)
{
    const em_covers *covers = experts->covers;
    int64_t D = experts->config->emb_size, n = experts->layout->slice_size;
    float *hidden = em_room_for(&experts->rooms[0], 2 * EM_ROW_BLOCK * n, sizeof(float));
    float *gated = hidden + EM_ROW_BLOCK * n;
    for (int64_t e = 0; e < covers->num_experts; e++)
        for (int64_t g = covers->first[e]; g < covers->first[e + 1]; g++) {
            int64_t count = first_row[g + 1] - first_row[g];
            for (int64_t row = 0; row < count; row += EM_ROW_BLOCK) {
                int64_t size = row + EM_ROW_BLOCK < count ? EM_ROW_BLOCK : count - row;
                row_block block = {experts, e, first_row[g] + row, size, hidden, gated, sink, context, first_output[g]};
                em_inputs_pack(&experts->inputs[0], experts->compute, size, D, rows + first_row[g] + row);
                run_nodes(&block, &covers->cover[g], count, outputs + (first_output[g] + row) * D);
            }
            if (experts->done) experts->done(experts->done_context, first_output[g + 1]);
        }
}
