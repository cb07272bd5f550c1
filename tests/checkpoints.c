/* checkpoints: small checkpoints in every form that `expertmesh import` reads, and the same weights in the weights format.
 *
 *   checkpoints official|transformer|model|gguf|gguf-split|q8 OUT W.h5     write the form, and W.h5
 *   checkpoints large OUT C.json   the official form of one layer, with an embedding of 512 MiB, as holes, and its config
 *   checkpoints same A.h5 B.h5     do two files hold the same datasets below / and /layers, and the same config?
 *
 * Independent of the program: no line in common. Numbers are a function of tensor, layer and place. The shapes are no multiple
 * of anything, but for Q8_0, which wants inputs in 32s. */
#include "pickles.h"

#include <hdf5.h>
#include <math.h>
#include <stdbool.h>
#include <sys/stat.h>

typedef enum kind { F32, F16, BF16, INT8, Q8_0 } kind;

typedef struct shape {
    int D, L, H, K, C, E, S, F, V;
} shape;

static const shape odd = {.D = 46, .L = 12, .H = 6, .K = 3, .C = 10, .E = 3, .S = 2, .F = 35, .V = 53};
static const shape in_32s = {.D = 64, .L = 3, .H = 6, .K = 2, .C = 16, .E = 3, .S = 2, .F = 96, .V = 59};

enum tensor {
    EMBEDDING,
    FINAL_NORM,
    NORM_0,
    NORM_1,
    NORM_2,
    NORM_3,
    QUERY,
    KEY,
    VALUE,
    OUTPUT,
    ROUTER,
    GATE,
    UP,
    DOWN,
    TENSORS
};

static const char *const ours[TENSORS] = {
    "embedding", "final_norm", "attn_norm_pre", "attn_norm_post", "ffn_norm_pre", "ffn_norm_post", "attn_query",
    "attn_key",  "attn_value", "attn_output",   "router",         "ffn_gate",     "ffn_up",        "ffn_down"};
static const char *const transformer[TENSORS] = {"transformer.in_out_embed.weight",
                                                 "transformer.rms_norm.weight",
                                                 "transformer.decoder_layer.%d.rms_norm.weight",
                                                 "transformer.decoder_layer.%d.rms_norm_1.weight",
                                                 "transformer.decoder_layer.%d.rms_norm_2.weight",
                                                 "transformer.decoder_layer.%d.rms_norm_3.weight",
                                                 "transformer.decoder_layer.%d.multi_head_attention.query.weight",
                                                 "transformer.decoder_layer.%d.multi_head_attention.key.weight",
                                                 "transformer.decoder_layer.%d.multi_head_attention.value.weight",
                                                 "transformer.decoder_layer.%d.multi_head_attention.linear.weight",
                                                 "transformer.decoder_layer.%d.router.weight",
                                                 "transformer.decoder_layer.%d.moe.%d.linear.weight",
                                                 "transformer.decoder_layer.%d.moe.%d.linear_v.weight",
                                                 "transformer.decoder_layer.%d.moe.%d.linear_1.weight"};
static const char *const model[TENSORS] = {"model.embed_tokens.weight",
                                           "model.norm.scale",
                                           "model.layers.%d.pre_attn_norm.scale",
                                           "model.layers.%d.post_attn_norm.weight",
                                           "model.layers.%d.pre_moe_norm.scale",
                                           "model.layers.%d.post_moe_norm.weight",
                                           "model.layers.%d.attn.q_proj.weight",
                                           "model.layers.%d.attn.k_proj.weight",
                                           "model.layers.%d.attn.v_proj.weight",
                                           "model.layers.%d.attn.o_proj.weight",
                                           "model.layers.%d.moe_block.gate.weight",
                                           "model.layers.%d.moe_block.experts.%d.linear.weight",
                                           "model.layers.%d.moe_block.experts.%d.linear_v.weight",
                                           "model.layers.%d.moe_block.experts.%d.linear_1.weight"};
