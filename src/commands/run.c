/* run: one batch of prompts through a model, with a trace of what happened. */
#include "commands.h"

#include "../summary.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const em_option options[] = {
    {"weights", "W.h5", "weights from a file", 0},
    {"prompt", "TEXT", "run this text; a byte is a token", 0},
    {"prompt-file", "FILE", "run the text in a file, one prompt a line", 0},
    {"tokens", "1,2,3", "run these tokens", 0},
    {"tokens-file", "FILE", "run the tokens in a file, one prompt a line", 0},
    {"trace", "T.h5", "record what happened in this file", 0},
    {"trace-only", "NAME,...", "record only these quantities", 0},
    {"trace-layers", "0,4-7", "record only these layers", 0},
    {"trace-tokens", "0-127", "record only these tokens, counted through the batch", 0},
    {"force", NULL, "replace the trace if it is there", 0},
    {NULL, NULL, NULL, 0},
};

/* ---- what is asked for ---- */

/* Rank 0's batch for all. */
static void share_batch(const em_call *call, em_batch *batch)
{
    MPI_Bcast(&batch->num_tokens, 1, MPI_INT64_T, 0, call->comm);
    MPI_Bcast(&batch->num_sequences, 1, MPI_INT64_T, 0, call->comm);
    int64_t T = batch->num_tokens, N = batch->num_sequences;
    if (call->rank != 0) {
        batch->room = T;
        batch->token_id = em_alloc(T, sizeof(int32_t));
        batch->sequence = em_alloc(T, sizeof(int32_t));
        batch->position = em_alloc(T, sizeof(int32_t));
        batch->first_token = em_alloc(N + 1, sizeof(int64_t));
    }
    MPI_Bcast(batch->token_id, (int)T, MPI_INT32_T, 0, call->comm);
    MPI_Bcast(batch->sequence, (int)T, MPI_INT32_T, 0, call->comm);
    MPI_Bcast(batch->position, (int)T, MPI_INT32_T, 0, call->comm);
    MPI_Bcast(batch->first_token, (int)N + 1, MPI_INT64_T, 0, call->comm);
}

/* Collective: rank 0 reads what there is to read. */
static bool read_batch(const em_call *call, em_batch *batch, em_status *status)
{
    static const char *const ways[] = {"prompt", "prompt-file", "tokens", "tokens-file"};
    const char *given = NULL, *value = NULL;
    for (int i = 0; i < 4; i++) {
        const char *this = em_option_value(call, ways[i]);
        if (this && given) return em_fail(status, EM_USAGE, "run: --%s and --%s are both given", given, ways[i]);
        if (this) {
            given = ways[i];
            value = this;
        }
    }
    if (!given)
        return em_fail(status, EM_USAGE, "run: nothing to run: add --prompt, --prompt-file, --tokens or --tokens-file");
    if (call->rank == 0) {
        if (strcmp(given, "prompt") == 0)
            em_batch_add_text(batch, value, strlen(value), "--prompt", EM_USAGE, status);
        else if (strcmp(given, "tokens") == 0)
            em_batch_add_tokens(batch, value, "--tokens", EM_USAGE, status);
        else
            em_batch_add_file(batch, value, strcmp(given, "prompt-file") == 0, status);
    }
    if (!em_agree(call->comm, status)) return false;
    share_batch(call, batch);
    return true;
}

static bool tokens_are_text(const em_call *call)
{
    return em_option_value(call, "prompt") || em_option_value(call, "prompt-file");
}

/* The prompts' file, or the option that holds them; and whose fault it is when they do not fit the model. */
static const char *batch_source(const em_call *call, int *code)
{
    const char *text = em_option_value(call, "prompt-file"), *tokens = em_option_value(call, "tokens-file");
    *code = text || tokens ? EM_BAD_DATA : EM_USAGE;
    if (*code == EM_BAD_DATA) return text ? text : tokens;
    return em_option_value(call, "prompt") ? "--prompt" : "--tokens";
}

