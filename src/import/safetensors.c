/* safetensors: eight bytes with the length of a JSON object, that object, then the numbers. The object has for each array
 * its dtype, its shape, slowest axis first, and data_offsets, begin and end counted from behind the object. Also the index of
 * a model in several files, and the config.json beside them. https://huggingface.co/docs/safetensors */
#include "json.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *dtype;
    em_number number;
} dtypes[] = {{"F32", EM_NUMBER_F32}, {"F16", EM_NUMBER_F16}, {"BF16", EM_NUMBER_BF16}};
enum { NUM_DTYPES = sizeof dtypes / sizeof *dtypes };

/* As much of a text as a message can hold. */
#define SHOWN "%.200s"

static bool read_dtype(const em_input *input, const cJSON *item, em_array *array, em_status *status)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const char *text = cJSON_IsString(dtype) ? dtype->valuestring : "nothing";
    for (int i = 0; i < NUM_DTYPES; i++)
        if (strcmp(dtypes[i].dtype, text) == 0) {
            array->number = dtypes[i].number;
            return true;
        }
    return em_fail(status, EM_BAD_DATA, "%s: " SHOWN " has dtype %.40s, but F32, BF16 and F16 are read", input->path,
                   item->string, text);
}

static bool read_shape(const em_input *input, const cJSON *item, em_array *array, em_status *status)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *size;
    bool good = cJSON_IsArray(shape);
    cJSON_ArrayForEach(size, shape)
    {
        good = good && array->rank < EM_MAX_AXES && em_json_count(size, &array->dims[array->rank]);
        if (good) array->rank++;
    }
    return good || em_fail(status, EM_BAD_DATA, "%s: the shape of " SHOWN " is not up to %d whole numbers", input->path,
                           item->string, EM_MAX_AXES);
}

static bool read_array(em_foreign *foreign, const em_input *input, int number, int64_t start, const cJSON *item,
                       em_status *status)
{
    em_array array = {.input = number};
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    int64_t begin, end;
    if (!cJSON_IsObject(item))
        return em_fail(status, EM_BAD_DATA, "%s: " SHOWN " is no JSON object", input->path, item->string);
    if (!read_dtype(input, item, &array, status) || !read_shape(input, item, &array, status)) return false;
    if (cJSON_GetArraySize(offsets) != 2 || !em_json_count(cJSON_GetArrayItem(offsets, 0), &begin) ||
        !em_json_count(cJSON_GetArrayItem(offsets, 1), &end) || end < begin)
        return em_fail(status, EM_BAD_DATA, "%s: the data_offsets of " SHOWN " are not begin and end", input->path,
                       item->string);
    array.offset = start + begin;
    if (!em_foreign_add(foreign, input, &array, item->string, strlen(item->string), status)) return false;
    em_dims_text dims;
    if (em_array_bytes(&array) == end - begin) return true;
    return em_fail(status, EM_BAD_DATA, "%s: %s of shape %s takes %lld bytes, but its data_offsets are %lld apart",
                   input->path, foreign->array[foreign->num_arrays - 1].name, em_array_dims(&array, dims),
                   (long long)em_array_bytes(&array), (long long)(end - begin));
}

static void read_header(em_foreign *foreign, const em_input *input, em_status *status)
{
    unsigned char bytes[8];
    uint64_t length = 0;
    if (!em_input_read(input, 0, sizeof bytes, bytes, status)) return;
    for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
    if (length > (uint64_t)(input->size - 8)) {
        em_fail(status, EM_BAD_DATA, "%s: its header should have %llu bytes, but the file has only %lld", input->path,
                (unsigned long long)length, (long long)input->size);
        return;
    }
    cJSON *header = em_json_read(input, 8, (int64_t)length, status);
    if (header && !cJSON_IsObject(header))
        em_fail(status, EM_BAD_DATA, "%s: its header is no JSON object", input->path);
    int number = em_foreign_add_input(foreign, input);
    for (const cJSON *item = header ? header->child : NULL; item && status->code == EM_OK; item = item->next)
        if (strcmp(item->string, "__metadata__") != 0)
            read_array(foreign, input, number, 8 + (int64_t)length, item, status);
    cJSON_Delete(header);
    if (status->code == EM_OK) em_foreign_check_overlap(foreign, input, number, status);
}

