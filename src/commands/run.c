/* run: one batch of prompts through a model, with a trace of what happened. */
#include "commands.h"

#include "../summary.h"
#include "expertmesh/alike.h"
#include "expertmesh/signals.h"
#include "layout_only.h"
#include "run_again.h"
#include "run_text.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static const em_option options[] = {
    {"weights", "W.h5", "weights from a file", 0},
    {"compute", "f32|bf16|int8", "f32: exact; else faster, activations rounded to the weights' type (f32)", 0},
    {"numerics", "jax|llama.cpp|vllm|sglang", "whose arithmetic: of jax, as released, or another's (jax)", 0},
    {"router-renormalise", NULL, "weights of the chosen experts are divided by their sum", 0},
    {"router-softcap", "X", "router logits x become X tanh(x / X); 0: not", 0},
    {"gelu", "tanh|erf", "which form of GELU (tanh)", 0},
    {"threads", "N", "threads of each rank (the cores that fall to it)", 0},
    {"layout", "contiguous|sliced|spread|FILE", "who owns what (sliced), or a map in a JSON file", 0},
    {"attention-ranks", "0,4-7", "only these ranks own attention heads", 0},
    {"expert-ranks", "0,4-7", "only these ranks own experts", 0},
    {"write-layout", "MAP.json", "write the map of who owns what to this file", 0},
    {"layout-only", NULL, "do not run: tell who owns what, and the rows that each exchange would carry", 0},
    {"ranks", "P", "with --layout-only: for so many ranks (those that are here)", 0},
    {"ranks-per-host", "N", "with --layout-only: of which N are on a host (all)", 0},
    {"routing", "T.h5", "with --layout-only: take the experts' choices from this trace of the same tokens", 0},
    {"exchange", "flat|node", "between hosts a row goes to each rank, or once to each host (node)", 0},
    {"tokenizer", "FILE", "prompts are text by this SentencePiece model, and so are tokens that are printed", 0},
    {"bos", NULL, "begin each prompt with the token of the beginning of a sequence", 0},
    {"special-tokens", NULL, "names of control pieces in prompts, as <s>, are these pieces", 0},
    {"prompt", "TEXT", "run this text; without --tokenizer a byte is a token", 0},
    {"prompt-file", "FILE", "run the text in a file, one prompt a line", 0},
    {"tokens", "1,2,3", "run these tokens", 0},
    {"tokens-file", "FILE", "run the tokens in a file, one prompt a line", 0},
    {"generate", "N", "then add N tokens to each prompt (0)", 0},
    {"temperature", "X", "draw tokens with the scores divided by X; 0: always the best (0)", 0},
    {"top-k", "K", "draw among the K best only; 0: among all (0)", 0},
    {"top-p", "P", "draw among the fewest best whose probabilities reach P (1)", 0},
    {"sample-seed", "N", "seed of the draws (0)", 0},
    {"stop-token", "N", "a token that ends its prompt's text; with --tokenizer also the name of a piece", 0},
    {"prefill-chunk", "N", "run prompts in steps of at most N tokens, which bounds memory", 0},
    {"trace", "T.h5", "record what happened in this file", 0},
    {"trace-only", "NAME,...", "record only these quantities", 0},
    {"trace-layers", "0,4-7", "record only these layers", 0},
    {"trace-tokens", "0-127", "record only these tokens, counted through the batch", 0},
    {"checkpoint", "F", "write to this file where the run stands: on USR1, USR2, TERM, and as the next two say", 0},
    {"checkpoint-every", "N", "after every N tokens, or, as 30min, every 30 minutes", 0},
    {"max-hours", "H", "write a checkpoint and stop before H hours have passed", 0},
    {"resume", "F", "go on with the run of this checkpoint", 0},
    {"force", NULL, "replace the trace, the checkpoint and the map, if they are there", 0},
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
static bool read_batch(const em_call *call, const em_run_text *text, em_batch *batch, em_status *status)
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
    if (strncmp(given, "tokens", 6) == 0 && (text->spelling.bos || text->spelling.special))
        return em_fail(status, EM_USAGE, "run: --%s is for text, but --%s gives numbers",
                       text->spelling.bos ? "bos" : "special-tokens", given);
    if (call->rank == 0) {
        em_spelling spelling = text->spelling;
        if (text->given && strcmp(given, "prompt") == 0)
            em_tokenizer_add(&spelling, batch, value, strlen(value), "--prompt", EM_USAGE, status);
        else if (text->given && strcmp(given, "prompt-file") == 0)
            em_batch_add_lines(batch, value, em_tokenizer_add_line, &spelling, status);
        else if (strcmp(given, "prompt") == 0)
            em_batch_add_text(batch, value, strlen(value), "--prompt", EM_USAGE, status);
        else if (strcmp(given, "tokens") == 0)
            em_batch_add_tokens(batch, value, "--tokens", EM_USAGE, status);
        else
            em_batch_add_file(batch, value, strcmp(given, "prompt-file") == 0, status);
    }
    if (batch->num_tokens > INT32_MAX / 64)
        em_fail(status, EM_BAD_DATA, "--%s: %lld tokens in one batch are too many", given,
                (long long)batch->num_tokens);
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
        bool mine = em_source_open(source, path, status);
        bool good = em_agree_where(call->comm, status) && em_alike_weights(call->comm, source, status);
        if (mine && !good) em_source_close(source);
        return good;
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

