#include "pieces.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

struct em_pieces {
    sentencepiece::SentencePieceProcessor processor;
};

bool em_pieces_built(void)
{
    return true;
}

em_pieces *em_pieces_open(const void *data, size_t size, char why[EM_PIECES_WHY])
{
    try {
        std::unique_ptr<em_pieces> pieces(new em_pieces);
        std::string model(static_cast<const char *>(data), size);
        sentencepiece::util::Status status = pieces->processor.LoadFromSerializedProto(model);
        if (status.ok()) return pieces.release();
        std::snprintf(why, EM_PIECES_WHY, "%s", status.ToString().c_str());
    } catch (const std::exception &failure) {
        std::snprintf(why, EM_PIECES_WHY, "%s", failure.what());
    } catch (...) {
        std::snprintf(why, EM_PIECES_WHY, "the library failed");
    }
    return nullptr;
}

void em_pieces_close(em_pieces *pieces)
{
    delete pieces;
}

int em_pieces_size(const em_pieces *pieces)
{
    return pieces->processor.GetPieceSize();
}

const char *em_pieces_text(const em_pieces *pieces, int id)
{
    return pieces->processor.IdToPiece(id).c_str();
}

em_piece_kind em_pieces_kind(const em_pieces *pieces, int id)
{
    if (pieces->processor.IsControl(id)) return EM_PIECE_CONTROL;
    if (pieces->processor.IsUnknown(id)) return EM_PIECE_UNKNOWN;
    return pieces->processor.IsByte(id) ? EM_PIECE_BYTE : EM_PIECE_NORMAL;
}

/* The library answers with the unknown piece where there is none. */
int em_pieces_find(const em_pieces *pieces, const char *text)
{
    int id = pieces->processor.PieceToId(text);
    return id >= 0 && pieces->processor.IdToPiece(id) == text ? id : -1;
}

int em_pieces_bos(const em_pieces *pieces)
{
    return pieces->processor.bos_id();
}

char *em_pieces_unknown(const em_pieces *pieces)
{
    try {
        std::vector<int> ids(1, pieces->processor.unk_id());
        return strdup(pieces->processor.DecodeIds(ids).c_str());
    } catch (...) {
        return nullptr;
    }
}

long em_pieces_encode(const em_pieces *pieces, const char *text, size_t length, int **ids)
{
    *ids = nullptr;
    try {
        std::vector<int> found;
        std::string whole(text, length);
        if (!pieces->processor.Encode(whole, &found).ok()) return -1;
        *ids = static_cast<int *>(std::malloc((found.size() + 1) * sizeof(int)));
        if (!*ids) return -1;
        std::copy(found.begin(), found.end(), *ids);
        return static_cast<long>(found.size());
    } catch (...) {
        return -1;
    }
}

char *em_pieces_normalised(const em_pieces *pieces, const char *text)
{
    try {
        std::string all;
        for (const std::string &piece : pieces->processor.EncodeAsPieces(text)) all += piece;
        return strdup(all.c_str());
    } catch (...) {
        return nullptr;
    }
}
