/* What others call the model's tensors. */
#include "foreign.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* In a pattern '#' stands for the layer, '@' for the expert. The first name of a place within a naming is the one that is
 * written. */
static const struct {
    em_naming naming;
    em_role role;
    em_tensor tensor;
    const char *pattern;
} names[] = {
#define NAME(naming, tensor, pattern)                          \
    {                                                          \
        EM_NAMING_##naming, EM_ROLE_DATA, EM_##tensor, pattern \
    }
    NAME(TRANSFORMER, EMBEDDING, "transformer.in_out_embed.weight"),
    NAME(TRANSFORMER, FINAL_NORM, "transformer.rms_norm.weight"),
    NAME(TRANSFORMER, ATTN_NORM_PRE, "transformer.decoder_layer.#.rms_norm.weight"),
    NAME(TRANSFORMER, ATTN_NORM_POST, "transformer.decoder_layer.#.rms_norm_1.weight"),
    NAME(TRANSFORMER, FFN_NORM_PRE, "transformer.decoder_layer.#.rms_norm_2.weight"),
    NAME(TRANSFORMER, FFN_NORM_POST, "transformer.decoder_layer.#.rms_norm_3.weight"),
    NAME(TRANSFORMER, ATTN_QUERY, "transformer.decoder_layer.#.multi_head_attention.query.weight"),
    NAME(TRANSFORMER, ATTN_KEY, "transformer.decoder_layer.#.multi_head_attention.key.weight"),
    NAME(TRANSFORMER, ATTN_VALUE, "transformer.decoder_layer.#.multi_head_attention.value.weight"),
    NAME(TRANSFORMER, ATTN_OUTPUT, "transformer.decoder_layer.#.multi_head_attention.linear.weight"),
    NAME(TRANSFORMER, ROUTER, "transformer.decoder_layer.#.router.weight"),
    NAME(TRANSFORMER, FFN_GATE, "transformer.decoder_layer.#.moe.@.linear.weight"),
    NAME(TRANSFORMER, FFN_UP, "transformer.decoder_layer.#.moe.@.linear_v.weight"),
    NAME(TRANSFORMER, FFN_DOWN, "transformer.decoder_layer.#.moe.@.linear_1.weight"),

    NAME(MODEL, EMBEDDING, "model.embed_tokens.weight"),
    NAME(MODEL, FINAL_NORM, "model.norm.scale"),
    NAME(MODEL, FINAL_NORM, "model.norm.weight"),
    NAME(MODEL, ATTN_NORM_PRE, "model.layers.#.pre_attn_norm.scale"),
    NAME(MODEL, ATTN_NORM_PRE, "model.layers.#.pre_attn_norm.weight"),
    NAME(MODEL, ATTN_NORM_POST, "model.layers.#.post_attn_norm.scale"),
    NAME(MODEL, ATTN_NORM_POST, "model.layers.#.post_attn_norm.weight"),
    NAME(MODEL, FFN_NORM_PRE, "model.layers.#.pre_moe_norm.scale"),
    NAME(MODEL, FFN_NORM_PRE, "model.layers.#.pre_moe_norm.weight"),
    NAME(MODEL, FFN_NORM_POST, "model.layers.#.post_moe_norm.scale"),
    NAME(MODEL, FFN_NORM_POST, "model.layers.#.post_moe_norm.weight"),
    NAME(MODEL, ATTN_QUERY, "model.layers.#.attn.q_proj.weight"),
    NAME(MODEL, ATTN_KEY, "model.layers.#.attn.k_proj.weight"),
    NAME(MODEL, ATTN_VALUE, "model.layers.#.attn.v_proj.weight"),
    NAME(MODEL, ATTN_OUTPUT, "model.layers.#.attn.o_proj.weight"),
    NAME(MODEL, ROUTER, "model.layers.#.moe_block.gate.weight"),
    NAME(MODEL, FFN_GATE, "model.layers.#.moe_block.experts.@.linear.weight"),
    NAME(MODEL, FFN_UP, "model.layers.#.moe_block.experts.@.linear_v.weight"),
    NAME(MODEL, FFN_DOWN, "model.layers.#.moe_block.experts.@.linear_1.weight"),

    NAME(GGUF, EMBEDDING, "token_embd.weight"),
    NAME(GGUF, FINAL_NORM, "output_norm.weight"),
    NAME(GGUF, ATTN_NORM_PRE, "blk.#.attn_norm.weight"),
    NAME(GGUF, ATTN_NORM_POST, "blk.#.attn_output_norm.weight"),
    NAME(GGUF, FFN_NORM_PRE, "blk.#.ffn_norm.weight"),
    NAME(GGUF, FFN_NORM_POST, "blk.#.layer_output_norm.weight"),
    NAME(GGUF, FFN_NORM_POST, "blk.#.post_ffw_norm.weight"),
    NAME(GGUF, ATTN_QUERY, "blk.#.attn_q.weight"),
    NAME(GGUF, ATTN_KEY, "blk.#.attn_k.weight"),
    NAME(GGUF, ATTN_VALUE, "blk.#.attn_v.weight"),
    NAME(GGUF, ATTN_OUTPUT, "blk.#.attn_output.weight"),
    NAME(GGUF, ROUTER, "blk.#.ffn_gate_inp.weight"),
    NAME(GGUF, FFN_GATE, "blk.#.ffn_gate_exps.weight"),
    NAME(GGUF, FFN_UP, "blk.#.ffn_up_exps.weight"),
    NAME(GGUF, FFN_DOWN, "blk.#.ffn_down_exps.weight"),
#undef NAME
    {EM_NAMING_MODEL, EM_ROLE_HEAD, EM_EMBEDDING, "lm_head.weight"},
    {EM_NAMING_GGUF, EM_ROLE_HEAD, EM_EMBEDDING, "output.weight"},
    {EM_NAMING_TRANSFORMER, EM_ROLE_NOTHING, EM_ATTN_QUERY,
     "transformer.decoder_layer.#.multi_head_attention.rotary_emb.inv_freq"},
    {EM_NAMING_MODEL, EM_ROLE_NOTHING, EM_ATTN_QUERY, "model.layers.#.attn.rotary_emb.inv_freq"},
};
enum { NUM_NAMES = sizeof names / sizeof *names };