/* The quantities of a word of --trace-only, a bit each; 0 where there is none of this name. */
static uint64_t quantities_of(const char *word)
{
    uint64_t events = 0;
    for (em_quantity q = 0; q < EM_NUM_QUANTITIES; q++)
        if (em_quantity_of_events(q)) events |= UINT64_C(1) << q;
    if (strcmp(word, "events") == 0) return events;
    int q = em_quantity_find(word);
    return q < 0 ? 0 : em_quantity_of_events((em_quantity)q) ? events : UINT64_C(1) << q;
}

static bool parse_quantities(const char *text, uint64_t *wanted, em_status *status)
{
    const char *names[EM_NUM_QUANTITIES] = {"events"};
    int count = 1;
    for (em_quantity q = 0; q < EM_NUM_QUANTITIES; q++)
        if (em_quantity_optional(q) && !em_quantity_of_events(q)) names[count++] = em_quantities[q].name;
    *wanted = 0;
    for (const char *next = text; *next; next += *next == ',') {
        char word[64];
        size_t length = strcspn(next, ",");
        snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), next);
        next += length;
        uint64_t found = quantities_of(word);
        *wanted |= found;
        if (found) continue;
        const char *nearest = em_nearest(word, names, count);
        return em_fail(status, EM_USAGE, "--trace-only: there is no quantity \"%s\"; %s%s", word,
                       nearest ? "the nearest is " : "expertmesh run --help lists them", nearest ? nearest : "");
    }
    if (*text == '\0') return em_fail(status, EM_USAGE, "--trace-only: names no quantity");
    return true;
}

/* Longest prompt and what is to be added must fit into sequence_len. */
static bool check_length(const em_batch *batch, const em_config *config, int64_t count, em_status *status)
{
    for (int64_t s = 0; s < batch->num_sequences; s++) {
        int64_t length = batch->first_token[s + 1] - batch->first_token[s];
        if (count > config->sequence_len - length)
            return em_fail(status, EM_USAGE,
                           "--generate: %lld tokens after the %lld of prompt %lld pass sequence_len, %lld",
                           (long long)count, (long long)length, (long long)s, (long long)config->sequence_len);
    }
    return true;
}

