/* expertmesh/tensors.h: the list of a model's tensors: names, shapes, sizes. Pure arithmetic.
 *
 * Every tensor is seen as [experts, rows, cols]; a matrix holds one neuron per row. */
#ifndef EXPERTMESH_TENSORS_H
#define EXPERTMESH_TENSORS_H

#include "expertmesh/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the numbers of a tensor are stored. */
typedef enum em_storage { EM_F32, EM_BF16, EM_INT8, EM_NUM_STORAGES } em_storage;

typedef enum em_tensor {
    EM_EMBEDDING,
    EM_FINAL_NORM,
    EM_FIRST_LAYER_TENSOR, /* those below exist once a layer */
    EM_ATTN_NORM_PRE = EM_FIRST_LAYER_TENSOR,
    EM_ATTN_NORM_POST,
    EM_FFN_NORM_PRE,
    EM_FFN_NORM_POST,
    EM_ATTN_QUERY,
    EM_ATTN_KEY,
    EM_ATTN_VALUE,
    EM_ATTN_OUTPUT,
    EM_ROUTER,
    EM_FFN_GATE,
    EM_FFN_UP,
    EM_FFN_DOWN,
    EM_FFN_UP_BIAS,
    EM_FFN_DOWN_BIAS,
    EM_NUM_TENSORS
} em_tensor;

typedef struct em_tensor_shape {
    bool present;       /* has this model such a tensor? (gate: glu only; biases: mlp only) */
    bool quantised;     /* may be stored as bf16 or int8; norms, biases and the router never are */
    int rank;           /* number of axes in a file */
    int64_t dims[3];    /* in a file */
    const char *reason; /* the fields that these numbers come from, for messages */
    int64_t experts, rows, cols;
} em_tensor_shape;

em_tensor_shape em_tensor_shape_of(const em_config *config, em_tensor tensor);

const char *em_storage_name(em_storage storage); /* "f32", "bf16", "int8" */
bool em_storage_parse(const char *name, em_storage *storage);
size_t em_storage_bytes(em_storage storage); /* of one number: 4, 2, 1 */

/* The storage that a random model has for a tensor when its user asked for `storage`: norms, biases and the router are
 * always f32; the embedding of an int8 model is bf16, for a row of it is a token's whole input. */
em_storage em_tensor_storage(em_tensor tensor, em_storage storage);

/* "/layers/003/ffn_up", "/embedding". layer is ignored where the tensor has none. */
typedef char em_tensor_path[48];
const char *em_tensor_path_of(em_tensor tensor, int64_t layer, em_tensor_path path);

/* How many layers a tensor is in: num_layers, or 1 for the embedding and the last norm; 0 where absent. */
int64_t em_tensor_layers(const em_config *config, em_tensor tensor);

typedef struct em_model_size {
    int64_t parameters; /* in all */
    int64_t
        active; /* touched for one token: S of E experts, one row of the embedding as input and all of it as output */
    int64_t bytes[EM_NUM_STORAGES]; /* of a random model, by the storage asked for, scales with it */
} em_model_size;

em_model_size em_model_size_of(const em_config *config);

#ifdef __cplusplus
}
#endif
#endif
