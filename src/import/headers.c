#include "headers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(em_bytes_list *list, const void *bytes, int64_t count)
{
    if (list->length + count > list->room) {
        list->room = 2 * (list->length + count) + 4096;
        list->memory = em_grow(list->memory, list->length, list->room, 1);
    }
    memcpy(list->memory + list->length, bytes, (size_t)count);
    list->length += count;
}

static void put_number(em_bytes_list *list, int bytes, uint64_t value)
{
    for (int i = 0; i < bytes; i++) put(list, &(char){(char)(unsigned char)(value >> 8 * i)}, 1);
}

static void put_words(em_bytes_list *list, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_words(em_bytes_list *list, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(list, text, length);
}

/* ---- safetensors ---- */

static void put_entry(em_bytes_list *list, const em_array *array, int64_t begin)
{
    static const char *const dtypes[EM_NUM_NUMBERS] = {[EM_NUMBER_F32] = "F32", [EM_NUMBER_BF16] = "BF16"};
    put_words(list, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", array->name, dtypes[array->number]);
    for (int i = 0; i < array->rank; i++) put_words(list, "%s%lld", i > 0 ? "," : "", (long long)array->dims[i]);
    put_words(list, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)(begin + em_array_bytes(array)));
}

void em_safetensors_header(em_array *array, int64_t num_arrays, em_bytes_list *header)
{
    em_bytes_list text = {0};
    int64_t begin = 0;
    put_words(&text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < num_arrays; i++) {
        put_entry(&text, &array[i], begin);
        begin += em_array_bytes(&array[i]);
    }
    put_words(&text, "}");
    while (text.length % 8 != 0) put_words(&text, " "); /* so that numbers are aligned */
    put_number(header, 8, (uint64_t)text.length);
    put(header, text.memory, text.length);
    begin = header->length;
    for (int64_t i = 0; i < num_arrays; i++) {
        array[i].offset = begin;
        begin += em_array_bytes(&array[i]);
    }
    free(text.memory);
}

char *em_config_json_text(const em_config *c, bool bf16)
{
    return em_text("{\n"
                   "  \"architectures\": [\"Grok1ModelForCausalLM\"],\n  \"model_type\": \"grok-1\",\n"
                   "  \"hidden_size\": %lld,\n  \"intermediate_size\": %lld,\n  \"num_hidden_layers\": %lld,\n"
                   "  \"num_attention_heads\": %lld,\n  \"num_key_value_heads\": %lld,\n  \"head_dim\": %lld,\n"
                   "  \"num_experts\": %lld,\n  \"num_experts_per_tok\": %lld,\n  \"vocab_size\": %lld,\n"
                   "  \"max_position_embeddings\": %lld,\n  \"rms_norm_eps\": %.17g,\n  \"rope_theta\": %.17g,\n"
                   "  \"attn_output_multiplier\": %.17g,\n  \"max_attn_value\": %.17g,\n"
                   "  \"embedding_multiplier_scale\": %.17g,\n  \"output_multiplier_scale\": %.17g,\n"
                   "  \"tie_word_embeddings\": true,\n  \"torch_dtype\": \"%s\"\n}\n",
                   (long long)c->emb_size, (long long)c->ffn_size, (long long)c->num_layers, (long long)c->num_q_heads,
                   (long long)c->num_kv_heads, (long long)c->key_size, (long long)c->num_experts,
                   (long long)c->num_selected_experts, (long long)c->vocab_size, (long long)c->sequence_len,
                   c->rms_norm_eps, c->rope_base, c->attn_output_multiplier, c->attn_logit_softcap,
                   c->embedding_multiplier_scale, c->output_multiplier_scale, bf16 ? "bfloat16" : "float32");
}

/* ---- GGUF ---- */

enum { ALIGNMENT = 32, GGUF_U32 = 4, GGUF_F32 = 6, GGUF_TEXT = 8 };

static void put_text(em_bytes_list *list, const char *text)
{
    put_number(list, 8, strlen(text));
    put(list, text, (int64_t)strlen(text));
}

static void put_key(em_bytes_list *list, int64_t *count, const char *key, int type)
{
    put_text(list, key);
    put_number(list, 4, (uint64_t)type);
    ++*count;
}

static void put_keys(em_bytes_list *list, int64_t *count, const em_config *c, unsigned file_type)
{
    const struct {
        const char *key;
        int64_t value;
    } integers[] = {
        {"general.file_type", file_type},
        {"general.quantization_version", 2},
        {"grok.block_count", c->num_layers},
        {"grok.context_length", c->sequence_len},
        {"grok.embedding_length", c->emb_size},
        {"grok.feed_forward_length", c->ffn_size},
        {"grok.attention.head_count", c->num_q_heads},
        {"grok.attention.head_count_kv", c->num_kv_heads},
        {"grok.attention.key_length", c->key_size},
        {"grok.attention.value_length", c->key_size},
        {"grok.rope.dimension_count", c->key_size},
        {"grok.expert_count", c->num_experts},
        {"grok.expert_used_count", c->num_selected_experts},
        {"grok.vocab_size", c->vocab_size},
    };
    const struct {
        const char *key;
        double value;
    } reals[] = {
        {"grok.attention.layer_norm_rms_epsilon", c->rms_norm_eps},
        {"grok.rope.freq_base", c->rope_base},
        {"grok.attention.output_scale", c->attn_output_multiplier},
        {"grok.attn_logit_softcapping", c->attn_logit_softcap},
        {"grok.embedding_scale", c->embedding_multiplier_scale},
        {"grok.logit_scale", c->output_multiplier_scale},
    };
    put_key(list, count, "general.architecture", GGUF_TEXT);
    put_text(list, "grok");
    put_key(list, count, "tokenizer.ggml.model", GGUF_TEXT);
    put_text(list, "no_vocab"); /* weights only */
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        put_key(list, count, integers[i].key, GGUF_U32);
        put_number(list, 4, (uint64_t)integers[i].value);
    }
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        float value = (float)reals[i].value;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        put_key(list, count, reals[i].key, GGUF_F32);
        put_number(list, 4, bits);
    }
}

