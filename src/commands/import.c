/* import: a checkpoint as others wrote it becomes a weights file. */
#include "commands.h"

#include "../outfile.h"
#include "../summary.h"
#include "expertmesh/import.h"

#include <libgen.h>
#include <stdlib.h>
#include <sys/stat.h>

static const em_option options[] = {
    {"output", "W.h5", "the weights file to write", 'o'},
    {"layers", "LIST", "only these layers, as 0,4-7; they are numbered anew", 0},
    {"experts", "LIST", "only these experts of each layer", 0},
    {"storage", "f32|bf16|int8", "store matrices so (as they are; f16 as f32)", 0},
    {"config", "FILE", "JSON of model fields, which count before what the checkpoint tells", 0},
    {"follow-links", NULL, "read files that links lead to outside the checkpoint's folder", 0},
    {"force", NULL, "replace the output if it is there", 0},
    {NULL, NULL, NULL, 0},
};

/* A list of numbers below limit; NULL where the option is not given. */
static int64_t *list_option(const em_call *call, const char *name, int64_t limit, int64_t *count, em_status *status)
{
    const char *text = em_option_value(call, name);
    char option[32];
    snprintf(option, sizeof option, "--%s", name);
    return text ? em_parse_list(text, limit, option, count, status) : NULL;
}

static bool choose(const em_call *call, em_import *import, em_status *status)
{
    const em_config *config = em_import_config(import);
    em_storage storage;
    int64_t num_layers = 0, num_experts = 0;
    int64_t *layers = list_option(call, "layers", config->num_layers, &num_layers, status);
    int64_t *experts = list_option(call, "experts", config->num_experts, &num_experts, status);
    if (status->code == EM_OK && em_options_storage(call, &storage, status))
        em_import_choose(import, layers, num_layers, experts, num_experts,
                         em_option_value(call, "storage") ? &storage : NULL, status);
    free(layers);
    free(experts);
    return em_agree(call->comm, status);
}

static void import_into(const em_call *call, em_import *import, const char *path, em_status *status)
{
    em_imported done;
    em_bytes_text all, rate;
    if (!choose(call, import, status)) return;
    if (call->rank == 0) {
        printf("%s: %s\n", call->argument[0], em_import_kind(import));
        em_summary_model(em_import_target(import), stdout);
        fflush(stdout);
    }
    double start = MPI_Wtime();
    em_bar bar = {.what = "imported", .shown = call->rank == 0, .bytes = true, .start = start, .last = start};
    if (!em_import_write(import, path, em_bar_update, &bar, &done, status) || call->rank != 0) return;
    double seconds = MPI_Wtime() - start;
    if (done.there_before > 0)
        printf("%lld of %lld blocks were there already\n", (long long)done.there_before, (long long)done.blocks);
    printf("%s: %s in %.2f s, %s/s\n", path, em_bytes(done.bytes, all), seconds, em_bytes(done.bytes / seconds, rate));
}

/* A folder is read whole: no file of it must be written over. */
static bool spare_folder(const char *source, const char *path, em_status *status)
{
    struct stat read, written, there;
    char *copy = em_text("%s", path);
    bool within = stat(source, &read) == 0 && stat(dirname(copy), &written) == 0 && read.st_dev == written.st_dev &&
                  read.st_ino == written.st_ino && stat(path, &there) == 0;
    free(copy);
    return !within || em_fail(status, EM_CANNOT_WRITE,
                              "-o %s would replace a file of %s, which is read; name another file", path, source);
}

static void run_import(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    em_storage storage;
    if (!path) em_fail(status, EM_USAGE, "import: say where to write: -o W.h5");
    if (status->code == EM_OK) em_options_storage(call, &storage, status);
    if (call->rank == 0 && status->code == EM_OK && em_outfile_check(call, path, status) &&
        spare_folder(call->argument[0], path, status))
        em_outfile_spare(path, em_option_value(call, "config"), status);
    if (!em_agree(call->comm, status)) return;
    em_import *import = em_import_open(call->comm, call->argument[0], em_option_value(call, "config"),
                                       em_option_value(call, "follow-links") != NULL, status);
    if (import) import_into(call, import, path, status);
    em_import_free(import);
}

const em_command em_command_import = {
    .name = "import",
    .usage = "SOURCE -o W.h5 [--layers LIST] [--experts LIST] [--storage f32|bf16|int8]",
    .meaning = "Make a weights file of a published checkpoint: the official one, safetensors, or GGUF.",
    .more = "SOURCE is the official checkpoint's folder (or one with ckpt-0 in it), a Hugging Face folder "
            "(safetensors, in one\n"
            "file or by an index, and config.json), a safetensors file, or a GGUF file of architecture grok (the "
            "first, where\n"
            "it is split). Nothing in it is executed. What it does not tell is as in Grok-1.\n"
            "Each rank converts its part, in blocks. When it was interrupted, the same command goes on where it was; "
            "the file\n"
            "appears under its name only when it is whole, with a checksum of each tensor (inspect --verify).",
    .options = options,
    .num_arguments = 1,
    .run = run_import,
};
