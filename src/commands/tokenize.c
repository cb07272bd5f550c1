/* tokenize: text to tokens by a SentencePiece model, and back. */
#include "commands.h"

#include "../book.h"
#include "run_text.h"

#include <string.h>

static const em_option options[] = {
    {"tokenizer", "FILE", "the SentencePiece model, as Grok-1's tokenizer.model", 0},
    {"file", "FILE", "read the text in a file, one prompt a line", 0},
    {"ids", "1,2,3", "what text these tokens are", 0},
    {"bos", NULL, "begin with the token of the beginning of a sequence", 0},
    {"special-tokens", NULL, "names of control pieces in the text, as <s>, are these pieces", 0},
    {"output", "csv|json", "print this, not a table", 'o'},
    {NULL, NULL, NULL, 0},
};

/* Rank 0: what is to be shown, by the one way that is given. */
static bool read_tokens(const em_call *call, const em_run_text *text, em_batch *batch, em_status *status)
{
    const char *file = em_option_value(call, "file"), *ids = em_option_value(call, "ids");
    const char *words = call->num_arguments > 0 ? call->argument[0] : NULL;
    em_spelling spelling = text->spelling;
    if ((file != NULL) + (ids != NULL) + (words != NULL) != 1)
        return em_fail(status, EM_USAGE, "tokenize: give one of a TEXT, --file FILE and --ids 1,2,3");
    if (ids) return em_batch_add_tokens(batch, ids, "--ids", EM_USAGE, status);
    if (file) return em_batch_add_lines(batch, file, em_tokenizer_add_line, &spelling, status);
    return em_tokenizer_add(&spelling, batch, words, strlen(words), "the text", EM_USAGE, status);
}

static bool check_ids(const em_call *call, const em_tokenizer *tokenizer, const em_batch *batch, em_status *status)
{
    int size = em_tokenizer_size(tokenizer);
    for (int64_t t = 0; t < batch->num_tokens; t++)
        if (batch->token_id[t] >= size)
            return em_fail(status, EM_USAGE, "--ids: token %d is not one of %s, 0 to %d", batch->token_id[t],
                           em_option_value(call, "tokenizer"), size - 1);
    return true;
}

static void put_bytes(em_table *table, const em_tokenizer *tokenizer, int32_t id)
{
    char bytes[64], shown[3 * sizeof bytes + 4] = "";
    size_t count = em_tokenizer_bytes(tokenizer, id, bytes, sizeof bytes), length = 0;
    for (size_t i = 0; i < count && i < sizeof bytes; i++)
        length += (size_t)snprintf(shown + length, sizeof shown - length, "%s%02x", i > 0 ? " " : "",
                                   (unsigned)(unsigned char)bytes[i]);
    if (count > sizeof bytes) snprintf(shown + length, sizeof shown - length, "...");
    em_table_cell(table, "%s", shown);
}

static em_table *table_of(const em_tokenizer *tokenizer, const em_batch *batch)
{
    static const char *const head[] = {"prompt", "position", "id", "piece", "bytes"};
    em_table *table = em_table_new(5, "rrrll");
    for (int i = 0; i < 5; i++) em_table_cell(table, "%s", head[i]);
    for (int64_t t = 0; t < batch->num_tokens; t++) {
        em_table_whole(table, batch->sequence[t]);
        em_table_whole(table, batch->position[t]);
        em_table_whole(table, batch->token_id[t]);
        em_table_cell(table, "%s", em_tokenizer_piece(tokenizer, batch->token_id[t]));
        put_bytes(table, tokenizer, batch->token_id[t]);
    }
    return table;
}

static void print_text(const em_tokenizer *tokenizer, const em_batch *batch)
{
    em_speech speech = {.tokenizer = tokenizer};
    printf("\ntext:\n");
    for (int64_t t = 0; t < batch->num_tokens; t++) em_speech_next(&speech, batch->token_id[t], stdout);
    em_speech_end(&speech, stdout);
    printf("\n");
}

static void show(const em_call *call, const em_run_text *text, em_output form, em_status *status)
{
    const em_tokenizer *tokenizer = text->spelling.tokenizer;
    em_batch batch = {0};
    if (read_tokens(call, text, &batch, status) && check_ids(call, tokenizer, &batch, status)) {
        em_table *table = table_of(tokenizer, &batch);
        if (form == EM_OUTPUT_CSV) em_table_csv(table, stdout);
        if (form == EM_OUTPUT_JSON) em_table_json(table, "", stdout);
        if (form == EM_OUTPUT_JSON) printf("\n");
        if (form == EM_OUTPUT_WORDS) em_table_print(table, stdout);
        if (form == EM_OUTPUT_WORDS && em_option_value(call, "ids")) print_text(tokenizer, &batch);
        em_table_free(table);
    }
    em_batch_free(&batch);
}

static void tokenize(const em_call *call, em_status *status)
{
    em_run_text text = {0};
    em_output form;
    if (!em_option_value(call, "tokenizer"))
        em_fail(status, EM_USAGE, "tokenize: add --tokenizer FILE, a SentencePiece model");
    else if (em_output_read(call, &form, status) && em_run_text_open(call, &text, status)) {
        if (call->rank == 0) show(call, &text, form, status);
        em_agree(call->comm, status);
    }
    em_run_text_close(&text);
}

const em_command em_command_tokenize = {
    .name = "tokenize",
    .usage = "--tokenizer FILE (TEXT | --file FILE | --ids 1,2,3)",
    .meaning = "Show the tokens of a text by a SentencePiece model, or the text of tokens.",
    .more = "A byte of the text that is not UTF-8 is its byte piece, <0xHH>, where the model has byte pieces.",
    .options = options,
    .most_arguments = 1,
    .run = tokenize,
};
