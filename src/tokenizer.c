#include "tokenizer.h"

#include "pieces.h"
#include "utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char blank_mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's blank */
enum { BLANK_BYTES = 3 };

struct em_tokenizer {
    char *path;
    char *data; /* the file, with room for TAIL bytes more */
    size_t size;
    em_pieces *pieces;
    em_pieces *inside;             /* the same, but no blank is added or left out; NULL: not needed so far */
    bool adds_blank, drops_blanks; /* at the beginning; those that are too many */
    int *control, num_controls;    /* [num_controls] ids of control pieces */
    int byte_piece[256];           /* -1: there is none */
    char *unknown;                 /* what an unknown piece stands for */
};

/* Joined to a model these bytes set add_dummy_prefix and remove_extra_whitespaces, fields 3 and 4 of its normalizer_spec
 * (field 3), to false: messages of Protocol Buffers merge when they are joined. */
static const char no_blanks[] = {0x1a, 0x04, 0x18, 0x00, 0x20, 0x00};
enum { TAIL = sizeof no_blanks };

/* ---- UTF-8 ---- */

/* How many of the first bytes are whole characters. */
static size_t valid_bytes(const char *text, size_t length)
{
    size_t done = 0;
    while (done < length) {
        int bytes = em_utf8_character(text + done, length - done);
        if (bytes <= 0) break;
        done += (size_t)bytes;
    }
    return done;
}

/* ---- opening ---- */

static bool read_file(em_tokenizer *t, em_status *status)
{
    FILE *file = fopen(t->path, "rb");
    size_t room = 1 << 16, got;
    if (!file) return em_fail(status, EM_NO_INPUT, "%s: %s", t->path, strerror(errno));
    t->data = em_alloc((int64_t)(room + TAIL), 1);
    errno = 0;
    while ((got = fread(t->data + t->size, 1, room - t->size, file)) > 0) {
        t->size += got;
        if (t->size < room) continue;
        t->data = em_grow(t->data, (int64_t)room, (int64_t)(2 * room + TAIL), 1);
        room *= 2;
    }
    bool good = !ferror(file);
    if (!good) em_fail(status, EM_NO_INPUT, "%s: %s", t->path, strerror(errno));
    fclose(file);
    return good;
}

/* What the model does with blanks, seen from what it makes of some. */
static void look_at_blanks(em_tokenizer *t)
{
    char *one = em_pieces_normalised(t->pieces, "a"), *two = em_pieces_normalised(t->pieces, "a  b");
    t->adds_blank = one && strncmp(one, blank_mark, BLANK_BYTES) == 0;
    t->drops_blanks = two && !strstr(two, "\xe2\x96\x81\xe2\x96\x81");
    free(one);
    free(two);
}

static bool look_at_pieces(em_tokenizer *t, em_status *status)
{
    int size = em_pieces_size(t->pieces);
    if (size < 1) return em_fail(status, EM_BAD_DATA, "%s: a SentencePiece model without a piece", t->path);
    t->control = em_alloc(size, sizeof *t->control);
    for (int id = 0; id < size; id++) {
        const char *text = em_pieces_text(t->pieces, id);
        size_t length = strlen(text);
        if (valid_bytes(text, length) < length)
            return em_fail(status, EM_BAD_DATA, "%s: piece %d is not UTF-8; the file is damaged", t->path, id);
        if (em_pieces_kind(t->pieces, id) == EM_PIECE_CONTROL && length > 0) t->control[t->num_controls++] = id;
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        int id = em_pieces_find(t->pieces, name);
        t->byte_piece[byte] = id >= 0 && em_pieces_kind(t->pieces, id) == EM_PIECE_BYTE ? id : -1;
    }
    t->unknown = em_pieces_unknown(t->pieces);
    look_at_blanks(t);
    return true;
}

static bool open_pieces(em_tokenizer *t, em_status *status)
{
    char why[EM_PIECES_WHY];
    t->pieces = em_pieces_open(t->data, t->size, why);
    if (t->pieces) return look_at_pieces(t, status);
    return em_fail(status, EM_BAD_DATA, "%s: not a SentencePiece model, or damaged: %s", t->path, why);
}

em_tokenizer *em_tokenizer_open(const char *path, em_status *status)
{
    if (!em_pieces_built()) {
        em_fail(status, EM_USAGE,
                "--tokenizer: this build has no SentencePiece; install libsentencepiece-dev and build again");
        return NULL;
    }
    em_tokenizer *t = em_zeroed(1, sizeof *t);
    t->path = em_text("%s", path);
    if (read_file(t, status) && open_pieces(t, status)) return t;
    em_tokenizer_close(t);
    return NULL;
}