static bool read_generation(const em_call *call, const em_batch *batch, const em_config *config,
                            em_generation *generation, em_status *status)
{
    static const char *const of_generation[] = {"temperature", "top-k", "top-p", "sample-seed", "stop-token"};
    em_generation *g = generation;
    int64_t seed;
    if (!em_option_whole(call, "generate", 0, INT64_MAX, 0, &g->count, status) ||
        !em_option_whole(call, "prefill-chunk", 1, INT64_MAX, 0, &g->prefill_chunk, status) ||
        !em_option_whole(call, "stop-token", 0, INT64_MAX, -1, &g->stop_token, status) ||
        !em_option_whole(call, "top-k", 0, INT64_MAX, 0, &g->sampling.top_k, status) ||
        !em_option_whole(call, "sample-seed", 0, INT64_MAX, 0, &seed, status) ||
        !em_option_real(call, "temperature", 0, &g->sampling.temperature, status) ||
        !em_option_real(call, "top-p", 1, &g->sampling.top_p, status))
        return false;
    g->sampling.seed = (uint64_t)seed;
    if (g->sampling.temperature < 0)
        return em_fail(status, EM_USAGE, "--temperature: %g is below 0", g->sampling.temperature);
    if (g->sampling.top_p <= 0 || g->sampling.top_p > 1)
        return em_fail(status, EM_USAGE, "--top-p: %g is not above 0 and at most 1", g->sampling.top_p);
    if (g->stop_token >= config->vocab_size)
        return em_fail(status, EM_USAGE, "--stop-token: %lld is outside the vocabulary, 0 to %lld",
                       (long long)g->stop_token, (long long)config->vocab_size - 1);
    for (int i = 0; i < 5 && g->count == 0; i++)
        if (em_option_value(call, of_generation[i]))
            return em_fail(status, EM_USAGE, "run: --%s says how to generate, but --generate %s", of_generation[i],
                           em_option_value(call, "generate") ? "is 0" : "N is missing");
    return check_length(batch, config, g->count, status);
}

/* A published program's arithmetic, and single differences on top of it. */
static bool read_numerics(const em_call *call, em_numerics *numerics, em_status *status)
{
    const char *name = em_option_value(call, "numerics"), *gelu = em_option_value(call, "gelu");
    const em_numerics_profile *profile = em_numerics_find(name ? name : "jax");
    if (!profile) return em_fail(status, EM_USAGE, "--numerics: \"%s\" is not jax, llama.cpp, vllm or sglang", name);
    *numerics = profile->numerics;
    if (em_option_value(call, "router-renormalise")) numerics->router_renormalise = true;
    if (!em_option_real(call, "router-softcap", numerics->router_softcap, &numerics->router_softcap, status))
        return false;
    float cap = (float)numerics->router_softcap;
    if (numerics->router_softcap != 0 && !(cap > 0 && cap <= FLT_MAX))
        return em_fail(status, EM_USAGE, "--router-softcap: %g is not 0 (none) or a cap above it, a float32",
                       numerics->router_softcap);
    if (gelu) numerics->gelu_erf = strcmp(gelu, "erf") == 0;
    if (gelu && !numerics->gelu_erf && strcmp(gelu, "tanh") != 0)
        return em_fail(status, EM_USAGE, "--gelu: \"%s\" is not tanh or erf", gelu);
    return true;
}

static bool read_manner(const em_call *call, em_manner *manner, em_status *status)
{
    const char *compute = em_option_value(call, "compute"), *exchange = em_option_value(call, "exchange");
    int64_t threads;
    *manner = (em_manner){.compute = EM_COMPUTE_F32};
    if (compute && !em_compute_parse(compute, &manner->compute))
        return em_fail(status, EM_USAGE, "--compute: \"%s\" is not f32, bf16 or int8", compute);
    manner->flat = exchange && strcmp(exchange, "flat") == 0;
    if (exchange && !manner->flat && strcmp(exchange, "node") != 0)
        return em_fail(status, EM_USAGE, "--exchange: \"%s\" is not flat or node", exchange);
    if (!em_option_whole(call, "threads", 1, EM_MOST_THREADS, 0, &threads, status)) return false;
    manner->threads = (int)threads;
    return read_numerics(call, &manner->numerics, status);
}

static char *describe_weights(const em_call *call, const em_source *source)
{
    const char *path = em_option_value(call, "weights");
    if (path) return em_text("%s", path);
    em_storage storage = em_source_form(source, EM_FFN_UP, 0)->storage;
    return em_text("random, %s", em_storage_name(storage));
}

