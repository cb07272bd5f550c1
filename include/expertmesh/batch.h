/* expertmesh/batch.h: the tokens to run: several independent sequences, one after another. No MPI. */
#ifndef EXPERTMESH_BATCH_H
#define EXPERTMESH_BATCH_H

#include "expertmesh/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every rank holds the whole of it: three ints a token. */
typedef struct em_batch {
    int64_t num_tokens;      /* T */
    int64_t room, ends_room; /* how many tokens, and how many of first_token, there is memory for */
    int32_t *token_id;       /* [T] */
    int32_t *sequence;       /* [T] which prompt a token belongs to, from 0 */
    int32_t *position;       /* [T] its place in it, from 0 */
    int64_t num_sequences;   /* runs: prompts, or the parts of sequences that one step runs */
    int64_t *first_token;    /* [num_sequences + 1] */
} em_batch;

void em_batch_free(em_batch *batch);

/* Add one prompt. Text is its bytes, a token each; tokens are numbers between commas or blanks. source (an option, or a
 * file with its line) opens the message when it is empty, or holds what is no token. */
bool em_batch_add_text(em_batch *batch, const char *text, size_t length, const char *source, int code,
                       em_status *status);
bool em_batch_add_tokens(em_batch *batch, const char *text, const char *source, int code, em_status *status);

/* The same from tokens that are known. */
bool em_batch_add_ids(em_batch *batch, const int32_t *id, int64_t count, const char *source, int code,
                      em_status *status);

/* Add the prompts of a file, one a line, as text or as tokens; blank lines are passed over. */
bool em_batch_add_file(em_batch *batch, const char *path, bool as_text, em_status *status);

/* The same, where another way of reading adds the prompt of each line. source: the file and the line's number. */
typedef bool em_line_reader(void *context, em_batch *batch, const char *line, size_t length, const char *source,
                            em_status *status);
bool em_batch_add_lines(em_batch *batch, const char *path, em_line_reader *read, void *context, em_status *status);

/* N prompts of these tokens; prompt s ends before token end[s]. */
em_batch em_batch_of(int64_t N, const int64_t *end, const int32_t *token);

/* Tokens [begin, end) of a batch as a batch of their own, which runs of sequences they fall into and where they stood.
 * One token more of a sequence, as a run of its own. */
em_batch em_batch_slice(const em_batch *batch, int64_t begin, int64_t end);
void em_batch_add_next(em_batch *batch, int32_t token, int32_t sequence, int32_t position);

/* Whether a model can run it: every token in the vocabulary, no prompt longer than sequence_len. source (an option or a
 * file) opens the message. */
bool em_batch_check(const em_batch *batch, const em_config *config, const char *source, int code, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