static const char *const gguf[TENSORS] = {"token_embd.weight",          "output_norm.weight",
                                          "blk.%d.attn_norm.weight",    "blk.%d.attn_output_norm.weight",
                                          "blk.%d.ffn_norm.weight",     "blk.%d.layer_output_norm.weight",
                                          "blk.%d.attn_q.weight",       "blk.%d.attn_k.weight",
                                          "blk.%d.attn_v.weight",       "blk.%d.attn_output.weight",
                                          "blk.%d.ffn_gate_inp.weight", "blk.%d.ffn_gate_exps.weight",
                                          "blk.%d.ffn_up_exps.weight",  "blk.%d.ffn_down_exps.weight"};

static void die(const char *what)
{
    fprintf(stderr, "checkpoints: %s\n", what);
    exit(1);
}

/* ---- numbers ---- */

/* A tensor as it is stored: [experts, rows, cols] of one type. */
typedef struct stored {
    kind type;
    int experts, rows, cols, groups;
    bool vector;
    float *value;         /* what it weighs, exactly */
    uint16_t *half;       /* F16 and BF16 */
    int8_t *q;            /* INT8 and Q8_0 */
    float *scale;         /* [experts, rows, groups] */
    uint16_t *scale_half; /* the same in bf16 (INT8) or f16 (Q8_0) */
} stored;

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

static float from_bits(uint32_t bits)
{
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* 2^power as the nearest power of two below 1/sqrt(inputs). */
static int power_for(int inputs)
{
    return -(int)ceil(log2(sqrt(inputs)));
}

static void set_number(stored *t, size_t i, uint64_t random, int power, int group)
{
    unsigned sign = (unsigned)(random >> 63), fraction = (unsigned)(random >> 20 & 1023);
    switch (t->type) {
    case F32: t->value[i] = (float)ldexp((double)(int64_t)(random >> 40) - (1 << 23), power - 23); break;
    case F16: /* normal numbers, now and then a subnormal one */
        t->half[i] = (uint16_t)(sign << 15 | (random % 16 == 0 ? 0U : (unsigned)(14 + power)) << 10 | fraction);
        t->value[i] =
            (float)((sign ? -1 : 1) * (random % 16 == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, power - 11)));
        break;
    case BF16:
        t->half[i] = (uint16_t)(sign << 15 | (unsigned)(126 + power) << 7 | (fraction & 127));
        t->value[i] = from_bits((uint32_t)t->half[i] << 16);
        break;
    default:
        t->q[i] = (int8_t)((int)(random >> 33 & 255) - 127 > 127 ? 0 : (int)(random >> 33 & 255) - 127);
        t->value[i] = (float)t->q[i] * t->scale[group];
    }
}

static stored make(enum tensor tensor, int layer, const shape *s, kind type)
{
    stored t = {.type = type,
                .experts = 1,
                .rows = 1,
                .cols = s->D,
                .groups = 1,
                .vector = tensor >= FINAL_NORM && tensor <= NORM_3};
    int q = s->H * s->C, k = s->K * s->C;
    switch (tensor) {
    case EMBEDDING: t.rows = s->V; break;
    case QUERY: t.rows = q; break;
    case KEY:
    case VALUE: t.rows = k; break;
    case OUTPUT: t.rows = s->D, t.cols = q, t.groups = 4; break;
    case ROUTER: t.rows = s->E; break;
    case GATE:
    case UP: t.experts = s->E, t.rows = s->F; break;
    case DOWN: t.experts = s->E, t.rows = s->D, t.cols = s->F, t.groups = 5; break;
    default: break;
    }
    if (type == Q8_0) t.groups = t.cols / 32;
    if (type == F32 || type == F16 || type == BF16) t.groups = 1;
    size_t rows = (size_t)t.experts * (size_t)t.rows, count = rows * (size_t)t.cols, groups = rows * (size_t)t.groups;
    t.value = malloc(count * sizeof *t.value);
    t.half = malloc(count * sizeof *t.half);
    t.q = malloc(count);
    t.scale = malloc(groups * sizeof *t.scale);
    t.scale_half = malloc(groups * sizeof *t.scale_half);
    uint64_t seed = mix((uint64_t)tensor * 1000 + (uint64_t)layer);
    int power = power_for(t.cols);
    for (size_t g = 0; g < groups; g++) { /* about 2^power / 100 */
        unsigned fraction = (unsigned)(mix(seed + g) & 127);
        if (type == Q8_0) {
            t.scale_half[g] = (uint16_t)((unsigned)(8 + power) << 10 | fraction << 3 | 5);
            t.scale[g] = (float)ldexp(1024 + (fraction << 3 | 5), power - 17);
        } else {
            t.scale_half[g] = (uint16_t)((unsigned)(120 + power) << 7 | fraction);
            t.scale[g] = from_bits((uint32_t)t.scale_half[g] << 16);
        }
    }
    for (size_t i = 0; i < count; i++) {
        size_t row = i / (size_t)t.cols,
               group = row * (size_t)t.groups + i % (size_t)t.cols / ((size_t)t.cols / (size_t)t.groups);
        set_number(&t, i, mix(seed ^ mix(i)), t.vector ? 0 : power, (int)group);
    }
    return t;
}

