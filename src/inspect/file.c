/* inspect FILE: what is in a weights file or a trace. */
#include "inspect.h"

#include "../summary.h"

#include <string.h>

static bool in_words(const em_inspect *in)
{
    return !em_option_value(in->call, "output");
}

/* ---- weights ---- */

/* Every field, for programs; for the eye the numbers that are not in the summary. */
static void put_config(em_inspect *in, const em_source *source)
{
    em_config copy = source->config;
    if (in_words(in)) {
        printf("%s: weights of a model\n", in->path);
        em_summary_model(source, stdout);
        printf("\n");
    }
    em_table *table = em_book_add(in->book, "config", "ll", "field,value", "numbers of the model");
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (in_words(in) && field->type != EM_FIELD_REAL) continue;
        em_table_cell(table, "%s", field->name);
        if (field->type == EM_FIELD_REAL)
            em_table_cell(table, "%.15g", *em_config_real(&copy, field));
        else if (field->type == EM_FIELD_INTEGER)
            em_table_whole(table, *em_config_integer(&copy, field));
        else
            em_table_cell(table, "%s", em_ffn_kind_name(copy.ffn_kind));
    }
}

static void put_tensor(em_table *table, const em_source *source, em_tensor tensor)
{
    int64_t layers = em_tensor_layers(&source->config, tensor), bytes = 0, mixed = 0;
    em_tensor_shape shape = em_tensor_shape_of(&source->config, tensor);
    if (layers == 0) return;
    const em_form *first = em_source_form(source, tensor, 0);
    for (int64_t layer = 0; layer < layers; layer++) {
        const em_form *form = em_source_form(source, tensor, layer);
        mixed += form->storage != first->storage;
        bytes += em_dataset_bytes(&form->data);
        if (form->storage == EM_INT8) bytes += em_dataset_bytes(&form->scale);
    }
    em_dims_text dims;
    em_table_cell(table, "%s", strrchr(first->data.name, '/') + 1);
    em_table_cell(table, "%s", em_dims(&first->data, dims));
    em_table_cell(table, "%s", shape.reason);
    em_table_cell(table, "%s", mixed ? "mixed" : em_storage_name(first->storage));
    if (first->storage == EM_INT8)
        em_table_whole(table, first->groups);
    else
        em_table_none(table);
    em_table_whole(table, layers);
    em_table_bytes(table, bytes);
}

void em_inspect_weights(em_inspect *in, em_status *status)
{
    em_source source;
    if (!em_source_open(&source, in->path, status)) return;
    bool tensors = em_book_wants(in->book, "tensors");
    if (em_book_wants(in->book, "config")) put_config(in, &source);
    if (tensors) {
        em_table *table =
            em_book_add(in->book, "tensors", "llllrrr", "tensor,shape,from,storage,scale groups,layers,bytes",
                        "one a layer where there are layers, together");
        for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) put_tensor(table, &source, t);
    }
    em_source_close(&source);
}

/* ---- a trace ---- */

/* A counter of the trace, or -1. */
static int64_t read_counter(em_store *store, const char *name, em_status *status)
{
    em_dataset data;
    double value = -1;
    if (!em_store_has(store, name)) return -1;
    if (em_store_find(store, name, &data, status) && data.rank == 0)
        em_store_read_numbers(store, &data, NULL, NULL, &value, status);
    return value >= 0 && value < 0x1p53 ? (int64_t)value : -1;
}

static void put_attributes(em_store *store, em_table *table, em_status *status)
{
    static const char *const words[] = {"creator",      "creator_version", "git_revision", "command_line",
                                        "date_created", "hostname",        "mpi_library",  "weights",
                                        "slurm_job_id", "numerics",        "config_json",  "layout"};
    static const char *const numbers[] = {"num_ranks", "seed", "complete"};
    static const char *const counters[] = {"layers_done", "step_tokens", "tokens_done", "stopped", "resumes"};
    char *text;
    int64_t number;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!em_store_has_attribute(store, "/", words[i])) continue;
        if (!em_store_get_text(store, "/", words[i], &text, status)) return;
        em_table_cell(table, "%s", words[i]);
        em_table_text(table, text);
        free(text);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (!em_store_has_attribute(store, "/", numbers[i])) continue;
        if (!em_store_get_int(store, "/", numbers[i], &number, status)) return;
        em_table_cell(table, "%s", numbers[i]);
        em_table_whole(table, number);
    }
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        number = read_counter(store, counters[i], status);
        if (number < 0) continue;
        em_table_cell(table, "%s", counters[i]);
        em_table_whole(table, number);
    }
}

/* "layer, token, emb". */
static void put_axes(em_table *table, const em_dataset *data)
{
    int q = em_quantity_find(data->name + 1);
    char text[128] = "";
    size_t length = 0;
    for (int i = 0; q >= 0 && i < em_quantities[q].num_axes && length < sizeof text; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", i > 0 ? ", " : "",
                                   em_axes[em_quantities[q].axis[i]].name);
    em_table_cell(table, "%s", text);
}

static bool put_dataset(em_store *store, const char *name, em_table *table, em_status *status)
{
    em_dataset data;
    em_dims_text dims;
    em_type_text type;
    char *meaning = NULL;
    if (!em_store_find(store, name, &data, status) || (em_store_has_attribute(store, name, "long_name") &&
                                                       !em_store_get_text(store, name, "long_name", &meaning, status)))
        return false;
    em_table_cell(table, "%s", name + 1);
    em_table_cell(table, "%s", em_dims(&data, dims));
    put_axes(table, &data);
    em_table_cell(table, "%s", em_store_type(store, &data, type));
    if (data.type == EM_TYPE_TEXT) /* elsewhere in the file */
        em_table_none(table);
    else
        em_table_bytes(table, em_dataset_bytes(&data));
    em_table_cell(table, "%s", meaning ? meaning : "");
    free(meaning);
    return true;
}

/* Through the file's structure alone: what is wrong with a trace shows here, too. */
void em_inspect_trace(em_inspect *in, em_status *status)
{
    em_store *store = em_store_open(in->path, status);
    if (!store) return;
    bool datasets = em_book_wants(in->book, "datasets");
    if (in_words(in)) printf("%s: trace of a run\n", in->path);
    if (em_book_wants(in->book, "attributes"))
        put_attributes(store, em_book_add(in->book, "attributes", "ll", "name,value", "who made it, and how"), status);
    if (datasets) {
        em_table *table =
            em_book_add(in->book, "datasets", "llllrl", "dataset,shape,axes,type,bytes,meaning", "what it holds");
        int count;
        char **name = em_store_list(store, &count);
        for (int i = 0; i < count; i++) {
            if (status->code == EM_OK) put_dataset(store, name[i], table, status);
            free(name[i]);
        }
        free(name);
    }
    em_status ignored = {0};
    em_store_close(store, &ignored);
}
