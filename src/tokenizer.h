/* tokenizer.h: text to tokens and back, by a SentencePiece model (pieces.h). No MPI: rank 0 has it, and shares the ids.
 *
 * Text of valid UTF-8 has the ids that SentencePiece gives it. A byte that is not valid UTF-8 becomes its byte piece, <0xHH>;
 * where a prompt has such bytes, blanks around them are kept as they are. */
#ifndef EXPERTMESH_TOKENIZER_H
#define EXPERTMESH_TOKENIZER_H

#include "expertmesh/batch.h"

#include <stdio.h>

typedef struct em_tokenizer em_tokenizer;

/* Read a model file. NULL on failure: EM_USAGE where this build has no SentencePiece, EM_NO_INPUT, EM_BAD_DATA. */
em_tokenizer *em_tokenizer_open(const char *path, em_status *status);
void em_tokenizer_close(em_tokenizer *tokenizer); /* may be NULL */

/* Pieces it has; the text of one, "" for an id past them; the id of a piece, -1: there is none. */
int em_tokenizer_size(const em_tokenizer *tokenizer);
const char *em_tokenizer_piece(const em_tokenizer *tokenizer, int32_t id);
int em_tokenizer_find(const em_tokenizer *tokenizer, const char *piece);
/* Control pieces, as the beginning of a sequence, are no text. */
bool em_tokenizer_is_control(const em_tokenizer *tokenizer, int32_t id);

/* The bytes that a token stands for in the middle of a text, at most room of them; returns how many there are. */
size_t em_tokenizer_bytes(const em_tokenizer *tokenizer, int32_t id, char *bytes, size_t room);

/* How prompts are read. */
typedef struct em_spelling {
    em_tokenizer *tokenizer;
    bool bos;     /* begin each with the piece of the beginning of a sequence */
    bool special; /* names of control pieces in the text are these pieces; what follows one begins a text of its own */
} em_spelling;

/* Add one prompt; source and code as for em_batch_add_text. The second is an em_line_reader; context: an em_spelling. */
bool em_tokenizer_add(const em_spelling *spelling, em_batch *batch, const char *text, size_t length, const char *source,
                      int code, em_status *status);
bool em_tokenizer_add_line(void *context, em_batch *batch, const char *text, size_t length, const char *source,
                           em_status *status);

/* Tokens back to text, one after another: as SentencePiece does it, but that bytes which are no character stay bytes. A
 * character of several byte pieces comes out when it is whole. Starts with the tokenizer, else zeroed. */
typedef struct em_speech {
    const em_tokenizer *tokenizer;
    bool begun; /* past the place where a first blank is left out */
    unsigned char held[4];
    int num_held;
} em_speech;

/* out may be NULL: the text is known already. end lets out what is held. */
void em_speech_next(em_speech *speech, int32_t id, FILE *out);
void em_speech_end(em_speech *speech, FILE *out);

#endif