void em_tokenizer_close(em_tokenizer *t)
{
    if (!t) return;
    em_pieces_close(t->pieces);
    em_pieces_close(t->inside);
    free(t->control);
    free(t->unknown);
    free(t->data);
    free(t->path);
    free(t);
}

/* ---- pieces ---- */

int em_tokenizer_size(const em_tokenizer *t)
{
    return em_pieces_size(t->pieces);
}

static bool has(const em_tokenizer *t, int32_t id)
{
    return id >= 0 && id < em_pieces_size(t->pieces);
}

const char *em_tokenizer_piece(const em_tokenizer *t, int32_t id)
{
    return has(t, id) ? em_pieces_text(t->pieces, id) : "";
}

int em_tokenizer_find(const em_tokenizer *t, const char *piece)
{
    return em_pieces_find(t->pieces, piece);
}

bool em_tokenizer_is_control(const em_tokenizer *t, int32_t id)
{
    return has(t, id) && em_pieces_kind(t->pieces, id) == EM_PIECE_CONTROL;
}

size_t em_tokenizer_bytes(const em_tokenizer *t, int32_t id, char *bytes, size_t room)
{
    em_piece_kind kind = has(t, id) ? em_pieces_kind(t->pieces, id) : EM_PIECE_UNKNOWN;
    const char *text = kind == EM_PIECE_UNKNOWN ? t->unknown : em_tokenizer_piece(t, id);
    size_t count = 0;
    if (kind == EM_PIECE_CONTROL || !text) return 0;
    if (kind == EM_PIECE_BYTE) {
        if (room > 0) bytes[0] = (char)strtol(text + 1, NULL, 16); /* "<0x0A>" */
        return 1;
    }
    for (const char *c = text; *c; count++) {
        bool blank = strncmp(c, blank_mark, BLANK_BYTES) == 0;
        if (count < room) bytes[count] = blank ? ' ' : *c;
        c += blank ? BLANK_BYTES : 1;
    }
    return count;
}

/* ---- text to tokens ---- */

typedef struct id_list {
    int32_t *id;
    int64_t count, room;
} id_list;

static void add_id(id_list *list, int32_t id)
{
    if (list->count == list->room) {
        int64_t room = list->room > 0 ? 2 * list->room : 64;
        list->id = em_grow(list->id, list->count, room, sizeof *list->id);
        list->room = room;
    }
    list->id[list->count++] = id;
}

static bool add_encoded(const em_pieces *pieces, const char *text, size_t length, const char *source, id_list *list,
                        em_status *status)
{
    int *ids;
    long count = em_pieces_encode(pieces, text, length, &ids);
    for (long i = 0; i < count; i++) add_id(list, ids[i]);
    free(ids);
    return count >= 0 || em_fail(status, EM_BAD_DATA, "%s: SentencePiece cannot read this text", source);
}

static bool open_inside(em_tokenizer *t, em_status *status)
{
    char why[EM_PIECES_WHY];
    if (t->inside) return true;
    memcpy(t->data + t->size, no_blanks, TAIL);
    t->inside = em_pieces_open(t->data, t->size + TAIL, why);
    return t->inside ||
           em_fail(status, EM_BAD_DATA, "%s: cannot read text with bytes that are not UTF-8: %s", t->path, why);
}

/* Characters between bytes that are none. */
static bool add_between(em_tokenizer *t, const char *text, size_t length, bool begins, const char *source,
                        id_list *list, em_status *status)
{
    char *copy = em_alloc((int64_t)length + 1, 1);
    size_t blank = begins && t->adds_blank;
    copy[0] = ' ';
    memcpy(copy + blank, text, length);
    bool good = add_encoded(t->inside, copy, length + blank, source, list, status);
    free(copy);
    return good;
}

static bool add_byte(const em_tokenizer *t, unsigned char byte, size_t place, const char *source, id_list *list,
                     em_status *status)
{
    if (t->byte_piece[byte] < 0)
        return em_fail(status, EM_BAD_DATA, "%s: byte %zu, 0x%02x, is not UTF-8, and %s has no piece <0x%02X> for it",
                       source, place + 1, byte, t->path, byte);
    add_id(list, t->byte_piece[byte]);
    return true;
}