/* A full disk is told before the work, where the file system says what is free. */
static void check_disk(const char *path, int64_t bytes, em_status *status)
{
    struct statvfs disk;
    em_bytes_text need, there;
    char *copy = em_text("%s", path);
    if (statvfs(dirname(copy), &disk) == 0 && (double)disk.f_bavail * (double)disk.f_frsize < (double)bytes)
        em_fail(status, EM_CANNOT_WRITE,
                "%s: a trace of %s, but its disk has %s free; --trace-only, --trace-layers and "
                "--trace-tokens record less",
                path, em_bytes((double)bytes, need), em_bytes((double)disk.f_bavail * (double)disk.f_frsize, there));
    free(copy);
}

/* The largest file that this process may write (ulimit -f), which may differ between hosts. */
static void check_file_limit(const char *path, int64_t bytes, int rank, em_status *status)
{
    struct rlimit limit;
    em_host_text host;
    em_bytes_text need, there;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < (rlim_t)bytes)
        em_fail(status, EM_CANNOT_WRITE,
                "%s: a trace of %s, but rank %d on %s may write files of at most %s (ulimit -f); raise that, or record "
                "less",
                path, em_bytes((double)bytes, need), rank, em_host(host), em_bytes((double)limit.rlim_cur, there));
}

/* What to record; layers and tokens are freed by the caller. Collective: rank 0 looks at the disk, unless the file is to be
 * there already. */
static bool read_request(const em_call *call, const em_source *source, int64_t rows, int64_t steps, bool resumes,
                         em_trace_request *request, em_status *status)
{
    static const char *const parts[] = {"trace-only", "trace-layers", "trace-tokens"};
    const char *only = em_option_value(call, "trace-only"), *layers = em_option_value(call, "trace-layers");
    const char *tokens = em_option_value(call, "trace-tokens");
    *request = (em_trace_request){.path = em_option_value(call, "trace"),
                                  .force = em_option_value(call, "force") != NULL,
                                  .wanted = UINT64_MAX,
                                  .rows = rows,
                                  .steps = steps,
                                  .command_line = call->command_line,
                                  .seed = source->seed};
    for (int i = 0; i < 3 && !request->path; i++)
        if (em_option_value(call, parts[i]))
            return em_fail(status, EM_USAGE, "run: --%s says what to record, but --trace T.h5 is missing", parts[i]);
    if (request->force && !request->path && !em_option_value(call, "checkpoint") &&
        !em_option_value(call, "write-layout"))
        return em_fail(status, EM_USAGE,
                       "run: --force replaces what --trace, --checkpoint or --write-layout names, but "
                       "none of them is given");
    if (!request->path) return true;
    if (only && !parse_quantities(only, &request->wanted, status)) return false;
    if (layers && !(request->layers = em_parse_list(layers, source->config.num_layers, "--trace-layers",
                                                    &request->num_layers, status)))
        return false;
    if (tokens && !(request->tokens = em_parse_list(tokens, rows, "--trace-tokens", &request->num_tokens, status)))
        return false;
    int64_t bytes = em_trace_bytes(request, &source->config, call->num_ranks);
    if (call->rank == 0 && !resumes && em_output_check(request->path, request->force, status)) {
        em_again_keep_apart(call, "trace", request->path, status);
        check_disk(request->path, bytes, status);
    }
    if (status->code == EM_OK) check_file_limit(request->path, bytes, call->rank, status);
    return em_agree(call->comm, status);
}

/* ---- the run ---- */

static void print_next_steps(const em_call *call, const em_trace_request *request)
{
    if (!request->path) return;
    printf("\ntrace: %s\nlook at it:\n"
           "  %s inspect %s\n"
           "  %s report %s -o report.html\n"
           "  h5ls %s\n"
           "  python3 -c \"import h5py; f = h5py.File('%s'); print(f['expert_load'][:])\"\n",
           request->path, call->program, request->path, call->program, request->path, request->path, request->path);
}