/* Collective. */
static bool open_source(const em_call *call, em_source *source, em_status *status)
{
    char other[40];
    const char *path = em_option_value(call, "weights");
    bool described = em_options_first_of_model(call, other);
    if (path && described)
        return em_fail(status, EM_USAGE, "run: --weights brings its own model; leave out --%s", other);
    if (path) {
        em_source_open(source, path, status);
        return em_agree(call->comm, status);
    }
    em_config config;
    uint64_t seed;
    em_storage storage;
    if (!described) return em_fail(status, EM_USAGE, "run: which model? add --weights W.h5 or --preset NAME");
    if (!em_options_config(call, &config, status) || !em_options_seed(call, &seed, status) ||
        !em_options_storage(call, &storage, status))
        return false;
    em_source_generate(source, &config, seed, storage);
    return true;
}

static bool parse_quantities(const char *text, uint32_t *wanted, em_status *status)
{
    const char *names[EM_NUM_QUANTITIES];
    int count = 0;
    for (em_quantity q = 0; q < EM_NUM_QUANTITIES; q++)
        if (em_quantity_optional(q)) names[count++] = em_quantities[q].name;
    *wanted = 0;
    for (const char *next = text; *next; next += *next == ',') {
        char word[64];
        size_t length = strcspn(next, ",");
        snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), next);
        next += length;
        int q = em_quantity_find(word);
        if (q >= 0) {
            *wanted |= UINT32_C(1) << q;
            continue;
        }
        const char *nearest = em_nearest(word, names, count);
        return em_fail(status, EM_USAGE, "--trace-only: there is no quantity \"%s\"; %s%s", word,
                       nearest ? "the nearest is " : "expertmesh run --help lists them", nearest ? nearest : "");
    }
    if (*text == '\0') return em_fail(status, EM_USAGE, "--trace-only: names no quantity");
    return true;
}

static char *describe_weights(const em_call *call, const em_source *source)
{
    const char *path = em_option_value(call, "weights");
    if (path) return em_text("%s", path);
    em_storage storage = em_source_form(source, EM_FFN_UP, 0)->storage;
    return em_text("random, %s", em_storage_name(storage));
}

/* Both there, and one file? */
static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A trace may replace no file that this run reads, not even by its name while it is being created. */
static void keep_inputs(const em_call *call, const char *path, em_status *status)
{
    static const char *const inputs[] = {"weights", "prompt-file", "tokens-file", "config"};
    char *partial = em_text("%s.partial", path);
    for (int i = 0; i < 4; i++) {
        const char *input = em_option_value(call, inputs[i]);
        if (same_file(path, input) || same_file(partial, input))
            em_fail(status, EM_CANNOT_WRITE, "--trace %s would replace %s, the file of --%s; it must go elsewhere",
                    path, input, inputs[i]);
    }
    free(partial);
}

/* What to record; layers and tokens are freed by the caller. Collective: rank 0 looks at the disk. */
static bool read_request(const em_call *call, const em_source *source, const em_batch *batch, em_trace_request *request,
                         em_status *status)
{
    static const char *const parts[] = {"trace-only", "trace-layers", "trace-tokens", "force"};
    const char *only = em_option_value(call, "trace-only"), *layers = em_option_value(call, "trace-layers");
    const char *tokens = em_option_value(call, "trace-tokens");
    *request = (em_trace_request){.path = em_option_value(call, "trace"),
                                  .force = em_option_value(call, "force") != NULL,
                                  .wanted = UINT32_MAX,
                                  .command_line = call->command_line,
                                  .seed = source->seed};
    for (int i = 0; i < 4 && !request->path; i++)
        if (em_option_value(call, parts[i]))
            return em_fail(status, EM_USAGE, "run: --%s says what to record, but --trace T.h5 is missing", parts[i]);
    if (!request->path) return true;
    if (only && !parse_quantities(only, &request->wanted, status)) return false;
    if (layers && !(request->layers = em_parse_list(layers, source->config.num_layers, "--trace-layers",
                                                    &request->num_layers, status)))
        return false;
    if (tokens &&
        !(request->tokens = em_parse_list(tokens, batch->num_tokens, "--trace-tokens", &request->num_tokens, status)))
        return false;
    if (call->rank == 0 && em_output_free(request->path, request->force, status))
        keep_inputs(call, request->path, status);
    return em_agree(call->comm, status);
}