void em_gguf_header(const em_config *config, em_array *array, int64_t num_arrays, em_bytes_list *header)
{
    static const unsigned types[EM_NUM_NUMBERS] = {[EM_NUMBER_Q8_0] = 8, [EM_NUMBER_BF16] = 30};
    static const unsigned file_types[EM_NUM_NUMBERS] = {[EM_NUMBER_Q8_0] = 7, [EM_NUMBER_BF16] = 32};
    em_bytes_list keys = {0};
    int64_t count = 0, begin = 0;
    unsigned file_type = 0;
    for (int64_t i = 0; i < num_arrays; i++)
        if (array[i].number != EM_NUMBER_F32) file_type = file_types[array[i].number];
    put_keys(&keys, &count, config, file_type);
    put(header, "GGUF", 4);
    put_number(header, 4, 3);
    put_number(header, 8, (uint64_t)num_arrays);
    put_number(header, 8, (uint64_t)count);
    put(header, keys.memory, keys.length);
    for (int64_t i = 0; i < num_arrays; i++) {
        put_text(header, array[i].name);
        put_number(header, 4, (uint64_t)array[i].rank);
        for (int axis = array[i].rank - 1; axis >= 0; axis--) put_number(header, 8, (uint64_t)array[i].dims[axis]);
        put_number(header, 4, types[array[i].number]);
        put_number(header, 8, (uint64_t)begin);
        array[i].offset = begin;
        begin += (em_array_bytes(&array[i]) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    while (header->length % ALIGNMENT != 0) put_number(header, 1, 0);
    for (int64_t i = 0; i < num_arrays; i++) array[i].offset += header->length;
    free(keys.memory);
}