/* Tokens as they come: the text of a single prompt as it is, several by lines. */
typedef struct stream {
    bool shown, text, single;
    const em_tokenizer *tokenizer; /* NULL: none */
    em_speech speech;              /* of a single prompt */
} stream;

static void print_token(void *context, int64_t sequence, int64_t position, int32_t token)
{
    stream *s = context;
    if (!s->shown) return;
    if (s->single && s->tokenizer)
        em_speech_next(&s->speech, token, stdout);
    else if (s->tokenizer)
        printf("prompt %lld, position %lld: %d '%s'\n", (long long)sequence, (long long)position, token,
               em_tokenizer_piece(s->tokenizer, token));
    else if (s->single && s->text && token < 256)
        putchar(token);
    else if (s->single)
        printf("%d ", token);
    else if (s->text && token < 128 && isprint(token))
        printf("prompt %lld, position %lld: %d '%c'\n", (long long)sequence, (long long)position, token, token);
    else
        printf("prompt %lld, position %lld: %d\n", (long long)sequence, (long long)position, token);
    fflush(stdout);
}

/* What is asked for, all read and checked. */
typedef struct job {
    em_again again;
    em_batch batch;
    em_run_text text;
    em_source source;
    em_generation generation;
    em_manner manner;
    em_places places;
    em_layout layout;
    em_trace_request request;
    em_keeping keeping;
} job;

static em_trace *open_trace(const job *j, const em_model *model, em_status *status)
{
    if (!j->again.from) return em_trace_create(model->comm, &j->request, &j->source.config, &j->batch, status);
    em_trace_place place = {j->again.from->trace_id, j->again.from->rows};
    return em_trace_resume(model->comm, &j->request, &j->source.config, place, status);
}

/* The text of a single prompt goes on after it. */
static stream open_stream(const job *j)
{
    const em_call *call = &j->again.call;
    const em_tokenizer *tokenizer = j->text.spelling.tokenizer;
    stream out = {.shown = call->rank == 0,
                  .text = tokens_are_text(call),
                  .single = j->batch.num_sequences == 1,
                  .tokenizer = tokenizer,
                  .speech = {.tokenizer = tokenizer}};
    for (int64_t t = 0; tokenizer && out.single && t < j->batch.num_tokens; t++)
        em_speech_next(&out.speech, j->batch.token_id[t], NULL);
    return out;
}

static void print_stopped(const job *j, int64_t rows)
{
    printf("\nstopped: %lld of at most %lld tokens are run; it goes on with: %s run --resume %s\n", (long long)rows,
           (long long)em_generation_rows(&j->batch, &j->generation), j->again.call.program, j->keeping.path);
}

static void run_model(job *j, em_model *model, em_status *status)
{
    const em_call *call = &j->again.call;
    em_trace *trace = NULL;
    if (j->request.path && !(trace = open_trace(j, model, status))) return;
    em_profile profile;
    em_outcome after = {0};
    int64_t rows, before = j->again.from ? j->again.from->rows : 0;
    em_profile_open(&profile, j->source.config.num_layers, j->source.config.num_experts, model->num_ranks);
    em_clock_start(&profile.clock, model->comm);
    double start = MPI_Wtime();
    em_bar bar = {.what = "layers", .shown = call->rank == 0, .start = start, .last = start};
    stream out = open_stream(j);
    em_keeper keeper = em_keeper_of(&j->keeping);
    em_listener listener = {.token = print_token,
                            .progress = em_bar_update,
                            .token_context = &out,
                            .progress_context = &bar,
                            .keeper = j->keeping.path ? &keeper : NULL};
    if (call->rank == 0 && j->generation.count > 0) printf("\ngenerated:\n");
    if (em_generate(model, &j->batch, &j->generation, trace, &profile, &listener, &after, &rows, status)) {
        double seconds = MPI_Wtime() - start;
        em_speech_end(&out.speech, stdout);
        if (out.shown && out.single && j->generation.count > 0) printf("\n");
        em_summary_run(model, &profile, rows - before, seconds, stdout);
        if (call->rank == 0 && j->keeping.stopped) print_stopped(j, rows);
        if (call->rank == 0 && !j->keeping.stopped) {
            em_summary_outcome(&after, out.text, out.tokenizer, stdout);
            print_next_steps(call, &j->request);
        }
    }
    em_outcome_free(&after);
    em_profile_close(&profile);
    em_trace_free(trace);
}

