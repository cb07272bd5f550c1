/* inspect: what is in a weights file or a trace. */
#include "commands.h"

#include "../summary.h"
#include "../table.h"
#include "expertmesh/checksum.h"
#include "expertmesh/quantities.h"

#include <stdlib.h>
#include <string.h>

static const em_option options[] = {
    {"verify", NULL, "read all weights and compare them with the checksums that import stored", 0},
    {NULL, NULL, NULL, 0},
};

static void inspect_weights(const char *path, em_status *status)
{
    em_source source;
    if (!em_source_open(&source, path, status)) return;
    const em_config *config = &source.config;
    printf("%s: weights of a model\n", path);
    em_summary_model(&source, stdout);
    printf("\n");
    em_config copy = *config;
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_REAL) printf("%-27s %.15g\n", field->name, *em_config_real(&copy, field));
    }
    printf("\n");
    static const char *const head[] = {"tensor", "shape", "from", "storage", "scale groups", "layers", "bytes"};
    em_table *table = em_table_new(7, "lllrrrr");
    for (int i = 0; i < 7; i++) em_table_cell(table, "%s", head[i]);
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        int64_t layers = em_tensor_layers(config, t), bytes = 0, mixed = 0;
        em_tensor_shape shape = em_tensor_shape_of(config, t);
        for (int64_t layer = 0; layer < layers; layer++) {
            const em_form *form = em_source_form(&source, t, layer);
            mixed += form->storage != em_source_form(&source, t, 0)->storage;
            bytes += em_dataset_count(&form->data) * (int64_t)em_type_bytes(form->data.type);
            if (form->storage == EM_INT8) bytes += em_dataset_count(&form->scale) * (int64_t)sizeof(float);
        }
        if (layers == 0) continue;
        const em_form *form = em_source_form(&source, t, 0);
        em_dims_text dims;
        em_bytes_text size;
        em_table_cell(table, "%s", strrchr(form->data.name, '/') + 1);
        em_table_cell(table, "%s", em_dims(&form->data, dims));
        em_table_cell(table, "%s", shape.reason);
        em_table_cell(table, "%s", mixed ? "mixed" : em_storage_name(form->storage));
        if (form->storage == EM_INT8)
            em_table_cell(table, "%lld", (long long)form->groups);
        else
            em_table_cell(table, "-");
        em_table_cell(table, "%lld", (long long)layers);
        em_table_cell(table, "%s", em_bytes((double)bytes, size));
    }
    em_table_print(table, stdout);
    em_table_free(table);
    em_source_close(&source);
}

static bool print_attributes(em_store *store, em_status *status)
{
    static const char *const words[] = {"creator",      "creator_version", "git_revision", "command_line",
                                        "date_created", "hostname",        "mpi_library",  "weights",
                                        "slurm_job_id", "numerics",        "config_json",  "layout"};
    static const char *const numbers[] = {"num_ranks", "seed", "complete"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char *text;
        if (!em_store_has_attribute(store, "/", words[i])) continue;
        if (!em_store_get_text(store, "/", words[i], &text, status)) return false;
        printf("%-16s %s\n", words[i], text);
        free(text);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t number;
        if (!em_store_has_attribute(store, "/", numbers[i])) continue;
        if (!em_store_get_int(store, "/", numbers[i], &number, status)) return false;
        printf("%-16s %lld\n", numbers[i], (long long)number);
    }
    return true;
}

/* A counter of the trace, or -1. */
static int64_t read_counter(em_store *store, const char *name, em_status *status)
{
    em_dataset data;
    double value = -1;
    if (!em_store_has(store, name)) return -1;
    if (em_store_find(store, name, &data, status) && data.rank == 0)
        em_store_read_numbers(store, &data, NULL, NULL, &value, status);
    return (int64_t)value;
}

/* "layer, token, emb". */
static void print_axes(em_table *table, const em_dataset *data)
{
    int q = em_quantity_find(data->name + 1);
    char text[128] = "";
    size_t length = 0;
    for (int i = 0; q >= 0 && i < em_quantities[q].num_axes && length < sizeof text; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", i > 0 ? ", " : "",
                                   em_axes[em_quantities[q].axis[i]].name);
    em_table_cell(table, "%s", text);
}

