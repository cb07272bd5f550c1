/* GGUF: a header of keys with values, the list of arrays, then their numbers. Sizes are 64-bit, the axes of an array are told
 * fastest first, and its offset counts from the end of the list, rounded up to the alignment.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#include "foreign.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GGUF_TEXT = 8, GGUF_LIST = 9, NUM_GGUF_TYPES = 13, LONGEST_KEY = 96, LONGEST_VALUE = 64 };

/* Bytes of a value by type: u8 i8 u16 i16 u32 i32 f32 bool text list u64 i64 f64. */
static const int type_bytes[NUM_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

typedef struct gguf_value {
    uint64_t type;
    double number;
    char text[LONGEST_VALUE]; /* ended by NUL; what is longer is cut off */
} gguf_value;

/* Keys that tell a field of the config; of several for one field the first here counts. */
static const struct {
    const char *key, *field;
} keys[] = {
    {"grok.block_count", "num_layers"},
    {"grok.context_length", "sequence_len"},
    {"grok.embedding_length", "emb_size"},
    {"grok.expert_feed_forward_length", "ffn_size"},
    {"grok.feed_forward_length", "ffn_size"},
    {"grok.attention.head_count", "num_q_heads"},
    {"grok.attention.head_count_kv", "num_kv_heads"},
    {"grok.attention.key_length", "key_size"},
    {"grok.rope.dimension_count", "key_size"},
    {"grok.expert_count", "num_experts"},
    {"grok.expert_used_count", "num_selected_experts"},
    {"grok.vocab_size", "vocab_size"},
    {"grok.attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"grok.rope.freq_base", "rope_base"},
    {"grok.attention.output_scale", "attn_output_multiplier"},
    {"grok.attn_logit_softcapping", "attn_logit_softcap"},
    {"grok.embedding_scale", "embedding_multiplier_scale"},
    {"grok.logit_scale", "output_multiplier_scale"},
};
enum { NUM_KEYS = sizeof keys / sizeof *keys };

/* Things that this model does not have, told by a number other than 0. */
static const char *const foreign_keys[] = {"grok.final_logit_softcapping", "grok.attention.temperature_length",
                                           "grok.rope.scaling.factor"};
enum { NUM_FOREIGN_KEYS = sizeof foreign_keys / sizeof *foreign_keys };

typedef struct reading {
    em_foreign *foreign;
    em_cursor cursor;
    em_status *status;
    int input;
    uint64_t num_arrays, num_keys;
    double told[NUM_KEYS];
    bool is_told[NUM_KEYS];
    bool is_grok;
    int64_t alignment, data; /* data: where the numbers begin */
    int64_t split_number, split_count;
} reading;

static bool take(reading *r, int bytes, uint64_t *number)
{
    return em_cursor_number(&r->cursor, bytes, number, r->status);
}

static bool refuse(const reading *r, const char *what, const char *of)
{
    return em_fail(r->status, EM_BAD_DATA, "%s: %s%s", r->cursor.input->path, what, of);
}

/* A text: its first bytes, ended by NUL; all of it is passed over. */
static bool take_text(reading *r, char *text, int64_t room, uint64_t *length)
{
    if (!take(r, 8, length)) return false;
    int64_t kept = *length < (uint64_t)room ? (int64_t)*length : room - 1;
    text[kept] = '\0';
    return em_cursor_take(&r->cursor, kept, text, r->status) &&
           em_cursor_skip(&r->cursor, *length - (uint64_t)kept, r->status);
}

static double number_of(uint64_t type, uint64_t bits)
{
    float single;
    double real;
    uint32_t low = (uint32_t)bits;
    switch (type) {
    case 1: return (int8_t)(uint8_t)bits;
    case 3: return (int16_t)(uint16_t)bits;
    case 5: return (int32_t)low;
    case 6: memcpy(&single, &low, sizeof single); return (double)single;
    case 11: return (double)(int64_t)bits;
    case 12: memcpy(&real, &bits, sizeof real); return real;
    default: return (double)bits;
    }
}

static bool skip_list(reading *r)
{
    uint64_t type, count, bytes, length;
    if (!take(r, 4, &type) || !take(r, 8, &count)) return false;
    if (type >= NUM_GGUF_TYPES || type == GGUF_LIST) return refuse(r, "a list of values of an unknown type", "");
    if (type != GGUF_TEXT) {
        if (__builtin_mul_overflow(count, (uint64_t)type_bytes[type], &bytes)) bytes = UINT64_MAX;
        return em_cursor_skip(&r->cursor, bytes, r->status);
    }
    for (uint64_t i = 0; i < count; i++)
        if (!take(r, 8, &length) || !em_cursor_skip(&r->cursor, length, r->status)) return false;
    return true;
}

static bool take_value(reading *r, gguf_value *value)
{
    uint64_t bits, length;
    *value = (gguf_value){.type = 0};
    if (!take(r, 4, &value->type)) return false;
    if (value->type >= NUM_GGUF_TYPES) return refuse(r, "a value of an unknown type", "");
    if (value->type == GGUF_LIST) return skip_list(r);
    if (value->type == GGUF_TEXT) return take_text(r, value->text, sizeof value->text, &length);
    if (!take(r, type_bytes[value->type], &bits)) return false;
    value->number = number_of(value->type, bits);
    return true;
}

static bool read_key(reading *r)
{
    char key[LONGEST_KEY];
    uint64_t length;
    gguf_value value;
    if (!take_text(r, key, sizeof key, &length) || !take_value(r, &value)) return false;
    bool number = value.type != GGUF_TEXT && value.type != GGUF_LIST;
    if (strcmp(key, "general.architecture") == 0) {
        if (strcmp(value.text, "grok") != 0) return refuse(r, "its architecture is not grok but ", value.text);
        r->is_grok = true;
    }
    if (strcmp(key, "general.alignment") == 0) {
        if (!number || value.number < 8 || value.number > 1 << 20 || (int64_t)value.number % 8 != 0)
            return refuse(r, "general.alignment is no multiple of 8 up to a million", "");
        r->alignment = (int64_t)value.number;
    }
    if (strcmp(key, "grok.rope.scaling.type") == 0 && strcmp(value.text, "none") != 0)
        return refuse(r, "grok.rope.scaling.type is not none, but Grok-1 does not scale positions: ", value.text);
    if (strcmp(key, "split.count") == 0 && number && value.number >= 0 && value.number < 1e5)
        r->split_count = (int64_t)value.number;
    for (int i = 0; i < NUM_FOREIGN_KEYS; i++)
        if (strcmp(key, foreign_keys[i]) == 0 && (!number || value.number != 0))
            return refuse(r, "is not 0, but Grok-1 has no such thing: ", key);
    for (int i = 0; i < NUM_KEYS; i++) {
        if (strcmp(key, keys[i].key) != 0) continue;
        if (!number) return refuse(r, "is no number: ", key);
        r->told[i] = value.number;
        r->is_told[i] = true;
    }
    return true;
}

/* A value of 32 bits that is Grok-1's own number, rounded, means that number. */
static double as_published(const char *field, double value)
{
    em_config grok = em_preset_find("grok1")->config;
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *known = &em_config_fields[f];
        if (known->type != EM_FIELD_REAL || strcmp(known->name, field) != 0) continue;
        double own = *em_config_real(&grok, known);
        if ((double)(float)own == value) return own;
    }
    return value;
}

static bool read_keys(reading *r)
{
    for (uint64_t i = 0; i < r->num_keys; i++)
        if (!read_key(r)) return false;
    if (!r->is_grok) return refuse(r, "has no general.architecture = grok", "");
    for (int i = 0; i < NUM_KEYS; i++)
        if (r->is_told[i]) em_foreign_tell(r->foreign, keys[i].field, as_published(keys[i].field, r->told[i]));
    return true;
}

static bool take_number_type(reading *r, const char *name, em_number *number)
{
    uint64_t type;
    char what[200];
    if (!take(r, 4, &type)) return false;
    switch (type) {
    case 0: *number = EM_NUMBER_F32; return true;
    case 1: *number = EM_NUMBER_F16; return true;
    case 8: *number = EM_NUMBER_Q8_0; return true;
    case 30: *number = EM_NUMBER_BF16; return true;
    default:
        snprintf(what, sizeof what, "is of GGML type %llu, but F32 (0), F16 (1), Q8_0 (8) and BF16 (30) are read: ",
                 (unsigned long long)type);
        return refuse(r, what, name);
    }
}

/* One entry of the list. Where the numbers begin is known when it has been read once: then `add`. */
static bool read_array(reading *r, bool add)
{
    char name[LONGEST_KEY];
    uint64_t length, rank, dim, offset;
    em_array array = {.input = r->input};
    if (!take_text(r, name, sizeof name, &length) || !take(r, 4, &rank)) return false;
    if (length >= sizeof name || strlen(name) != length) return refuse(r, "no model has an array of this name: ", name);
    if (rank < 1 || rank > EM_MAX_AXES) return refuse(r, "has no or too many axes: ", name);
    array.rank = (int)rank;
    for (int i = array.rank - 1; i >= 0; i--) {
        if (!take(r, 8, &dim)) return false;
        array.dims[i] = dim > INT64_MAX ? -1 : (int64_t)dim;
    }
    if (!take_number_type(r, name, &array.number) || !take(r, 8, &offset)) return false;
    if (!add) return true;
    if (offset > INT64_MAX / 2 || offset % (uint64_t)r->alignment != 0)
        return refuse(r, "begins at an offset that is not aligned: ", name);
    array.offset = r->data + (int64_t)offset;
    return em_foreign_add(r->foreign, r->cursor.input, &array, name, strlen(name), r->status);
}

static bool read_arrays(reading *r)
{
    int64_t list = r->cursor.next;
    for (uint64_t i = 0; i < r->num_arrays; i++)
        if (!read_array(r, false)) return false;
    r->data = (r->cursor.next + r->alignment - 1) / r->alignment * r->alignment;
    r->cursor.next = list;
    for (uint64_t i = 0; i < r->num_arrays; i++)
        if (!read_array(r, true)) return false;
    return em_foreign_check_overlap(r->foreign, r->cursor.input, r->input, r->status);
}

static bool read_file(reading *r)
{
    char magic[4];
    uint64_t version;
    if (!em_cursor_take(&r->cursor, sizeof magic, magic, r->status)) return false;
    if (memcmp(magic, "GGUF", sizeof magic) != 0) return refuse(r, "not a GGUF file", "");
    if (!take(r, 4, &version)) return false;
    if (version != 2 && version != 3) return refuse(r, "a version of GGUF other than 2 and 3, or big-endian", "");
    if (!take(r, 8, &r->num_arrays) || !take(r, 8, &r->num_keys)) return false;
    r->input = em_foreign_add_input(r->foreign, r->cursor.input);
    return read_keys(r) && read_arrays(r);
}

/* Files of a split model after the first carry no keys of the model. */
static bool read_part(em_foreign *foreign, const char *path, bool first, int64_t *count, em_status *status)
{
    em_input input;
    if (!em_input_open(&input, path, status)) return false;
    reading *r = em_zeroed(1, sizeof *r);
    *r = (reading){.foreign = foreign, .status = status, .alignment = 32, .is_grok = !first, .cursor.input = &input};
    bool good = read_file(r);
    *count = r->split_count;
    free(r);
    em_input_close(&input);
    return good;
}

bool em_gguf_read(em_foreign *foreign, const char *path, em_status *status)
{
    int64_t count, again;
    if (!read_part(foreign, path, true, &count, status)) return false;
    if (count <= 1) return true;
    char end[40];
    int length = snprintf(end, sizeof end, "-%05d-of-%05d.gguf", 1, (int)count);
    size_t stem = strlen(path) - (size_t)length;
    if (strlen(path) <= (size_t)length || strcmp(path + stem, end) != 0)
        return em_fail(status, EM_BAD_DATA, "%s: is split over %lld files; name the first, whose name must end in %s",
                       path, (long long)count, end);
    for (int part = 2; part <= count; part++) {
        char *name = em_text("%.*s-%05d-of-%05d.gguf", (int)stem, path, part, (int)count), *copy = em_text("%s", path);
        bool good = em_path_inside(dirname(copy), name, foreign->follow_links, status) &&
                    read_part(foreign, name, false, &again, status);
        free(copy);
        free(name);
        if (!good) return false;
    }
    return true;
}
