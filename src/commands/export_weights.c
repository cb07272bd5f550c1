/* export-weights: a weights file becomes a checkpoint that other programs read. */
#include "commands.h"

#include "../outfile.h"
#include "../summary.h"
#include "expertmesh/export.h"

#include <string.h>
#include <sys/stat.h>

static const em_option options[] = {
    {"to", "FORM", "safetensors (a folder, with config.json) or gguf (a file)", 0},
    {"output", "PATH", "the folder or file to write", 'o'},
    {"storage", "TYPE", "store matrices as f32, bf16, or int8 (only gguf: Q8_0); else as they are", 0},
    {"force", NULL, "replace the file if it is there (a folder is never replaced)", 0},
    {NULL, NULL, NULL, 0},
};

static bool parse_form(const em_call *call, em_export_form *form, em_status *status)
{
    const char *text = em_option_value(call, "to");
    if (!text) return em_fail(status, EM_USAGE, "export-weights: say to what: --to safetensors or --to gguf");
    *form = strcmp(text, "gguf") == 0 ? EM_EXPORT_GGUF : EM_EXPORT_SAFETENSORS;
    return *form == EM_EXPORT_GGUF || strcmp(text, "safetensors") == 0 ||
           em_fail(status, EM_USAGE, "--to: \"%s\" is neither safetensors nor gguf", text);
}

static bool check_output(const em_call *call, em_export_form form, const char *path, em_status *status)
{
    struct stat info;
    if (form == EM_EXPORT_SAFETENSORS && path[0] && lstat(path, &info) == 0)
        return em_fail(status, EM_CANNOT_WRITE, "%s: is there already; a folder is never replaced", path);
    return em_outfile_check(call, path, status);
}

static void export_weights(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    em_export_form form = EM_EXPORT_GGUF;
    em_storage storage;
    double start = MPI_Wtime(), bytes = 0;
    if (!path) em_fail(status, EM_USAGE, "export-weights: say where to write: -o PATH");
    if (status->code == EM_OK && parse_form(call, &form, status) && em_options_storage(call, &storage, status) &&
        call->rank == 0)
        check_output(call, form, path, status);
    if (!em_agree(call->comm, status)) return;
    em_bar bar = {.what = "exported", .shown = call->rank == 0, .bytes = true, .start = start, .last = start};
    if (!em_weights_export(call->comm, call->argument[0], form, em_option_value(call, "storage") ? &storage : NULL,
                           path, em_bar_update, &bar, &bytes, status) ||
        call->rank != 0)
        return;
    double seconds = MPI_Wtime() - start;
    em_bytes_text all, rate;
    printf("%s: %s in %.2f s, %s/s\n", path, em_bytes(bytes, all), seconds, em_bytes(bytes / seconds, rate));
}

const em_command em_command_export_weights = {
    .name = "export-weights",
    .usage = "W.h5 --to safetensors|gguf -o PATH [--storage f32|bf16|int8]",
    .meaning = "Make a checkpoint that other programs read: a Hugging Face folder, or a GGUF file.",
    .more = "safetensors: a folder of model.safetensors and config.json, by the names of Hugging Face's port of "
            "Grok-1; int8 becomes\n"
            "f32, or what --storage says. gguf: architecture grok; int8 becomes Q8_0 where that holds the same numbers "
            "(scales\n"
            "that are halves, groups of 32s of inputs), else f32; --storage int8 makes Q8_0 in any case, with rounded "
            "scales.\n"
            "There is no tokenizer in either. The output appears under its name only when it is whole.",
    .options = options,
    .num_arguments = 1,
    .run = export_weights,
};