static bool print_dataset(em_store *store, const char *name, em_table *table, em_status *status)
{
    em_dataset data;
    if (!em_store_find(store, name, &data, status)) return false;
    em_dims_text dims;
    em_bytes_text bytes;
    em_type_text type;
    char *meaning = NULL;
    if (em_store_has_attribute(store, name, "long_name") &&
        !em_store_get_text(store, name, "long_name", &meaning, status))
        return false;
    em_table_cell(table, "%s", name + 1);
    em_table_cell(table, "%s", em_dims(&data, dims));
    print_axes(table, &data);
    em_table_cell(table, "%s", em_store_type(store, &data, type));
    em_table_cell(table, "%s", em_bytes((double)em_dataset_count(&data) * (double)em_type_bytes(data.type), bytes));
    em_table_cell(table, "%s", meaning ? meaning : "");
    free(meaning);
    return true;
}

static void inspect_trace(em_store *store, const char *path, em_status *status)
{
    static const char *const head[] = {"dataset", "shape", "axes", "type", "bytes", "meaning"};
    int count;
    printf("%s: trace of a run\n", path);
    bool good = print_attributes(store, status);
    int64_t layers = read_counter(store, "/layers_done", status), tokens = read_counter(store, "/tokens_done", status);
    int64_t step = read_counter(store, "/step_tokens", status);
    if (layers >= 0) printf("%-16s %lld\n", "layers_done", (long long)layers);
    if (step > 0) printf("%-16s %lld\n", "step_tokens", (long long)step);
    if (tokens >= 0) printf("%-16s %lld\n", "tokens_done", (long long)tokens);
    printf("\n");
    char **name = em_store_list(store, &count);
    em_table *table = em_table_new(6, "llllrl");
    for (int i = 0; i < 6; i++) em_table_cell(table, "%s", head[i]);
    for (int i = 0; i < count; i++) {
        good = good && status->code == EM_OK && print_dataset(store, name[i], table, status);
        free(name[i]);
    }
    free(name);
    if (good) em_table_print(table, stdout);
    em_table_free(table);
}

static void inspect_file(const char *path, em_status *status)
{
    em_store *store = em_store_open(path, status);
    char *format = NULL;
    if (!store) return;
    if (!em_store_has_attribute(store, "/", "format"))
        em_fail(status, EM_BAD_DATA, "%s: HDF5, but neither weights nor a trace: the root has no attribute \"format\"",
                path);
    else if (em_store_get_text(store, "/", "format", &format, status)) {
        if (strcmp(format, "expertmesh-weights") == 0)
            inspect_weights(path, status);
        else if (strcmp(format, "expertmesh-trace") == 0)
            inspect_trace(store, path, status);
        else
            em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", neither weights nor a trace", path, format);
    }
    free(format);
    em_status ignored = {0};
    em_store_close(store, &ignored);
}

static void verify(const em_call *call, em_status *status)
{
    int64_t count;
    double start = MPI_Wtime(), bytes;
    em_bytes_text size;
    em_bar bar = {.what = "verified", .shown = call->rank == 0, .bytes = true, .start = start, .last = start};
    if (em_checksum_verify(call->comm, call->argument[0], em_bar_update, &bar, &count, &bytes, status) &&
        call->rank == 0)
        printf("%s: %lld datasets, %s, are as they were written\n", call->argument[0], (long long)count,
               em_bytes(bytes, size));
}

static void inspect(const em_call *call, em_status *status)
{
    if (em_option_value(call, "verify")) {
        verify(call, status);
        return;
    }
    if (call->rank == 0) inspect_file(call->argument[0], status);
    em_agree(call->comm, status);
}

const em_command em_command_inspect = {
    .name = "inspect",
    .usage = "FILE.h5 [--verify]",
    .meaning = "Tell what is in a weights file or a trace, in words and one table.",
    .more = "",
    .options = options,
    .num_arguments = 1,
    .run = inspect,
};
