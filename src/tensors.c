#include "expertmesh/tensors.h"

#include <stdio.h>
#include <string.h>

static const char *const tensor_names[EM_NUM_TENSORS] = {
    [EM_EMBEDDING] = "embedding",
    [EM_FINAL_NORM] = "final_norm",
    [EM_ATTN_NORM_PRE] = "attn_norm_pre",
    [EM_ATTN_NORM_POST] = "attn_norm_post",
    [EM_FFN_NORM_PRE] = "ffn_norm_pre",
    [EM_FFN_NORM_POST] = "ffn_norm_post",
    [EM_ATTN_QUERY] = "attn_query",
    [EM_ATTN_KEY] = "attn_key",
    [EM_ATTN_VALUE] = "attn_value",
    [EM_ATTN_OUTPUT] = "attn_output",
    [EM_ROUTER] = "router",
    [EM_FFN_GATE] = "ffn_gate",
    [EM_FFN_UP] = "ffn_up",
    [EM_FFN_DOWN] = "ffn_down",
    [EM_FFN_UP_BIAS] = "ffn_up_bias",
    [EM_FFN_DOWN_BIAS] = "ffn_down_bias",
};

static em_tensor_shape vector(int64_t length, const char *reason)
{
    return (em_tensor_shape){
        .present = true, .rank = 1, .dims = {length}, .reason = reason, .experts = 1, .rows = 1, .cols = length};
}

static em_tensor_shape matrix(int64_t rows, int64_t cols, const char *reason)
{
    return (em_tensor_shape){.present = true,
                             .quantised = true,
                             .rank = 2,
                             .dims = {rows, cols},
                             .reason = reason,
                             .experts = 1,
                             .rows = rows,
                             .cols = cols};
}

static em_tensor_shape expert_matrix(bool present, int64_t experts, int64_t rows, int64_t cols, const char *reason)
{
    return (em_tensor_shape){.present = present,
                             .quantised = true,
                             .rank = 3,
                             .dims = {experts, rows, cols},
                             .reason = reason,
                             .experts = experts,
                             .rows = rows,
                             .cols = cols};
}

static em_tensor_shape expert_bias(bool present, int64_t experts, int64_t length, const char *reason)
{
    return (em_tensor_shape){.present = present,
                             .rank = 2,
                             .dims = {experts, length},
                             .reason = reason,
                             .experts = experts,
                             .rows = 1,
                             .cols = length};
}

em_tensor_shape em_tensor_shape_of(const em_config *c, em_tensor tensor)
{
    int64_t D = c->emb_size, E = c->num_experts, F = c->ffn_size;
    bool mlp = c->ffn_kind == EM_FFN_MLP;
    switch (tensor) {
    case EM_EMBEDDING: return matrix(c->vocab_size, D, "[vocab_size, emb_size]");
    case EM_ATTN_QUERY: return matrix(c->num_q_heads * c->key_size, D, "[num_q_heads * key_size, emb_size]");
    case EM_ATTN_KEY:
    case EM_ATTN_VALUE: return matrix(c->num_kv_heads * c->key_size, D, "[num_kv_heads * key_size, emb_size]");
    case EM_ATTN_OUTPUT: return matrix(D, c->num_q_heads * c->key_size, "[emb_size, num_q_heads * key_size]");
    case EM_FFN_GATE: return expert_matrix(!mlp, E, F, D, "[num_experts, ffn_size, emb_size]");
    case EM_FFN_UP: return expert_matrix(true, E, F, D, "[num_experts, ffn_size, emb_size]");
    case EM_FFN_DOWN: return expert_matrix(true, E, D, F, "[num_experts, emb_size, ffn_size]");
    case EM_FFN_UP_BIAS: return expert_bias(mlp, E, F, "[num_experts, ffn_size]");
    case EM_FFN_DOWN_BIAS: return expert_bias(mlp, E, D, "[num_experts, emb_size]");
    case EM_ROUTER: {
        em_tensor_shape router = matrix(E, D, "[num_experts, emb_size]");
        router.quantised = false;
        return router;
    }
    default: return vector(D, "[emb_size]");
    }
}

static const char *const storage_names[EM_NUM_STORAGES] = {"f32", "bf16", "int8"};

const char *em_storage_name(em_storage storage)
{
    return storage_names[storage];
}

bool em_storage_parse(const char *name, em_storage *storage)
{
    for (int s = 0; s < EM_NUM_STORAGES; s++)
        if (strcmp(name, storage_names[s]) == 0) {
            *storage = (em_storage)s;
            return true;
        }
    return false;
}

size_t em_storage_bytes(em_storage storage)
{
    static const size_t bytes[EM_NUM_STORAGES] = {4, 2, 1};
    return bytes[storage];
}

em_storage em_tensor_storage(em_tensor tensor, em_storage storage)
{
    switch (tensor) {
    case EM_EMBEDDING: return storage == EM_INT8 ? EM_BF16 : storage;
    case EM_ATTN_QUERY:
    case EM_ATTN_KEY:
    case EM_ATTN_VALUE:
    case EM_ATTN_OUTPUT:
    case EM_FFN_GATE:
    case EM_FFN_UP:
    case EM_FFN_DOWN: return storage;
    default: return EM_F32;
    }
}

const char *em_tensor_path_of(em_tensor tensor, int64_t layer, em_tensor_path path)
{
    if (tensor < EM_FIRST_LAYER_TENSOR)
        snprintf(path, sizeof(em_tensor_path), "/%s", tensor_names[tensor]);
    else
        snprintf(path, sizeof(em_tensor_path), "/layers/%03d/%s", (int)layer, tensor_names[tensor]);
    return path;
}

int64_t em_tensor_layers(const em_config *config, em_tensor tensor)
{
    if (!em_tensor_shape_of(config, tensor).present) return 0;
    return tensor < EM_FIRST_LAYER_TENSOR ? 1 : config->num_layers;
}

em_model_size em_model_size_of(const em_config *config)
{
    em_model_size size = {0};
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        em_tensor_shape shape = em_tensor_shape_of(config, t);
        int64_t layers = em_tensor_layers(config, t);
        int64_t in_expert = shape.rows * shape.cols, count = layers * shape.experts * in_expert;
        size.parameters += count;
        size.active += shape.experts > 1 ? layers * config->num_selected_experts * in_expert : count;
        for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
            em_storage stored = em_tensor_storage(t, s);
            size.bytes[s] += count * (int64_t)em_storage_bytes(stored);
            if (stored == EM_INT8) size.bytes[s] += layers * shape.experts * shape.rows * (int64_t)sizeof(float);
        }
    }
    return size;
}
