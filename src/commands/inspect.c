/* inspect: what is in a weights file or a trace; and with a subject, what is to be seen there. */
#include "commands.h"

#include "../inspect/inspect.h"
#include "../summary.h"
#include "expertmesh/checksum.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const em_option options[] = {
    {"verify", NULL, "read all weights and compare them with the checksums that import stored", 0},
    {"layer", "N", "this layer only", 0},
    {"expert", "N", "this expert only", 0},
    {"neuron", "N", "neuron: which row of the matrix", 0},
    {"matrix", "ffn_up|ffn_gate|ffn_down|router|attn_query|attn_key|attn_value|attn_output",
     "neuron: the matrix that it is a row of (ffn_up)", 0},
    {"head", "N", "neuron: its head; --neuron is then an element of the head", 0},
    {"trace", "T.h5", "neuron: with its value in this trace", 0},
    {"token", "N", "neuron: for this token of the trace", 0},
    {"top", "N", "how many of the largest (10; neurons: 20)", 0},
    {"table", "NAME", "only this table", 0},
    {"output", "csv|json", "print this, not tables for the eye; csv: one table, the first or that of --table", 'o'},
    {NULL, NULL, NULL, 0},
};

/* What may follow the file. */
static const struct subject {
    const char *name; /* "": nothing follows */
    bool of_trace;    /* opened before it runs */
    bool number;      /* its own number follows: token 17 */
    int top;
    const char *options; /* that it heeds, but for table and output */
    void (*run)(em_inspect *in, em_status *status);
} subjects[] = {
    {"neuron", false, false, 10, "layer expert neuron matrix head trace token top", em_inspect_neuron},
    {"experts", true, false, 10, "layer expert top", em_inspect_experts},
    {"token", true, true, 10, "layer top", em_inspect_token},
    {"exchange", true, false, 10, "layer", em_inspect_exchange},
    {"neurons", true, false, 20, "layer expert top", em_inspect_neurons},
};
enum { NUM_SUBJECTS = sizeof subjects / sizeof *subjects };

/* ---- what the subjects share ---- */

bool em_inspect_can(em_inspect *in, const char *table, em_quantity quantity, em_status *status)
{
    if (em_view_need(&in->view, quantity, status)) return true;
    if (!em_book_insists(in->book, table)) em_inspect_excuse(in, status);
    return false;
}

void em_inspect_excuse(em_inspect *in, em_status *status)
{
    em_book_note(in->book, "%s", status->text);
    *status = (em_status){0};
}

void em_inspect_text(const em_inspect *in, em_table *table, int32_t token)
{
    if (in->token_text && token >= 0 && token < in->view.config.vocab_size)
        em_table_cell(table, "%s", in->token_text[token]);
    else if (token < 128 && isprint(token))
        em_table_cell(table, "%c", token);
    else
        em_table_cell(table, "%s", "");
}

/* ---- one request ---- */

static bool find_subject(const char *name, const struct subject **subject, em_status *status)
{
    const char *names[NUM_SUBJECTS];
    for (int i = 0; i < NUM_SUBJECTS; i++) {
        names[i] = subjects[i].name;
        *subject = &subjects[i];
        if (strcmp(name, names[i]) == 0) return true;
    }
    const char *nearest = em_nearest(name, names, NUM_SUBJECTS);
    return em_fail(status, EM_USAGE, "inspect: there is no subject \"%s\"; %s%s", name,
                   nearest ? "the nearest is " : "they are neuron, experts, token, exchange and neurons",
                   nearest ? nearest : "");
}

/* Is a word in a list of words? */
static bool among(const char *word, const char *list)
{
    size_t length = strlen(word);
    for (const char *next = list; *next; next += strcspn(next, " "), next += *next == ' ')
        if (strcspn(next, " ") == length && strncmp(next, word, length) == 0) return true;
    return false;
}

/* An option that a subject does not heed would be a misunderstanding. */
static bool check_options(const em_call *call, const struct subject *subject, em_status *status)
{
    for (const em_option *o = options; o->name; o++)
        if (em_option_value(call, o->name) && !among(o->name, "table output verify") &&
            (!subject || !among(o->name, subject->options)))
            return em_fail(status, EM_USAGE, "inspect: --%s says nothing of %s%s", o->name,
                           subject ? "the subject "
                                   : "a file; add a subject: neuron, experts, token, exchange or neurons",
                           subject ? subject->name : "");
    return true;
}

static bool read_number(const em_call *call, const struct subject *subject, int64_t *number, em_status *status)
{
    const char *text = call->num_arguments > 2 ? call->argument[2] : NULL;
    char *end;
    *number = -1;
    if (!subject->number && text)
        return em_fail(status, EM_USAGE, "inspect: too many arguments at \"%s\": nothing follows %s", text,
                       subject->name);
    if (!subject->number) return true;
    if (!text) return em_fail(status, EM_USAGE, "inspect: which %s? add its number", subject->name);
    *number = strtoll(text, &end, 10);
    if (isdigit((unsigned char)*text) && *end == '\0' && strlen(text) < 19) return true;
    return em_fail(status, EM_USAGE, "inspect: %s \"%s\" is not a whole number", subject->name, text);
}