/* A number as programs write it, at most five digits: *next behind it, or -1. */
static int64_t read_number(const char **next)
{
    int64_t number = 0;
    int digits = 0;
    for (; isdigit((unsigned char)**next); (*next)++, digits++) {
        if (digits == 5 || (digits == 1 && number == 0)) return -1;
        number = number * 10 + (**next - '0');
    }
    return digits > 0 ? number : -1;
}

static bool matches(const char *pattern, const char *name, int64_t *layer, int64_t *expert)
{
    *layer = 0;
    *expert = EM_ALL_EXPERTS;
    for (; *pattern; pattern++) {
        if (*pattern == '#' || *pattern == '@') {
            int64_t number = read_number(&name);
            if (number < 0) return false;
            *(*pattern == '#' ? layer : expert) = number;
        } else if (*name++ != *pattern) {
            return false;
        }
    }
    return *name == '\0';
}

em_place em_name_place(const char *name)
{
    em_place place = {.role = EM_ROLE_UNKNOWN};
    for (int i = 0; i < NUM_NAMES; i++) {
        if (!matches(names[i].pattern, name, &place.layer, &place.expert)) continue;
        place.role = names[i].role;
        place.tensor = names[i].tensor;
        return place;
    }
    return (em_place){.role = EM_ROLE_UNKNOWN};
}

const char *em_place_name(em_naming naming, const em_place *place, em_name buffer)
{
    int i = 0;
    while (i < NUM_NAMES &&
           (names[i].naming != naming || names[i].role != place->role || names[i].tensor != place->tensor))
        i++;
    if (i == NUM_NAMES) em_die("tensor %d has no name in naming %d", (int)place->tensor, (int)naming);
    size_t length = 0;
    for (const char *c = names[i].pattern; *c; c++) {
        if (*c == '#' || *c == '@')
            length += (size_t)snprintf(buffer + length, sizeof(em_name) - length, "%lld",
                                       (long long)(*c == '#' ? place->layer : place->expert));
        else
            buffer[length++] = *c;
    }
    buffer[length] = '\0';
    return buffer;
}
