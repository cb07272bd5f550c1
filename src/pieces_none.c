/* A build without SentencePiece: nothing can be opened, so nothing else is ever called. */
#include "pieces.h"

#include <stdio.h>

bool em_pieces_built(void)
{
    return false;
}

em_pieces *em_pieces_open(const void *data, size_t size, char why[EM_PIECES_WHY])
{
    (void)data, (void)size;
    snprintf(why, EM_PIECES_WHY, "this build has no SentencePiece");
    return NULL;
}

void em_pieces_close(em_pieces *pieces)
{
    (void)pieces;
}

int em_pieces_size(const em_pieces *pieces)
{
    (void)pieces;
    return 0;
}

const char *em_pieces_text(const em_pieces *pieces, int id)
{
    (void)pieces, (void)id;
    return "";
}

em_piece_kind em_pieces_kind(const em_pieces *pieces, int id)
{
    (void)pieces, (void)id;
    return EM_PIECE_UNKNOWN;
}

int em_pieces_find(const em_pieces *pieces, const char *text)
{
    (void)pieces, (void)text;
    return -1;
}

int em_pieces_bos(const em_pieces *pieces)
{
    (void)pieces;
    return -1;
}

char *em_pieces_unknown(const em_pieces *pieces)
{
    (void)pieces;
    return NULL;
}

long em_pieces_encode(const em_pieces *pieces, const char *text, size_t length, int **ids)
{
    (void)pieces, (void)text, (void)length;
    *ids = NULL;
    return -1;
}

char *em_pieces_normalised(const em_pieces *pieces, const char *text)
{
    (void)pieces, (void)text;
    return NULL;
}
