/* expertmesh/config.h: the shape of a model, where it may come from, and what is wrong with it.
 *
 * One table of fields serves the options of the program, JSON files, HDF5 attributes and everything printed. No MPI. */
#ifndef EXPERTMESH_CONFIG_H
#define EXPERTMESH_CONFIG_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum em_ffn_kind {
    EM_FFN_GLU, /* Grok-1 as released: down(gelu(gate x) * up x), no bias */
    EM_FFN_MLP  /* two layers of biased neurons: down gelu(up x + up_bias) + down_bias */
} em_ffn_kind;

/* Grok-1's own names. The letters are those of the README's table of shapes. */
typedef struct em_config {
    int64_t emb_size;             /* D */
    int64_t num_layers;           /* L */
    int64_t num_q_heads;          /* H */
    int64_t num_kv_heads;         /* K, divides H */
    int64_t key_size;             /* C, even */
    int64_t num_experts;          /* E */
    int64_t num_selected_experts; /* S, at most E */
    int64_t ffn_size;             /* F, neurons in an expert's first layer */
    int64_t vocab_size;           /* V */
    int64_t sequence_len;         /* longest prompt */
    em_ffn_kind ffn_kind;
    double rms_norm_eps;
    double rope_base;
    double attn_output_multiplier;     /* scales attention logits */
    double attn_logit_softcap;         /* logits become cap * tanh(logit / cap) */
    double embedding_multiplier_scale; /* scales the embedding of a token */
    double output_multiplier_scale;    /* scales the next-token logits */
} em_config;

typedef enum em_field_type { EM_FIELD_INTEGER, EM_FIELD_REAL, EM_FIELD_FFN_KIND } em_field_type;

typedef struct em_config_field {
    const char *name; /* as in files; an option is spelt with '-' for '_' */
    em_field_type type;
    size_t offset; /* in em_config */
    const char *meaning;
} em_config_field;

enum { EM_NUM_CONFIG_FIELDS = 17 };
extern const em_config_field em_config_fields[EM_NUM_CONFIG_FIELDS];

typedef struct em_preset {
    const char *name, *meaning;
    em_config config;
} em_preset;

enum { EM_NUM_PRESETS = 4 };
extern const em_preset em_presets[EM_NUM_PRESETS];

/* NULL where there is no such preset. */
const em_preset *em_preset_find(const char *name);

/* The address of a field, and its value. An integer field answers to the first, a real one to the second. */
int64_t *em_config_integer(em_config *config, const em_config_field *field);
double *em_config_real(em_config *config, const em_config_field *field);
const char *em_ffn_kind_name(em_ffn_kind kind);
bool em_ffn_kind_parse(const char *name, em_ffn_kind *kind);

/* Set one field from the text of an option. source ("--ffn-size") names it in the message. */
bool em_config_set(em_config *config, const em_config_field *field, const char *text, const char *source,
                   em_status *status);

/* Overlay config with the fields of a JSON object in a file. given (a bit a field of the table) gains what was set. */
bool em_config_read_json(const char *path, em_config *config, uint32_t *given, em_status *status);

/* The same of a text; source opens the message. */
bool em_config_parse_json(const char *text, const char *source, em_config *config, uint32_t *given, em_status *status);

/* The first field in which two differ, in any bit; NULL: in none. */
const em_config_field *em_config_difference(const em_config *a, const em_config *b);

/* The config as a JSON object on one line. Freed with free. */
char *em_config_json(const em_config *config);

/* Whether this is a model: every field in range and consistent. source (a file or "options")
 * opens the message; code is EM_USAGE or EM_BAD_DATA, after where the numbers came from. */
bool em_config_check(const em_config *config, const char *source, int code, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
