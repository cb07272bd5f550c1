#include "run_text.h"

#include <stdlib.h>
#include <string.h>

bool em_run_text_open(const em_call *call, em_run_text *text, em_status *status)
{
    static const char *const of_prompts[] = {"bos", "special-tokens"};
    const char *path = em_option_value(call, "tokenizer");
    text->given = path != NULL;
    text->spelling.bos = em_option_value(call, "bos") != NULL;
    text->spelling.special = em_option_value(call, "special-tokens") != NULL;
    for (int i = 0; i < 2 && !path; i++)
        if (em_option_value(call, of_prompts[i]))
            return em_fail(status, EM_USAGE, "--%s says how a tokenizer reads, but --tokenizer FILE is missing",
                           of_prompts[i]);
    if (path && call->rank == 0) text->spelling.tokenizer = em_tokenizer_open(path, status);
    return em_agree(call->comm, status);
}

void em_run_text_close(em_run_text *text)
{
    em_tokenizer_close(text->spelling.tokenizer);
    free(text->stop);
    free((void *)text->words);
    *text = (em_run_text){0};
}

/* Rank 0. */
static bool check_vocabulary(const em_call *call, const em_tokenizer *tokenizer, const em_config *config,
                             em_status *status)
{
    if (em_tokenizer_size(tokenizer) <= config->vocab_size) return true;
    return em_fail(status, EM_BAD_DATA, "%s: has %d pieces, but the model's vocab_size is %lld: it is another model's",
                   em_option_value(call, "tokenizer"), em_tokenizer_size(tokenizer), (long long)config->vocab_size);
}

/* Rank 0: the id of the piece that --stop-token names; -1: it names none, but is a number, or nothing. */
static int find_stop(const em_call *call, const em_tokenizer *tokenizer, em_status *status)
{
    const char *stop = em_option_value(call, "stop-token");
    if (!stop || (*stop && stop[strspn(stop, "-+0123456789")] == '\0')) return -1;
    int id = em_tokenizer_find(tokenizer, stop);
    if (id < 0)
        em_fail(status, EM_USAGE, "--stop-token: \"%s\" is neither a number nor a piece of %s", stop,
                em_option_value(call, "tokenizer"));
    return id;
}

static const char **words_of(const em_tokenizer *tokenizer, int64_t vocabulary)
{
    const char **words = em_alloc(vocabulary, sizeof *words);
    for (int64_t i = 0; i < vocabulary; i++) words[i] = em_tokenizer_piece(tokenizer, (int32_t)i);
    return words;
}

bool em_run_text_fit(em_call *call, em_run_text *text, const em_config *config, em_status *status)
{
    const em_tokenizer *tokenizer = text->spelling.tokenizer;
    int stop = -1;
    if (!text->given) return true;
    if (call->rank == 0 && check_vocabulary(call, tokenizer, config, status)) {
        stop = find_stop(call, tokenizer, status);
        text->words = words_of(tokenizer, config->vocab_size);
    }
    if (!em_agree(call->comm, status)) return false;
    MPI_Bcast(&stop, 1, MPI_INT, 0, call->comm);
    if (stop < 0) return true;
    text->stop = em_text("%d", stop);
    em_options_set(call, "stop-token", text->stop);
    return true;
}
