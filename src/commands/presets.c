/* presets: list the models that --preset names. */
#include "commands.h"

#include "../table.h"

static const em_option options[] = {{NULL, NULL, NULL, 0}};

static void presets(const em_call *call, em_status *status)
{
    (void)status;
    if (call->rank != 0) return;
    static const char *const head[] = {"preset",     "kind",    "layers",   "width",   "heads",      "kv heads",
                                       "key size",   "experts", "selected", "neurons", "vocabulary", "sequence",
                                       "parameters", "active",  "f32",      "bf16",    "int8"};
    enum { COLUMNS = sizeof head / sizeof *head };
    em_table *table = em_table_new(COLUMNS, "llrrrrrrrrrrrrrrr");
    for (int i = 0; i < COLUMNS; i++) em_table_cell(table, "%s", head[i]);
    for (int i = 0; i < EM_NUM_PRESETS; i++) {
        const em_config *c = &em_presets[i].config;
        em_model_size size = em_model_size_of(c);
        const int64_t shape[] = {c->num_layers, c->emb_size,    c->num_q_heads,          c->num_kv_heads,
                                 c->key_size,   c->num_experts, c->num_selected_experts, c->ffn_size,
                                 c->vocab_size, c->sequence_len};
        em_count_text count;
        em_bytes_text bytes;
        em_table_cell(table, "%s", em_presets[i].name);
        em_table_cell(table, "%s", em_ffn_kind_name(c->ffn_kind));
        for (size_t j = 0; j < sizeof shape / sizeof *shape; j++) em_table_cell(table, "%s", em_count(shape[j], count));
        em_table_cell(table, "%s", em_count(size.parameters, count));
        em_table_cell(table, "%s", em_count(size.active, count));
        for (int s = 0; s < EM_NUM_STORAGES; s++) em_table_cell(table, "%s", em_bytes((double)size.bytes[s], bytes));
    }
    em_table_print(table, stdout);
    em_table_free(table);
    printf("\n");
    for (int i = 0; i < EM_NUM_PRESETS; i++) printf("%-8s %s\n", em_presets[i].name, em_presets[i].meaning);
}

const em_command em_command_presets = {
    .name = "presets",
    .usage = "",
    .meaning =
        "List the models that --preset names: shape, parameters, parameters active for a token, bytes by storage.",
    .more = "",
    .options = options,
    .run = presets,
};