/* text[begin, end), where no control piece is. */
static bool add_segment(em_tokenizer *t, const char *text, size_t begin, size_t end, const char *source, id_list *list,
                        em_status *status)
{
    bool good = true;
    size_t run = valid_bytes(text + begin, end - begin);
    if (begin == end) return true;
    if (run == end - begin) return add_encoded(t->pieces, text + begin, run, source, list, status);
    good = open_inside(t, status);
    for (size_t i = begin; good && i<end; i += run> 0 ? run : 1) {
        run = valid_bytes(text + i, end - i);
        good = run > 0 ? add_between(t, text + i, run, i == begin, source, list, status)
                       : add_byte(t, (unsigned char)text[i], i, source, list, status);
    }
    return good;
}

/* The longest control piece whose name stands here; -1: none. */
static int control_at(const em_tokenizer *t, const char *text, size_t length, size_t *bytes)
{
    int found = -1;
    *bytes = 0;
    for (int i = 0; i < t->num_controls; i++) {
        const char *name = em_pieces_text(t->pieces, t->control[i]);
        size_t own = strlen(name);
        if (own <= *bytes || own > length || memcmp(name, text, own) != 0) continue;
        found = t->control[i];
        *bytes = own;
    }
    return found;
}

static bool add_with_controls(em_tokenizer *t, const char *text, size_t length, const char *source, id_list *list,
                              em_status *status)
{
    size_t begin = 0, bytes;
    for (size_t i = 0; i < length;) {
        int control = control_at(t, text + i, length - i, &bytes);
        if (control >= 0) {
            if (!add_segment(t, text, begin, i, source, list, status)) return false;
            add_id(list, control);
            begin = i + bytes;
        }
        i += control >= 0 ? bytes : 1;
    }
    return add_segment(t, text, begin, length, source, list, status);
}

bool em_tokenizer_add(const em_spelling *spelling, em_batch *batch, const char *text, size_t length, const char *source,
                      int code, em_status *status)
{
    em_tokenizer *t = spelling->tokenizer;
    id_list list = {0};
    int bos = em_pieces_bos(t->pieces);
    if (spelling->bos && bos < 0)
        return em_fail(status, EM_BAD_DATA, "%s: has no piece for the beginning of a sequence; leave out --bos",
                       t->path);
    if (length == 0) return em_fail(status, code, "%s: the prompt is empty", source);
    if (spelling->bos) add_id(&list, bos);
    bool good = spelling->special ? add_with_controls(t, text, length, source, &list, status)
                                  : add_segment(t, text, 0, length, source, &list, status);
    good = good && em_batch_add_ids(batch, list.id, list.count, source, code, status);
    free(list.id);
    return good;
}

bool em_tokenizer_add_line(void *context, em_batch *batch, const char *text, size_t length, const char *source,
                           em_status *status)
{
    return em_tokenizer_add(context, batch, text, length, source, EM_BAD_DATA, status);
}

/* ---- tokens to text ---- */

static void say(em_speech *speech, const void *bytes, size_t count, FILE *out)
{
    if (out) fwrite(bytes, 1, count, out);
    if (count > 0) speech->begun = true;
}

static void drop_held(em_speech *speech, int count)
{
    speech->num_held -= count;
    memmove(speech->held, speech->held + count, (size_t)speech->num_held);
}

static void hear_byte(em_speech *speech, unsigned char byte, FILE *out)
{
    speech->held[speech->num_held++] = byte;
    while (speech->num_held > 0) {
        int bytes = em_utf8_character((const char *)speech->held, (size_t)speech->num_held);
        if (bytes < 0) return;
        if (bytes == 0) bytes = 1; /* no character begins so: the byte as it is */
        say(speech, speech->held, (size_t)bytes, out);
        drop_held(speech, bytes);
    }
}

void em_speech_end(em_speech *speech, FILE *out)
{
    say(speech, speech->held, (size_t)speech->num_held, out);
    speech->num_held = 0;
}

void em_speech_next(em_speech *speech, int32_t id, FILE *out)
{
    const em_tokenizer *t = speech->tokenizer;
    size_t count = em_tokenizer_bytes(t, id, NULL, 0), first = 0;
    char *bytes = em_alloc((int64_t)count + 1, 1);
    em_tokenizer_bytes(t, id, bytes, count);
    if (has(t, id) && em_pieces_kind(t->pieces, id) == EM_PIECE_BYTE) {
        hear_byte(speech, (unsigned char)bytes[0], out);
    } else {
        em_speech_end(speech, out);
        bool leads = !speech->begun && (t->adds_blank || t->drops_blanks) && has(t, id) &&
                     em_pieces_kind(t->pieces, id) == EM_PIECE_NORMAL && count > 0 && bytes[0] == ' ';
        if (leads) first = 1;
        if (leads && !t->drops_blanks) speech->begun = true;
        say(speech, bytes + first, count - first, out);
    }
    free(bytes);
}
