#include "expertmesh/config.h"

#include "json.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTEGER(name, meaning)                                      \
    {                                                               \
#name, EM_FIELD_INTEGER, offsetof(em_config, name), meaning \
    }
#define REAL(name, meaning)                                      \
    {                                                            \
#name, EM_FIELD_REAL, offsetof(em_config, name), meaning \
    }

const em_config_field em_config_fields[EM_NUM_CONFIG_FIELDS] = {
    INTEGER(emb_size, "D, width of the residual state"),
    INTEGER(num_layers, "L, layers"),
    INTEGER(num_q_heads, "H, query heads"),
    INTEGER(num_kv_heads, "K, key/value heads"),
    INTEGER(key_size, "C, width of one head"),
    INTEGER(num_experts, "E, experts in a layer"),
    INTEGER(num_selected_experts, "S, experts a token is sent to"),
    INTEGER(ffn_size, "F, neurons in an expert's first layer"),
    INTEGER(vocab_size, "V, tokens in the vocabulary"),
    INTEGER(sequence_len, "longest sequence, in tokens"),
    {"ffn_kind", EM_FIELD_FFN_KIND, offsetof(em_config, ffn_kind), "glu (gated, no bias) or mlp (biased neurons)"},
    REAL(rms_norm_eps, "added to the mean square in RMSNorm"),
    REAL(rope_base, "base of the rotary embedding"),
    REAL(attn_output_multiplier, "factor of attention logits"),
    REAL(attn_logit_softcap, "cap of attention logits"),
    REAL(embedding_multiplier_scale, "factor of token embeddings"),
    REAL(output_multiplier_scale, "factor of next-token logits"),
};

/* Scales of the released Grok-1: 1/sqrt(128), 30, sqrt(6144), 1/sqrt(3). */
#define GROK1_SCALES                                                                                                   \
    .rms_norm_eps = 1e-5, .rope_base = 10000, .attn_output_multiplier = 0.08838834764831845, .attn_logit_softcap = 30, \
    .embedding_multiplier_scale = 78.38367176906169, .output_multiplier_scale = 0.5773502691896257
/* The same rules for narrower models: 1/sqrt(key_size) and sqrt(emb_size). */
#define SMALL_SCALES(attention, embedding)                                                                     \
    .rms_norm_eps = 1e-5, .rope_base = 10000, .attn_output_multiplier = (attention), .attn_logit_softcap = 30, \
    .embedding_multiplier_scale = (embedding), .output_multiplier_scale = 0.5773502691896257

const em_preset em_presets[EM_NUM_PRESETS] = {
    {"article",
     "Grok-1's shape with 24,576 biased neurons an expert widening 6,144 and 6,144 bringing it back",
     {.emb_size = 6144,
      .num_layers = 64,
      .num_q_heads = 48,
      .num_kv_heads = 8,
      .key_size = 128,
      .num_experts = 8,
      .num_selected_experts = 2,
      .ffn_size = 24576,
      .vocab_size = 131072,
      .sequence_len = 8192,
      .ffn_kind = EM_FFN_MLP,
      GROK1_SCALES}},
    {"grok1",
     "Grok-1 as released: gated experts 32,768 wide",
     {.emb_size = 6144,
      .num_layers = 64,
      .num_q_heads = 48,
      .num_kv_heads = 8,
      .key_size = 128,
      .num_experts = 8,
      .num_selected_experts = 2,
      .ffn_size = 32768,
      .vocab_size = 131072,
      .sequence_len = 8192,
      .ffn_kind = EM_FFN_GLU,
      GROK1_SCALES}},
    {"demo",
     "fits a laptop: biased neurons, text is bytes",
     {.emb_size = 768,
      .num_layers = 4,
      .num_q_heads = 12,
      .num_kv_heads = 4,
      .key_size = 64,
      .num_experts = 8,
      .num_selected_experts = 2,
      .ffn_size = 3072,
      .vocab_size = 256,
      .sequence_len = 2048,
      .ffn_kind = EM_FFN_MLP,
      SMALL_SCALES(0.125, 27.712812921102035)}},
    {"tiny",
     "for tests and first steps: gated experts, text is bytes",
     {.emb_size = 96,
      .num_layers = 2,
      .num_q_heads = 6,
      .num_kv_heads = 2,
      .key_size = 16,
      .num_experts = 8,
      .num_selected_experts = 2,
      .ffn_size = 256,
      .vocab_size = 256,
      .sequence_len = 2048,
      .ffn_kind = EM_FFN_GLU,
      SMALL_SCALES(0.25, 9.797958971132712)}},
};