/* What each rank will hold, and the trace. */
static void plan(job *j)
{
    em_bytes_text size;
    int num_ranks = j->again.call.num_ranks, rank = j->again.call.rank;
    em_held held = em_weights_held(&j->source, &j->layout, rank);
    j->request.weights_bytes = held.owned + held.repeated;
    if (rank == 0) {
        em_summary_model(&j->source, stdout);
        em_summary_weights(&j->source, &j->layout, stdout);
        if (j->request.path)
            printf("the trace will take %s\n",
                   em_bytes((double)em_trace_bytes(&j->request, &j->source.config, num_ranks), size));
        fflush(stdout);
    }
}

/* With the weights there: the same as before, where the run goes on. */
static void run_errand(job *j, em_model *model, em_status *status)
{
    em_errand errand = {.model = model,
                        .prompts = &j->batch,
                        .generation = &j->generation,
                        .told = j->again.told,
                        .num_told = j->again.num_told,
                        .command_line = j->again.call.command_line};
    j->keeping.errand = &errand;
    if (!j->keeping.path || em_again_check_weights(&j->again, model, &j->source, &errand.weights_sum, status))
        run_model(j, model, status);
}

static void run_source(job *j, em_status *status)
{
    const em_call *call = &j->again.call;
    em_model model;
    char *weights = describe_weights(call, &j->source), *map = em_layout_json(&j->layout);
    char *numerics = em_numerics_text(&j->manner.numerics);
    j->request.weights = weights;
    j->request.numerics = numerics;
    j->request.layout = map;
    j->request.token_text = j->text.words;
    plan(j);
    double start = MPI_Wtime();
    em_bar bar = {.what = j->source.store ? "weights read" : "weights made",
                  .shown = call->rank == 0,
                  .start = start,
                  .last = start};
    em_extent extent = em_generation_extent(&j->batch, &j->generation);
    extent.trace = em_trace_queue(&j->request, &j->source.config, call->num_ranks);
    if (em_model_open(&model, call->comm, &j->source, &j->layout, extent, j->manner, em_bar_update, &bar, status)) {
        run_errand(j, &model, status);
        em_model_close(&model);
    }
    free(weights);
    free(map);
    free(numerics);
}

/* Who owns what. Collective. */
static bool read_layout(job *j, em_status *status)
{
    const em_call *call = &j->again.call;
    const char *path = em_option_value(call, "write-layout");
    bool good = em_outlook_places(call, &j->places, status) &&
                em_options_layout(call, &j->source, &j->places, &j->layout, status);
    if (good && path && call->rank == 0 && em_output_check(path, em_option_value(call, "force") != NULL, status))
        em_again_keep_apart(call, "write-layout", path, status);
    return em_agree(call->comm, status) && good;
}

/* Collective; the status is agreed. */
static bool read_job(const em_call *given, job *j, em_status *status)
{
    int wrong;
    if (!em_again_read(given, &j->again, status)) return false;
    em_call *call = &j->again.call;
    const em_checkpoint *from = j->again.from;
    const char *prompts = batch_source(call, &wrong);
    if (from) j->batch = em_batch_slice(&from->prompts, 0, from->prompts.num_tokens);
    if (!em_run_text_open(call, &j->text, status)) return false;
    if ((!from && !read_batch(call, &j->text, &j->batch, status)) || !open_source(call, &j->source, status))
        return false;
    em_again_check_source(&j->again, &j->source, status);
    return em_agree(call->comm, status) && em_run_text_fit(call, &j->text, &j->source.config, status) &&
           em_batch_check(&j->batch, &j->source.config, prompts, wrong, status) &&
           read_generation(call, &j->batch, &j->source.config, &j->generation, status) &&
           read_manner(call, &j->manner, status) && read_layout(j, status) &&
           read_request(call, &j->source, em_generation_rows(&j->batch, &j->generation),
                        em_generation_steps(&j->batch, &j->generation), from != NULL, &j->request, status) &&
           em_again_keeping(&j->again, &j->keeping, status);
}