bool em_safetensors_read(em_foreign *foreign, const char *path, em_status *status)
{
    em_input input;
    if (!em_input_open(&input, path, status)) return false;
    read_header(foreign, &input, status);
    em_input_close(&input);
    return status->code == EM_OK;
}

/* ---- the files beside it ---- */

static cJSON *read_object(const char *path, em_status *status)
{
    em_input input;
    if (!em_input_open(&input, path, status)) return NULL;
    cJSON *object = em_json_read(&input, 0, input.size, status);
    if (object && !cJSON_IsObject(object)) {
        em_fail(status, EM_BAD_DATA, "%s: no JSON object", path);
        cJSON_Delete(object);
        object = NULL;
    }
    em_input_close(&input);
    return object;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A name that leads nowhere but to a file of the same folder. */
static bool plain_name(const cJSON *item)
{
    const char *name = cJSON_IsString(item) ? item->valuestring : "";
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strlen(name) <= 255;
}

bool em_safetensors_index(const char *path, char ***shard, int *num_shards, em_status *status)
{
    *shard = NULL;
    *num_shards = 0;
    cJSON *index = read_object(path, status);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    if (!index) return false;
    if (!cJSON_IsObject(map) || !map->child)
        em_fail(status, EM_BAD_DATA, "%s: has no object \"weight_map\" of tensors and files", path);
    int count = 0, all = status->code == EM_OK ? cJSON_GetArraySize(map) : 0;
    char **names = em_zeroed(all, sizeof *names);
    for (const cJSON *item = all > 0 ? map->child : NULL; item && status->code == EM_OK; item = item->next) {
        if (plain_name(item))
            names[count++] = item->valuestring;
        else
            em_fail(status, EM_BAD_DATA, "%s: " SHOWN " should be in \"" SHOWN "\", which names no file of its folder",
                    path, item->string, cJSON_IsString(item) ? item->valuestring : "");
    }
    qsort(names, (size_t)count, sizeof *names, by_name);
    if (status->code == EM_OK) *shard = em_zeroed(count, sizeof **shard);
    for (int i = 0; i < count && status->code == EM_OK; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) (*shard)[(*num_shards)++] = em_text("%s", names[i]);
    free(names);
    cJSON_Delete(index);
    return status->code == EM_OK;
}

/* Of several keys of one field the first that is there counts. */
static const struct {
    const char *key, *field;
} keys[] = {
    {"hidden_size", "emb_size"},
    {"intermediate_size", "ffn_size"},
    {"num_hidden_layers", "num_layers"},
    {"num_attention_heads", "num_q_heads"},
    {"num_key_value_heads", "num_kv_heads"},
    {"head_dim", "key_size"},
    {"num_experts", "num_experts"},
    {"num_local_experts", "num_experts"},
    {"num_experts_per_tok", "num_selected_experts"},
    {"num_selected_experts", "num_selected_experts"},
    {"vocab_size", "vocab_size"},
    {"max_position_embeddings", "sequence_len"},
    {"rms_norm_eps", "rms_norm_eps"},
    {"rope_theta", "rope_base"},
    {"attn_output_multiplier", "attn_output_multiplier"},
    {"max_attn_value", "attn_logit_softcap"},
    {"embedding_multiplier_scale", "embedding_multiplier_scale"},
    {"output_multiplier_scale", "output_multiplier_scale"},
};

bool em_config_json_read(em_foreign *foreign, const char *path, em_status *status)
{
    cJSON *object = read_object(path, status);
    if (!object) return false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status->code == EM_OK; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, keys[i].key);
        if (!item || cJSON_IsNull(item)) continue;
        if (cJSON_IsNumber(item))
            em_foreign_tell(foreign, keys[i].field, item->valuedouble);
        else
            em_fail(status, EM_BAD_DATA, "%s: \"%s\" must be a number", path, keys[i].key);
    }
    const cJSON *hidden = cJSON_GetObjectItemCaseSensitive(object, "hidden_size");
    const cJSON *heads = cJSON_GetObjectItemCaseSensitive(object, "num_attention_heads");
    int64_t width, count;
    if (em_json_count(hidden, &width) && em_json_count(heads, &count) && count > 0)
        em_foreign_tell(foreign, "key_size", (double)width / (double)count); /* unless head_dim told it */
    cJSON_Delete(object);
    return status->code == EM_OK;
}