const em_preset *em_preset_find(const char *name)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++)
        if (strcmp(em_presets[i].name, name) == 0) return &em_presets[i];
    return NULL;
}

int64_t *em_config_integer(em_config *config, const em_config_field *field)
{
    return (int64_t *)(void *)((char *)config + field->offset);
}

double *em_config_real(em_config *config, const em_config_field *field)
{
    return (double *)(void *)((char *)config + field->offset);
}

const em_config_field *em_config_difference(const em_config *a, const em_config *b)
{
    static const size_t bytes[] = {[EM_FIELD_INTEGER] = sizeof(int64_t),
                                   [EM_FIELD_REAL] = sizeof(double),
                                   [EM_FIELD_FFN_KIND] = sizeof(em_ffn_kind)};
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (memcmp((const char *)a + field->offset, (const char *)b + field->offset, bytes[field->type]) != 0)
            return field;
    }
    return NULL;
}

const char *em_ffn_kind_name(em_ffn_kind kind)
{
    return kind == EM_FFN_GLU ? "glu" : "mlp";
}

bool em_ffn_kind_parse(const char *name, em_ffn_kind *kind)
{
    if (strcmp(name, "glu") == 0)
        *kind = EM_FFN_GLU;
    else if (strcmp(name, "mlp") == 0)
        *kind = EM_FFN_MLP;
    else
        return false;
    return true;
}

bool em_config_set(em_config *config, const em_config_field *field, const char *text, const char *source,
                   em_status *status)
{
    char *end = NULL;
    errno = 0;
    if (field->type == EM_FIELD_INTEGER) {
        long long value = strtoll(text, &end, 10);
        if (end == text || *end || errno)
            return em_fail(status, EM_USAGE, "%s: \"%s\" is not a whole number", source, text);
        *em_config_integer(config, field) = value;
    } else if (field->type == EM_FIELD_REAL) {
        double value = strtod(text, &end);
        if (end == text || *end || !isfinite(value))
            return em_fail(status, EM_USAGE, "%s: \"%s\" is not a finite number", source, text);
        *em_config_real(config, field) = value;
    } else if (!em_ffn_kind_parse(text, &config->ffn_kind)) {
        return em_fail(status, EM_USAGE, "%s: \"%s\" is neither glu nor mlp", source, text);
    }
    return true;
}

static bool set_from_json(em_config *config, const em_config_field *field, const cJSON *item, const char *path,
                          em_status *status)
{
    if (field->type == EM_FIELD_FFN_KIND) {
        if (cJSON_IsString(item) && em_ffn_kind_parse(item->valuestring, &config->ffn_kind)) return true;
        return em_fail(status, EM_BAD_DATA, "%s: \"%s\" must be \"glu\" or \"mlp\"", path, field->name);
    }
    if (!cJSON_IsNumber(item)) return em_fail(status, EM_BAD_DATA, "%s: \"%s\" must be a number", path, field->name);
    double value = item->valuedouble;
    if (field->type == EM_FIELD_REAL) {
        *em_config_real(config, field) = value;
        return true;
    }
    if (value != floor(value) || fabs(value) > 9e15)
        return em_fail(status, EM_BAD_DATA, "%s: \"%s\" is %g, but must be a whole number", path, field->name, value);
    *em_config_integer(config, field) = (int64_t)value;
    return true;
}

static bool overlay_json(const cJSON *object, const char *path, em_config *config, uint32_t *given, em_status *status)
{
    if (!cJSON_IsObject(object)) return em_fail(status, EM_BAD_DATA, "%s: not a JSON object of model fields", path);
    for (const cJSON *item = object->child; item; item = item->next) {
        int f = 0;
        while (f < EM_NUM_CONFIG_FIELDS && strcmp(em_config_fields[f].name, item->string) != 0) f++;
        if (f == EM_NUM_CONFIG_FIELDS)
            return em_fail(status, EM_BAD_DATA, "%s: \"%s\" is no field of a model (expertmesh run --help lists them)",
                           path, item->string);
        if (!set_from_json(config, &em_config_fields[f], item, path, status)) return false;
        *given |= UINT32_C(1) << f;
    }
    return true;
}