static void drop(stored *t)
{
    free(t->value);
    free(t->half);
    free(t->q);
    free(t->scale);
    free(t->scale_half);
}

/* ---- which type a tensor has in a form ---- */

static kind type_of(const char *form, enum tensor tensor, int layer, int expert)
{
    bool matrix = tensor == EMBEDDING || (tensor >= QUERY && tensor != ROUTER);
    static const kind floats[] = {F32, BF16, F16};
    (void)expert;
    if (strcmp(form, "official") == 0) return matrix && tensor != EMBEDDING ? INT8 : F32;
    if (strcmp(form, "q8") == 0) return matrix ? Q8_0 : F32;
    if (strncmp(form, "gguf", 4) == 0) return matrix ? floats[((int)tensor + layer) % 3] : F32;
    if (strcmp(form, "transformer") == 0) return floats[((int)tensor + layer) % 3];
    return BF16; /* model */
}

/* ---- the weights format ---- */

static void put_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0) die("an attribute cannot be written");
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text));
    put_attribute(object, name, type, text);
    H5Tclose(type);
}

static hid_t bf16_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 7, 8, 0, 7);
    H5Tset_precision(type, 16);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 127);
    return type;
}

static void put_dataset(hid_t file, const char *name, hid_t type, const stored *t, int cols, const void *data)
{
    hsize_t dims[] = {(hsize_t)t->experts, (hsize_t)t->rows, (hsize_t)cols};
    int first = strstr(name, "ffn_gate") || strstr(name, "ffn_up") || strstr(name, "ffn_down") ? 0 : t->vector ? 2 : 1;
    hid_t space = H5Screate_simple(3 - first, dims + first, NULL), links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t set = H5Dcreate2(file, name, type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    if (set < 0 || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) die(name);
    H5Dclose(set);
    H5Pclose(links);
    H5Sclose(space);
}

static void put_tensor(hid_t file, enum tensor tensor, int layer, const stored *t)
{
    char name[80], scale[90];
    hid_t bf16 = bf16_type();
    if (tensor < NORM_0)
        snprintf(name, sizeof name, "/%s", ours[tensor]);
    else
        snprintf(name, sizeof name, "/layers/%03d/%s", layer, ours[tensor]);
    snprintf(scale, sizeof scale, "%s_scale", name);
    bool narrow = t->type == BF16 && !t->vector && tensor != ROUTER;
    if (t->type == INT8 || t->type == Q8_0) {
        put_dataset(file, name, H5T_STD_I8LE, t, t->cols, t->q);
        put_dataset(file, scale, H5T_IEEE_F32LE, t, t->groups, t->scale);
    } else {
        put_dataset(file, name, narrow ? bf16 : H5T_IEEE_F32LE, t, t->cols,
                    narrow ? (void *)t->half : (void *)t->value);
    }
    H5Tclose(bf16);
}

/* Numbers that 32 bits hold, where they are not Grok-1's own. */
static const struct {
    const char *name, *hugging, *gguf;
    double value;
} reals[] = {
    {"rms_norm_eps", "rms_norm_eps", "grok.attention.layer_norm_rms_epsilon", 1e-5},
    {"rope_base", "rope_theta", "grok.rope.freq_base", 5000},
    {"attn_output_multiplier", "attn_output_multiplier", "grok.attention.output_scale", 0.25},
    {"attn_logit_softcap", "max_attn_value", "grok.attn_logit_softcapping", 20},
    {"embedding_multiplier_scale", "embedding_multiplier_scale", "grok.embedding_scale", 6.5},
    {"output_multiplier_scale", "output_multiplier_scale", "grok.logit_scale", 0.5773502691896257},
};
enum { REALS = sizeof reals / sizeof *reals, INTEGERS = 10 };

typedef struct integer {
    const char *name, *hugging, *gguf;
    int value;
} integer;

static void list_integers(const shape *s, integer list[INTEGERS])
{
    const integer all[INTEGERS] = {
        {"emb_size", "hidden_size", "grok.embedding_length", s->D},
        {"num_layers", "num_hidden_layers", "grok.block_count", s->L},
        {"num_q_heads", "num_attention_heads", "grok.attention.head_count", s->H},
        {"num_kv_heads", "num_key_value_heads", "grok.attention.head_count_kv", s->K},
        {"key_size", "head_dim", "grok.attention.key_length", s->C},
        {"num_experts", "num_experts", "grok.expert_count", s->E},
        {"num_selected_experts", "num_experts_per_tok", "grok.expert_used_count", s->S},
        {"ffn_size", "intermediate_size", "grok.feed_forward_length", s->F},
        {"vocab_size", "vocab_size", "grok.vocab_size", s->V},
        {"sequence_len", "max_position_embeddings", "grok.context_length", 512},
    };
    memcpy(list, all, sizeof all);
}

static hid_t create_weights(const char *path, const shape *s)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0) die(path);
    int64_t version = 1;
    put_text(file, "format", "expertmesh-weights");
    put_attribute(file, "format_version", H5T_STD_I64LE, &version);
    hid_t config = H5Gcreate2(file, "/config", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    integer integers[INTEGERS];
    list_integers(s, integers);
    for (int i = 0; i < INTEGERS; i++)
        put_attribute(config, integers[i].name, H5T_STD_I64LE, &(int64_t){integers[i].value});
    for (int i = 0; i < REALS; i++) put_attribute(config, reals[i].name, H5T_IEEE_F64LE, &reals[i].value);
    put_text(config, "ffn_kind", "glu");
    H5Gclose(config);
    return file;
}