/* ---- the run ---- */

static void print_next_steps(const em_call *call, const em_trace_request *request)
{
    if (!request->path) return;
    printf("\ntrace: %s\nlook at it:\n"
           "  %s inspect %s\n"
           "  h5ls %s\n"
           "  python3 -c \"import h5py; f = h5py.File('%s'); print(f['expert_load'][:])\"\n",
           request->path, call->program, request->path, request->path, request->path);
}

static void run_model(const em_call *call, em_model *model, const em_source *source, const em_batch *batch,
                      const em_trace_request *request, em_status *status)
{
    em_trace *trace = NULL;
    if (request->path && !(trace = em_trace_create(model->comm, request, &source->config, batch, status))) return;
    em_profile profile;
    em_outcome outcome = {0};
    em_profile_open(&profile, source->config.num_layers, source->config.num_experts);
    double start = MPI_Wtime();
    em_bar bar = {.what = "layers", .shown = call->rank == 0, .start = start, .last = start};
    if (em_model_run(model, batch, trace, &profile, &outcome, em_bar_update, &bar, status)) {
        em_summary_run(model, &profile, batch->num_tokens, MPI_Wtime() - start, stdout);
        if (call->rank == 0) {
            em_summary_outcome(&outcome, tokens_are_text(call), stdout);
            print_next_steps(call, request);
        }
    }
    em_outcome_free(&outcome);
    em_profile_close(&profile);
    em_trace_free(trace);
}

static void run_source(const em_call *call, const em_source *source, const em_batch *batch, em_status *status)
{
    em_trace_request request = {0};
    em_model model;
    int wrong;
    const char *prompts = batch_source(call, &wrong);
    if (em_batch_check(batch, &source->config, prompts, wrong, status) &&
        read_request(call, source, batch, &request, status)) {
        em_layout layout = em_layout_make(&source->config, call->num_ranks);
        char *weights = describe_weights(call, source);
        request.weights = weights;
        if (call->rank == 0) {
            em_summary_model(source, stdout);
            em_summary_weights(source, &layout, stdout);
            fflush(stdout);
        }
        double start = MPI_Wtime();
        em_bar bar = {.what = source->store ? "weights read" : "weights made",
                      .shown = call->rank == 0,
                      .start = start,
                      .last = start};
        if (em_model_open(&model, call->comm, source, batch->num_tokens, em_bar_update, &bar, status)) {
            run_model(call, &model, source, batch, &request, status);
            em_model_close(&model);
        }
        free(weights);
    }
    free((void *)request.layers);
    free((void *)request.tokens);
}

static void run(const em_call *call, em_status *status)
{
    em_batch batch = {0};
    em_source source = {0};
    if (read_batch(call, &batch, status) && open_source(call, &source, status)) {
        run_source(call, &source, &batch, status);
        em_source_close(&source);
    }
    em_batch_free(&batch);
}

const em_command em_command_run = {
    .name = "run",
    .usage = "(--weights W.h5 | --preset NAME [--seed N] [--storage TYPE]) (--prompt TEXT | ...) [--trace T.h5]",
    .meaning = "Run one batch of prompts, spread over the ranks that mpirun started, and record a trace.",
    .more = "Without --weights each rank makes its own part of a random model. The results are the same bits on any\n"
            "number of ranks. Quantities for --trace-only: resid_pre resid_mid resid_post attn_q attn_k attn_v attn_z\n"
            "attn_out ffn_in router_logits router_probs expert_indices expert_weights ffn_hidden ffn_out final_hidden\n"
            "logits.",
    .options = options,
    .takes_model = true,
    .run = run,
};