bool em_config_parse_json(const char *text, const char *source, em_config *config, uint32_t *given, em_status *status)
{
    cJSON *object = em_json_parse(text, source, status);
    bool good = object && overlay_json(object, source, config, given, status);
    cJSON_Delete(object);
    return good;
}

bool em_config_read_json(const char *path, em_config *config, uint32_t *given, em_status *status)
{
    char *text = em_json_load(path, status);
    bool good = text && em_config_parse_json(text, path, config, given, status);
    free(text);
    return good;
}

/* The shortest text that reads back as the same number. cJSON's own is satisfied with one that is nearly the same. */
static void add_real(cJSON *object, const char *name, double value)
{
    char text[32];
    int digits = 15;
    do snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && digits++ < 17);
    cJSON_AddRawToObject(object, name, text);
}

char *em_config_json(const em_config *config)
{
    em_config copy = *config;
    cJSON *object = cJSON_CreateObject();
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER)
            cJSON_AddNumberToObject(object, field->name, (double)*em_config_integer(&copy, field));
        else if (field->type == EM_FIELD_REAL)
            add_real(object, field->name, *em_config_real(&copy, field));
        else
            cJSON_AddStringToObject(object, field->name, em_ffn_kind_name(copy.ffn_kind));
    }
    char *printed = cJSON_PrintUnformatted(object), *text = em_text("%s", printed ? printed : "{}");
    cJSON_free(printed);
    cJSON_Delete(object);
    return text;
}

static bool check_ranges(em_config *config, const char *source, int code, em_status *status)
{
    enum { LARGEST = 1 << 30, MOST_LAYERS = 1000 }; /* rows stay an int; a layer's name has three digits */
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER) {
            long long value = *em_config_integer(config, field);
            int largest = field->offset == offsetof(em_config, num_layers) ? MOST_LAYERS : LARGEST;
            if (value < 1 || value > largest)
                return em_fail(status, code, "%s: %s is %lld, but must be from 1 to %d", source, field->name, value,
                               largest);
        } else if (field->type == EM_FIELD_REAL) {
            double value = *em_config_real(config, field);
            if (!((float)value > 0 && (float)value <= FLT_MAX))
                return em_fail(status, code, "%s: %s is %g, but must be above 0 and a float32", source, field->name,
                               value);
        }
    }
    return true;
}

/* Sizes that arithmetic can count and that a rank can list. */
static bool check_size(const em_config *c, const char *source, int code, em_status *status)
{
    enum { MOST = 1 << 16 };
    if (c->num_experts > MOST || c->num_q_heads > MOST)
        return em_fail(status, code, "%s: %s is %lld, but must be at most %d", source,
                       c->num_experts > MOST ? "num_experts" : "num_q_heads",
                       (long long)(c->num_experts > MOST ? c->num_experts : c->num_q_heads), MOST);
    if (c->num_q_heads * c->key_size > INT32_MAX)
        return em_fail(status, code, "%s: num_q_heads * key_size is %lld, but must be below %lld", source,
                       (long long)(c->num_q_heads * c->key_size), (long long)INT32_MAX + 1);
    double D = (double)c->emb_size, heads = (double)(c->num_q_heads + c->num_kv_heads) * (double)c->key_size;
    double experts = (double)c->num_experts * (double)c->ffn_size * (c->ffn_kind == EM_FFN_GLU ? 3 : 2);
    double parameters = D * ((double)c->vocab_size + (double)c->num_layers * (2 * heads + experts));
    if (parameters > 1e15)
        return em_fail(status, code, "%s: a model of this shape has %.3g parameters, but must have at most 1e15",
                       source, parameters);
    return true;
}

bool em_config_check(const em_config *config, const char *source, int code, em_status *status)
{
    em_config copy = *config;
    const em_config *c = config;
    if (!check_ranges(&copy, source, code, status)) return false;
    if (c->num_q_heads % c->num_kv_heads != 0)
        return em_fail(status, code, "%s: num_q_heads is %lld, but must be a multiple of num_kv_heads, %lld", source,
                       (long long)c->num_q_heads, (long long)c->num_kv_heads);
    if (c->key_size % 2 != 0)
        return em_fail(status, code, "%s: key_size is %lld, but must be even: RoPE turns pairs", source,
                       (long long)c->key_size);
    if (c->num_selected_experts > c->num_experts)
        return em_fail(status, code, "%s: num_selected_experts is %lld, but there are only %lld experts", source,
                       (long long)c->num_selected_experts, (long long)c->num_experts);
    return check_size(c, source, code, status);
}
