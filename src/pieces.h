/* pieces.h: a SentencePiece model behind a plain C interface. pieces.cpp is made with the library; pieces_none.c takes its
 * place where a build has none. No C++ exception leaves it. */
#ifndef EXPERTMESH_PIECES_H
#define EXPERTMESH_PIECES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_pieces em_pieces;
typedef enum em_piece_kind { EM_PIECE_NORMAL, EM_PIECE_CONTROL, EM_PIECE_UNKNOWN, EM_PIECE_BYTE } em_piece_kind;

/* Has this build SentencePiece? Without it open always fails. */
bool em_pieces_built(void);

/* From the bytes of a model file. NULL on failure, with the reason in words. */
enum { EM_PIECES_WHY = 200 };
em_pieces *em_pieces_open(const void *data, size_t size, char why[EM_PIECES_WHY]);
void em_pieces_close(em_pieces *pieces); /* may be NULL */

int em_pieces_size(const em_pieces *pieces);
/* Of an id from 0 to size - 1; a text lives as long as pieces. */
const char *em_pieces_text(const em_pieces *pieces, int id);
em_piece_kind em_pieces_kind(const em_pieces *pieces, int id);
/* The id of a piece, of the beginning of a sequence; -1: there is none. */
int em_pieces_find(const em_pieces *pieces, const char *text);
int em_pieces_bos(const em_pieces *pieces);

/* What an unknown piece stands for in text. Freed with free. */
char *em_pieces_unknown(const em_pieces *pieces);

/* Ids of a text of valid UTF-8, as the library has them: how many, or -1. ids is freed with free. */
long em_pieces_encode(const em_pieces *pieces, const char *text, size_t length, int **ids);
/* The text as its pieces after the model's normalisation, one behind the other. Freed with free; NULL on failure. */
char *em_pieces_normalised(const em_pieces *pieces, const char *text);

#ifdef __cplusplus
}
#endif
#endif