/* Layers and expert that are asked for, in the open trace. */
static bool narrow(em_inspect *in, em_status *status)
{
    int64_t layer;
    in->first_layer = 0;
    in->past_layer = in->view.num_layers;
    if (!em_option_whole(in->call, "layer", 0, INT64_MAX, -1, &layer, status) ||
        !em_option_whole(in->call, "expert", 0, INT64_MAX, -1, &in->expert, status))
        return false;
    if (layer >= 0) {
        if (!em_view_find_layer(&in->view, layer, "--layer", &in->first_layer, status)) return false;
        in->past_layer = in->first_layer + 1;
    }
    if (in->expert < in->view.config.num_experts) return true;
    return em_fail(status, EM_USAGE, "--expert: there is no expert %lld; the model has experts 0 to %lld",
                   (long long)in->expert, (long long)in->view.config.num_experts - 1);
}

static void tell_progress(em_inspect *in)
{
    const em_view *v = &in->view;
    if (!v->complete && v->step_tokens == 0)
        em_book_note(in->book, "%s is not complete: its first %lld tokens are told", in->path,
                     (long long)v->tokens_done);
    else if (!v->complete)
        em_book_note(in->book,
                     "%s is not complete: its first %lld tokens are told, and of the next %lld the first %lld layers",
                     in->path, (long long)v->tokens_done, (long long)v->step_tokens, (long long)v->layers_done);
}

static void inspect_trace(em_inspect *in, const struct subject *subject, em_status *status)
{
    if (!em_view_open(&in->view, in->path, status)) return;
    in->token_text = em_view_token_text(&in->view, status);
    if (status->code == EM_OK && narrow(in, status)) subject->run(in, status);
    tell_progress(in);
    for (int64_t i = 0; in->token_text && i < in->view.config.vocab_size; i++) free(in->token_text[i]);
    free(in->token_text);
    em_view_close(&in->view);
}

/* Without a subject: whatever kind of file it is. */
static void inspect_file(em_inspect *in, em_status *status)
{
    em_store *store = em_store_open(in->path, status);
    char *format = NULL;
    if (!store) return;
    if (!em_store_has_attribute(store, "/", "format"))
        em_fail(status, EM_BAD_DATA, "%s: HDF5, but neither weights nor a trace: the root has no attribute \"format\"",
                in->path);
    else
        em_store_get_text(store, "/", "format", &format, status);
    em_status ignored = {0};
    em_store_close(store, &ignored);
    if (!format) return;
    if (strcmp(format, "expertmesh-weights") == 0)
        em_inspect_weights(in, status);
    else if (strcmp(format, "expertmesh-trace") == 0)
        em_inspect_trace(in, status);
    else
        em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", neither weights nor a trace", in->path, format);
    free(format);
}

static void run_subject(em_inspect *in, const struct subject *subject, em_status *status)
{
    if (!subject)
        inspect_file(in, status);
    else if (subject->of_trace)
        inspect_trace(in, subject, status);
    else
        subject->run(in, status);
    if (!status->code) em_book_print(in->book, stdout, status);
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
    const struct subject *subject = NULL;
    em_inspect in = {.call = call, .path = call->argument[0], .expert = -1, .number = -1};
    em_output form;
    if (em_option_value(call, "verify")) {
        verify(call, status);
        return;
    }
    if ((call->num_arguments > 1 && !find_subject(call->argument[1], &subject, status)) ||
        !check_options(call, subject, status) || !em_output_read(call, &form, status) ||
        (subject && !read_number(call, subject, &in.number, status)) ||
        !em_option_whole(call, "top", 1, 1 << 24, subject ? subject->top : 1, &in.top, status))
        return;
    if (call->rank == 0) {
        in.book = em_book_new(form, em_option_value(call, "table"));
        run_subject(&in, subject, status);
        em_book_free(in.book);
    }
    em_agree(call->comm, status);
}

const em_command em_command_inspect = {
    .name = "inspect",
    .usage = "FILE.h5 [--verify | neuron | experts | token N | exchange | neurons] [-o csv|json]",
    .meaning = "Tell what is in a weights file or a trace; or of a subject what is to be seen there.",
    .more =
        "  inspect W.h5 neuron --layer L --expert E --neuron N\n"
        "             a neuron's weights in numbers; with --trace T.h5 --token N also its inputs, the largest terms "
        "of\n"
        "             its sum, and its output, computed again and beside what was recorded. --matrix: any other row\n"
        "  inspect T.h5 experts     loads of experts and ranks, experts chosen together, the tokens that chose them\n"
        "  inspect T.h5 token N     a token's experts and norms, layer by layer, and its likeliest next tokens\n"
        "  inspect T.h5 exchange    rows and bytes from rank to rank, inside hosts and between them, time by phase\n"
        "  inspect T.h5 neurons     the most active neurons, dead ones, sparsity\n"
        "Every subject is a few named tables, which --table and -o csv or json give to programs, with names of "
        "columns\n"
        "that stay. A trace that is still being written is told as far as it is whole.",
    .options = options,
    .num_arguments = 1,
    .most_arguments = 3,
    .words = "neuron experts token exchange neurons",
    .run = inspect,
};