/* What the run would be, without it. */
static void tell(const job *j, em_status *status)
{
    em_outlook outlook = {.source = &j->source,
                          .prompts = &j->batch,
                          .generation = &j->generation,
                          .places = &j->places,
                          .layout = &j->layout,
                          .flat = j->manner.flat,
                          .routing = em_option_value(&j->again.call, "routing")};
    if (j->again.call.rank == 0) em_outlook_print(&outlook, status);
    em_agree(j->again.call.comm, status);
}

/* Collective; the status is agreed. */
static bool write_map(const job *j, em_status *status)
{
    const char *path = em_option_value(&j->again.call, "write-layout");
    if (path && j->again.call.rank == 0) em_outlook_write_map(&j->layout, path, status);
    return em_agree(j->again.call.comm, status);
}

static void run(const em_call *call, em_status *status)
{
    job j = {.keeping = {.start = MPI_Wtime()}};
    if (read_job(call, &j, status) && write_map(&j, status) && em_option_value(call, "layout-only")) {
        tell(&j, status);
    } else if (status->code == EM_OK) {
        if (j.keeping.path) em_signals_catch();
        run_source(&j, status);
    }
    free((void *)j.request.layers);
    free((void *)j.request.tokens);
    em_layout_free(&j.layout);
    em_places_free(&j.places);
    em_source_close(&j.source);
    em_batch_free(&j.batch);
    em_run_text_close(&j.text);
    em_again_free(&j.again);
}

const em_command em_command_run = {
    .name = "run",
    .usage = "(--weights W.h5 | --preset NAME [--seed N] [--storage TYPE]) (--prompt TEXT | ...) [--trace T.h5]\n"
             "       expertmesh run --resume F",
    .meaning = "Run one batch of prompts, spread over the ranks that mpirun started, and record a trace.",
    .more =
        "Without --weights each rank makes its own part of a random model. The results are the same bits on any\n"
        "number of ranks. Quantities for --trace-only: resid_pre resid_mid resid_post attn_q attn_k attn_v attn_z\n"
        "attn_out ffn_in router_logits router_probs expert_indices expert_weights ffn_hidden ffn_out final_hidden\n"
        "logits, and events: what each rank did when.\n"
        "With --tokenizer the trace has the pieces of all tokens, token_text.\n\n"
        "--generate prints one prompt's text as it comes; of several prompts a line a token: prompt, position, "
        "token.\n\n"
        "With --checkpoint F, USR1 writes a checkpoint and goes on; USR2 and TERM write one, print a line that begins\n"
        "with \"stopped:\" and end the run with exit code 0; so does --max-hours. It is answered between two steps "
        "(of\n"
        "prompts, too, with --prefill-chunk); a signal while weights are loaded is answered before the first. A\n"
        "checkpoint that cannot be written leaves the one before as it was; the run goes on, or, where it was to "
        "stop,\n"
        "ends with exit code 73.\n"
        "--resume F needs no other option: model, prompts and all that was recorded are as before, and the tokens and\n"
        "the trace have the bits of a run that was never stopped. All tokens are printed, those of the earlier run\n"
        "first. The weights and the trace may have moved (--weights, --trace, --tokenizer). The number of ranks, the\n"
        "layout, --exchange, --threads, --watchdog, --checkpoint (without it: F again), --checkpoint-every and\n"
        "--max-hours are said anew, and may be others; every other option may be given as before, or left out. On\n"
        "other ranks the trace adds what rank r does at place r mod P, and events of its first P ranks.",
    .options = options,
    .watched = true,
    .takes_model = true,
    .run = run,
};