/* The config as JSON: by our names, or Hugging Face's. */
static void write_json(const char *path, const shape *s, bool hugging)
{
    FILE *file = fopen(path, "w");
    if (!file) die(path);
    integer integers[INTEGERS];
    list_integers(s, integers);
    fprintf(file, hugging ? "{\"model_type\": \"grok-1\", \"architectures\": [\"Grok1ModelForCausalLM\"]"
                          : "{\"ffn_kind\": \"glu\"");
    for (int i = 0; i < INTEGERS; i++)
        fprintf(file, ", \"%s\": %d", hugging ? integers[i].hugging : integers[i].name, integers[i].value);
    for (int i = 0; i < REALS; i++)
        fprintf(file, ",\n \"%s\": %.17g", hugging ? reals[i].hugging : reals[i].name, reals[i].value);
    fprintf(file, "}\n");
    fclose(file);
}

/* ---- the official form ---- */

/* [experts, rows, cols] to [experts, cols, rows]. */
static void *transposed(const void *data, size_t size, int experts, int rows, int cols)
{
    char *out = malloc((size_t)experts * (size_t)rows * (size_t)cols * size);
    for (int e = 0; e < experts; e++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++)
                memcpy(out + (size_t)((e * cols + c) * rows + r) * size,
                       (const char *)data + (size_t)((e * rows + r) * cols + c) * size, size);
    return out;
}

static void write_pickle(const char *path, enum tensor tensor, const stored *t)
{
    bool divided = tensor >= GATE;
    pickled_array data = {.type = PICKLED_F4, .rank = 1, .dims = {t->cols}, .data = t->value}, scales;
    if (tensor == EMBEDDING) data = (pickled_array){PICKLED_F4, 2, {t->rows, t->cols}, t->value};
    if (t->vector || tensor == EMBEDDING) {
        pickle_write(path, &data, NULL);
        return;
    }
    bool quantised = t->type == INT8;
    void *turned =
        transposed(quantised ? (void *)t->q : (void *)t->value, quantised ? 1 : 4, t->experts, t->rows, t->cols);
    void *turned_scales = transposed(t->scale_half, 2, t->experts, t->rows, t->groups);
    data = (pickled_array){
        .type = quantised ? PICKLED_I1 : PICKLED_F4, .rank = 2, .dims = {t->cols, t->rows}, .data = turned};
    scales = (pickled_array){.type = PICKLED_BF16, .rank = 2, .dims = {t->groups, t->rows}, .data = turned_scales};
    if (divided) {
        data = (pickled_array){PICKLED_I1, 3, {t->experts, t->cols, t->rows}, turned};
        scales = (pickled_array){PICKLED_BF16, 3, {t->experts, t->groups, t->rows}, turned_scales};
    }
    pickle_write(path, &data, quantised ? &scales : NULL);
    free(turned);
    free(turned_scales);
}

/* Where layers 0 to 11 stand when sorted as words: 0 1 10 11 2 3 4 5 6 7 8 9. */
static int number_of_file(enum tensor tensor, int layer)
{
    static const int position[12] = {0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3};
    static const int slot[TENSORS] = {
        [GATE] = 0,  [DOWN] = 1,   [UP] = 2,     [KEY] = 3,    [OUTPUT] = 4,  [QUERY] = 5,
        [VALUE] = 6, [NORM_0] = 7, [NORM_1] = 8, [NORM_2] = 9, [NORM_3] = 10, [ROUTER] = 11};
    return tensor < NORM_0 ? (int)tensor : 2 + 12 * position[layer] + slot[tensor];
}

/* ---- lists of arrays for the other forms ---- */

typedef struct listed {
    char name[100];
    int type_code; /* the type */
    int rank, dims[3];
    const void *data;
    size_t bytes;
    void *owned;
} listed;

typedef struct array_list {
    listed *array;
    int count;
} array_list;

static const void *numbers_of(const stored *t)
{
    return t->type == F32 ? (const void *)t->value : (const void *)t->half;
}

static listed *add(array_list *list, const char *name, kind type, int rank, const int *dims, const void *data)
{
    static const int size[] = {4, 2, 2};
    list->array = realloc(list->array, (size_t)(list->count + 1) * sizeof *list->array);
    listed *a = &list->array[list->count++];
    *a = (listed){.type_code = (int)type, .rank = rank, .data = data, .bytes = type < INT8 ? (size_t)size[type] : 0};
    snprintf(a->name, sizeof a->name, "%s", name);
    for (int i = 0; i < rank; i++) {
        a->dims[i] = dims[i];
        a->bytes *= (size_t)dims[i];
    }
    return a;
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

/* Each expert's matrix an array, in nn.Linear's [outputs, inputs]. */
static void list_by_experts(array_list *list, const char *const *names, enum tensor tensor, int layer, const stored *t)
{
    size_t size = t->type == F32 ? 4 : 2, matrix = (size_t)t->rows * (size_t)t->cols * size;
    for (int e = 0; e < t->experts; e++) {
        char name[100];
        snprintf(name, sizeof name, names[tensor], layer, e);
        add(list, name, t->type, t->vector ? 1 : 2, t->vector ? (int[]){t->cols} : (int[]){t->rows, t->cols},
            (const char *)numbers_of(t) + (size_t)e * matrix);
    }
}

static void list_whole(array_list *list, enum tensor tensor, int layer, const stored *t)
{
    char name[100];
    snprintf(name, sizeof name, gguf[tensor], layer);
    int dims[] = {t->experts, t->rows, t->cols}, first = tensor >= GATE ? 0 : t->vector ? 2 : 1;
    listed *a = add(list, name, t->type, 3 - first, dims + first, numbers_of(t));
    if (t->type != Q8_0) return;
    size_t blocks = (size_t)(t->experts * t->rows * t->groups);
    unsigned char *bytes = malloc(blocks * 34);
    for (size_t b = 0; b < blocks; b++) {
        bytes[b * 34] = (unsigned char)t->scale_half[b];
        bytes[b * 34 + 1] = (unsigned char)(t->scale_half[b] >> 8);
        memcpy(bytes + b * 34 + 2, t->q + b * 32, 32);
    }
    a->data = a->owned = bytes;
    a->bytes = blocks * 34;
}

static void number(FILE *file, int bytes, uint64_t value)
{
    for (int i = 0; i < bytes; i++) fputc((int)(value >> 8 * i & 255), file);
}

/* ---- safetensors ---- */

static void write_safetensors(const char *path, const array_list *list)
{
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    char *header = malloc(200 * (size_t)(list->count + 1));
    size_t length = (size_t)sprintf(header, "{\"__metadata__\": {\"format\": \"pt\"}"), offset = 0;
    for (int i = 0; i < list->count; i++) {
        const listed *a = &list->array[i];
        length +=
            (size_t)sprintf(header + length, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", a->name, dtypes[a->type_code]);
        for (int d = 0; d < a->rank; d++) length += (size_t)sprintf(header + length, "%s%d", d ? "," : "", a->dims[d]);
        length += (size_t)sprintf(header + length, "],\"data_offsets\":[%zu,%zu]}", offset, offset + a->bytes);
        offset += a->bytes;
    }
    length += (size_t)sprintf(header + length, "}");
    FILE *file = fopen(path, "wb");
    if (!file) die(path);
    number(file, 8, length);
    fwrite(header, 1, length, file);
    for (int i = 0; i < list->count; i++) fwrite(list->array[i].data, 1, list->array[i].bytes, file);
    fclose(file);
    free(header);
}

/* Every fifth array to one of five files, and an index. */
static void write_shards(const char *folder, const array_list *list)
{
    enum { SHARDS = 5 };
    char path[400];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    FILE *index = fopen(path, "w");
    if (!index) die(path);
    fprintf(index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (int s = 0; s < SHARDS; s++) {
        array_list part = {0};
        for (int i = s; i < list->count; i += SHARDS) {
            part.array = realloc(part.array, (size_t)(part.count + 1) * sizeof *part.array);
            part.array[part.count++] = list->array[i];
            fprintf(index, "%s\"%s\": \"model-%05d-of-%05d.safetensors\"", s || i > s ? ",\n" : "", list->array[i].name,
                    s + 1, SHARDS);
        }
        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", folder, s + 1, SHARDS);
        write_safetensors(path, &part);
        free(part.array);
    }
    fprintf(index, "}}\n");
    fclose(index);
}

/* ---- GGUF ---- */

static void text(FILE *file, const char *words)
{
    number(file, 8, strlen(words));
    fwrite(words, 1, strlen(words), file);
}

static void write_keys(FILE *file, const shape *s)
{
    integer integers[INTEGERS];
    list_integers(s, integers);
    text(file, "general.architecture");
    number(file, 4, 8);
    text(file, "grok");
    text(file, "general.alignment");
    number(file, 4, 4);
    number(file, 4, 64);
    text(file, "tokenizer.ggml.tokens"); /* lists are passed over */
    number(file, 4, 9);
    number(file, 4, 8);
    number(file, 8, 3);
    for (int i = 0; i < 3; i++) text(file, "token");
    for (int i = 0; i < INTEGERS; i++) {
        text(file, integers[i].gguf);
        number(file, 4, 4);
        number(file, 4, (uint64_t)integers[i].value);
    }
    for (int i = 0; i < REALS; i++) {
        float value = (float)reals[i].value;
        text(file, reals[i].gguf);
        number(file, 4, 6);
        fwrite(&value, 1, 4, file);
    }
}

static void write_gguf(const char *path, const shape *s, const array_list *list, int first, int past, int part,
                       int parts)
{
    static const unsigned codes[] = {0, 1, 30, 0, 8};
    FILE *file = fopen(path, "wb");
    size_t offset = 0;
    if (!file) die(path);
    fwrite("GGUF", 1, 4, file);
    number(file, 4, 3);
    number(file, 8, (uint64_t)(past - first));
    number(file, 8, (part == 0 ? 3U + INTEGERS + REALS : 0U) + (parts > 1));
    if (part == 0) write_keys(file, s);
    if (parts > 1) {
        text(file, "split.count");
        number(file, 4, 2);
        number(file, 2, (uint64_t)parts);
    }
    size_t align = part == 0 ? 64 : 32;
    for (int i = first; i < past; i++) {
        const listed *a = &list->array[i];
        text(file, a->name);
        number(file, 4, (uint64_t)a->rank);
        for (int d = a->rank - 1; d >= 0; d--) number(file, 8, (uint64_t)a->dims[d]);
        number(file, 4, codes[a->type_code]);
        number(file, 8, offset);
        offset += (a->bytes + align - 1) / align * align;
    }
    for (int i = first; i < past; i++) {
        while (ftell(file) % (long)align != 0) fputc(0, file);
        fwrite(list->array[i].data, 1, list->array[i].bytes, file);
    }
    fclose(file);
}

/* ---- a large one, of zeros ---- */

static void write_hole(const char *folder, int number, pickled_array data, const pickled_array *scales)
{
    char path[400];
    snprintf(path, sizeof path, "%s/tensor%05d_000", folder, number);
    pickle_write(path, &data, scales);
}

static void write_large(const char *out, const char *config)
{
    const shape s = {.D = 512, .L = 1, .H = 4, .K = 2, .C = 128, .E = 2, .S = 1, .F = 1 << 17, .V = 1 << 18};
    int q = s.H * s.C, k = s.K * s.C;
    const pickled_array norm = {PICKLED_F4, 1, {s.D}, NULL};
    const int64_t matrix[][2] = {{s.D, k}, {q, s.D}, {s.D, q}, {s.D, k}};
    const pickled_array wide = {PICKLED_BF16, 3, {s.E, 1, s.F}, NULL}, narrow = {PICKLED_BF16, 3, {s.E, 8, s.D}, NULL};
    mkdir(out, 0777);
    write_json(config, &s, false);
    write_hole(out, 0, (pickled_array){PICKLED_F4, 2, {s.V, s.D}, NULL}, NULL);
    write_hole(out, 1, norm, NULL);
    for (int slot = 0; slot < 3; slot++)
        write_hole(out, 2 + slot,
                   (pickled_array){PICKLED_I1, 3, {s.E, slot == 1 ? s.F : s.D, slot == 1 ? s.D : s.F}, NULL},
                   slot == 1 ? &narrow : &wide);
    for (int slot = 3; slot < 7; slot++) {
        const int64_t *dims = matrix[slot - 3];
        const pickled_array scales = {PICKLED_BF16, 2, {slot == 4 ? 8 : 1, dims[1]}, NULL};
        write_hole(out, 2 + slot, (pickled_array){PICKLED_I1, 2, {dims[0], dims[1]}, NULL}, &scales);
    }
    for (int slot = 7; slot < 11; slot++) write_hole(out, 2 + slot, norm, NULL);
    write_hole(out, 13, (pickled_array){PICKLED_F4, 2, {s.D, s.E}, NULL}, NULL);
}

/* ---- all of it ---- */

static void write_form(const char *form, const char *out, const char *weights)
{
    const shape *s = strcmp(form, "q8") == 0 ? &in_32s : &odd;
    hid_t file = create_weights(weights, s);
    array_list list = {0};
    stored *all = calloc((size_t)(TENSORS * s->L), sizeof *all);
    char path[400];
    bool official = strcmp(form, "official") == 0,
         by_experts = strcmp(form, "transformer") == 0 || strcmp(form, "model") == 0;
    if (official || by_experts) mkdir(out, 0777);
    for (int layer = 0; layer < s->L; layer++)
        for (enum tensor t = layer == 0 ? EMBEDDING : NORM_0; t < TENSORS; t++) {
            stored *one = &all[layer * TENSORS + (int)t];
            *one = make(t, layer, s, type_of(form, t, layer, 0));
            put_tensor(file, t, layer, one);
            snprintf(path, sizeof path, "%s/tensor%05d_000", out, number_of_file(t, layer));
            if (official)
                write_pickle(path, t, one);
            else if (by_experts)
                list_by_experts(&list, strcmp(form, "model") == 0 ? model : transformer, t, layer, one);
            else
                list_whole(&list, t, layer, one);
        }
    H5Fclose(file);
    snprintf(path, sizeof path, "%s/%s", out, strcmp(form, "transformer") == 0 ? "model.safetensors" : "config.json");
    if (official) {
        snprintf(path, sizeof path, "%s.json", out);
        write_json(path, s, false);
    } else if (strcmp(form, "transformer") == 0) {
        write_safetensors(path, &list);
        snprintf(path, sizeof path, "%s/config.json", out);
        write_json(path, s, true);
    } else if (strcmp(form, "model") == 0) {
        write_json(path, s, true);
        add(&list, "lm_head.weight", BF16, 2, (int[]){s->V, s->D}, all[EMBEDDING].half);
        write_shards(out, &list);
    } else if (strcmp(form, "gguf-split") == 0) {
        for (int part = 0; part < 3; part++) {
            snprintf(path, sizeof path, "%s-%05d-of-00003.gguf", out, part + 1);
            write_gguf(path, s, &list, list.count * part / 3, list.count * (part + 1) / 3, part, 3);
        }
    } else {
        write_gguf(out, s, &list, 0, list.count, 0, 1);
    }
    for (int i = 0; i < list.count; i++) free(list.array[i].owned);
    for (int i = 0; i < TENSORS * s->L; i++) drop(&all[i]);
    free(list.array);
    free(all);
}

/* ---- comparing ---- */

typedef struct pair {
    hid_t a, b;
    int datasets, differing;
} pair;

static herr_t compare_dataset(hid_t root, const char *name, const H5O_info_t *info, void *context)
{
    pair *p = context;
    (void)root;
    if (info->type != H5O_TYPE_DATASET || strncmp(name, "crc32", 5) == 0) return 0;
    hid_t a = H5Dopen2(p->a, name, H5P_DEFAULT),
          b = H5Lexists(p->b, name, H5P_DEFAULT) > 0 ? H5Dopen2(p->b, name, H5P_DEFAULT) : -1;
    p->datasets++;
    bool same = b >= 0;
    if (same) {
        hid_t types[] = {H5Dget_type(a), H5Dget_type(b)}, spaces[] = {H5Dget_space(a), H5Dget_space(b)};
        same = H5Tequal(types[0], types[1]) > 0 && H5Sextent_equal(spaces[0], spaces[1]) > 0;
        size_t bytes = H5Tget_size(types[0]) * (size_t)H5Sget_simple_extent_npoints(spaces[0]);
        char *x = malloc(bytes), *y = malloc(bytes);
        same = same && H5Dread(a, types[0], H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0 &&
               H5Dread(b, types[0], H5S_ALL, H5S_ALL, H5P_DEFAULT, y) >= 0 && memcmp(x, y, bytes) == 0;
        free(x);
        free(y);
        for (int i = 0; i < 2; i++) {
            H5Tclose(types[i]);
            H5Sclose(spaces[i]);
        }
        H5Dclose(b);
    }
    H5Dclose(a);
    if (!same) printf("%s differs, or is not there\n", name);
    p->differing += !same;
    return 0;
}

static bool same_config(const pair *p)
{
    integer integers[INTEGERS];
    list_integers(&odd, integers);
    bool same = true;
    for (int i = 0; i < INTEGERS + REALS; i++) {
        const char *name = i < INTEGERS ? integers[i].name : reals[i - INTEGERS].name;
        double x = 0, y = 1;
        hid_t a = H5Aopen_by_name(p->a, "/config", name, H5P_DEFAULT, H5P_DEFAULT);
        hid_t b = H5Aopen_by_name(p->b, "/config", name, H5P_DEFAULT, H5P_DEFAULT);
        if (a < 0 || b < 0 || H5Aread(a, H5T_NATIVE_DOUBLE, &x) < 0 || H5Aread(b, H5T_NATIVE_DOUBLE, &y) < 0 ||
            x != y) {
            printf("%s is %.17g in the first, %.17g in the second\n", name, x, y);
            same = false;
        }
        H5Aclose(a);
        H5Aclose(b);
    }
    return same;
}

static int compare(const char *first, const char *second)
{
    pair p = {H5Fopen(first, H5F_ACC_RDONLY, H5P_DEFAULT), H5Fopen(second, H5F_ACC_RDONLY, H5P_DEFAULT), 0, 0};
    if (p.a < 0 || p.b < 0) die("a file cannot be opened");
    H5Ovisit(p.a, H5_INDEX_NAME, H5_ITER_INC, compare_dataset, &p);
    bool same = same_config(&p) && p.differing == 0 && p.datasets > 0;
    printf("%d datasets, %d differ\n", p.datasets, p.differing);
    H5Fclose(p.a);
    H5Fclose(p.b);
    return same ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) die("usage: checkpoints FORM OUT W.h5, or: checkpoints same A.h5 B.h5");
    if (strcmp(argv[1], "same") == 0) return compare(argv[2], argv[3]);
    if (strcmp(argv[1], "large") == 0)
        write_large(argv[2], argv[3]);
    else
        write_form(argv[1], argv[2], argv[3]);
    return 0;
}
