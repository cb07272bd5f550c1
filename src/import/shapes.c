/* Places of arrays, the config that their shapes complete, and whether all is there and fits. */
#include "foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- places ---- */

static int compare_places(const em_place *a, const em_place *b)
{
    const int64_t step[] = {(int64_t)a->role - (int64_t)b->role, (int64_t)a->tensor - (int64_t)b->tensor,
                            a->layer - b->layer, a->expert - b->expert};
    for (size_t i = 0; i < sizeof step / sizeof *step; i++)
        if (step[i] != 0) return step[i] < 0 ? -1 : 1;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    return compare_places(&((const em_array *)a)->place, &((const em_array *)b)->place);
}

static const em_array *find_exactly(const em_foreign *foreign, em_place place)
{
    em_array key = {.place = place};
    return bsearch(&key, foreign->array, (size_t)foreign->num_arrays, sizeof key, by_place);
}

const em_array *em_foreign_find(const em_foreign *foreign, em_role role, em_tensor tensor, int64_t layer,
                                int64_t expert)
{
    const em_array *whole = find_exactly(foreign, (em_place){role, tensor, layer, EM_ALL_EXPERTS});
    return whole ? whole : find_exactly(foreign, (em_place){role, tensor, layer, expert});
}

static bool place_arrays(em_foreign *foreign, em_status *status)
{
    for (int64_t i = 0; i < foreign->num_arrays; i++) {
        em_array *array = &foreign->array[i];
        if (array->place.role == EM_ROLE_UNKNOWN) array->place = em_name_place(array->name);
        if (array->place.role == EM_ROLE_UNKNOWN)
            return em_fail(status, EM_BAD_DATA, "%s: %s is no tensor of such a model", foreign->input[array->input],
                           array->name);
    }
    qsort(foreign->array, (size_t)foreign->num_arrays, sizeof *foreign->array, by_place);
    for (int64_t i = 1; i < foreign->num_arrays; i++) {
        const em_array *a = &foreign->array[i - 1], *b = &foreign->array[i];
        bool same = compare_places(&a->place, &b->place) == 0, ignored = a->place.role == EM_ROLE_NOTHING;
        bool twice = a->place.expert == EM_ALL_EXPERTS && a->place.role == b->place.role &&
                     a->place.tensor == b->place.tensor && a->place.layer == b->place.layer;
        if ((same || twice) && !ignored)
            return em_fail(status, EM_BAD_DATA, "%s: %s and %s (in %s) are the same tensor twice",
                           foreign->input[a->input], a->name, b->name, foreign->input[b->input]);
    }
    return true;
}

/* ---- the config ---- */

/* An axis of a tensor's array in our order, [experts, outputs, inputs]; 0 where the array is not there. axis counts from the
 * last: 0 inputs, 1 outputs, 2 experts. */
static int64_t axis_of(const em_foreign *foreign, em_tensor tensor, int axis)
{
    for (int64_t i = 0; i < foreign->num_arrays; i++) { /* of any layer */
        const em_array *array = &foreign->array[i];
        if (array->place.role != EM_ROLE_DATA || array->place.tensor != tensor) continue;
        int from_last = array->transposed && axis < 2 ? 1 - axis : axis;
        return from_last < array->rank ? array->dims[array->rank - 1 - from_last] : 0;
    }
    return 0;
}

static int64_t past_last(const em_foreign *foreign, bool layers)
{
    int64_t most = 0;
    for (int64_t i = 0; i < foreign->num_arrays; i++) {
        const em_place *place = &foreign->array[i].place;
        int64_t number = layers ? place->layer : place->expert;
        if (place->role == EM_ROLE_DATA && number >= most) most = number + 1;
    }
    return most;
}

static void tell_size(em_foreign *foreign, const char *field, int64_t size)
{
    if (size > 0) em_foreign_tell(foreign, field, (double)size);
}

/* Where nothing tells a number: what the shapes say, then what Grok-1 has. */
static void complete_config(em_foreign *foreign)
{
    em_config grok = em_preset_find("grok1")->config;
    tell_size(foreign, "emb_size", axis_of(foreign, EM_EMBEDDING, 0));
    tell_size(foreign, "vocab_size", axis_of(foreign, EM_EMBEDDING, 1));
    tell_size(foreign, "ffn_size", axis_of(foreign, EM_FFN_GATE, 1));
    tell_size(foreign, "num_experts", axis_of(foreign, EM_ROUTER, 1));
    tell_size(foreign, "num_experts", past_last(foreign, false));
    tell_size(foreign, "num_layers", past_last(foreign, true));
    int64_t queries = axis_of(foreign, EM_ATTN_QUERY, 1), keys = axis_of(foreign, EM_ATTN_KEY, 1);
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        if (strcmp(em_config_fields[f].name, "num_q_heads") == 0 && (foreign->given >> f & 1) &&
            foreign->config.num_q_heads > 0)
            tell_size(foreign, "key_size", queries / foreign->config.num_q_heads);
    tell_size(foreign, "key_size", grok.key_size);
    if (foreign->config.key_size > 0) {
        tell_size(foreign, "num_q_heads", queries / foreign->config.key_size);
        tell_size(foreign, "num_kv_heads", keys / foreign->config.key_size);
    }
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_FFN_KIND) continue;
        em_foreign_tell(foreign, field->name,
                        field->type == EM_FIELD_INTEGER ? (double)*em_config_integer(&grok, field)
                                                        : *em_config_real(&grok, field));
    }
}

bool em_foreign_settle(em_foreign *foreign, em_status *status)
{
    if (foreign->num_arrays == 0) return em_fail(status, EM_BAD_DATA, "%s: holds no tensors", foreign->path);
    if (!place_arrays(foreign, status)) return false;
    complete_config(foreign);
    if (foreign->config.ffn_kind != EM_FFN_GLU)
        return em_fail(status, EM_BAD_DATA, "%s: ffn_kind is mlp, but such checkpoints are glu", foreign->path);
    return em_config_check(&foreign->config, foreign->path, EM_BAD_DATA, status);
}

/* ---- is all there? ---- */

/* The shape that an array of a tensor must have, in its own order. */
static em_dataset wanted_shape(const em_array *array, const em_tensor_shape *shape, int64_t cols)
{
    em_dataset want = {.rank = shape->rank};
    memcpy(want.dims, shape->dims, sizeof shape->dims);
    if (array->place.expert != EM_ALL_EXPERTS) { /* one expert's */
        want.rank = 2;
        want.dims[0] = shape->rows;
    }
    want.dims[want.rank - 1] = cols;
    if (array->transposed) {
        want.dims[want.rank - 1] = want.dims[want.rank - 2];
        want.dims[want.rank - 2] = cols;
    }
    return want;
}

static bool check_shape(const em_foreign *foreign, const em_array *array, const em_tensor_shape *shape, int64_t cols,
                        const char *reason, em_status *status)
{
    em_dataset want = wanted_shape(array, shape, cols);
    bool same = array->rank == want.rank;
    for (int i = 0; same && i < want.rank; i++) same = array->dims[i] == want.dims[i];
    em_dims_text have, wanted;
    return same || em_fail(status, EM_BAD_DATA, "%s: %s has shape %s, but must be %s, from %s of the config",
                           foreign->input[array->input], array->name, em_array_dims(array, have),
                           em_dims(&want, wanted), reason);
}

/* Scales go with int8, are floats, and their groups divide the inputs. */
static bool check_scale(const em_foreign *foreign, const em_array *array, const em_array *scale,
                        const em_tensor_shape *shape, em_status *status)
{
    const char *path = foreign->input[array->input];
    if (!scale && array->number == EM_NUMBER_INT8)
        return em_fail(status, EM_BAD_DATA, "%s: %s is int8, but has no scales", path, array->name);
    if (!scale) return true;
    if (array->number != EM_NUMBER_INT8 || !shape->quantised)
        return em_fail(status, EM_BAD_DATA, "%s: %s has scales, but %s", path, array->name,
                       shape->quantised ? "is not int8" : "norms and routers never have");
    if (scale->number != EM_NUMBER_F32 && scale->number != EM_NUMBER_BF16)
        return em_fail(status, EM_BAD_DATA, "%s: %s are %s, but scales must be floats", path, scale->name,
                       em_number_name(scale->number));
    int64_t groups = scale->rank >= 2 ? scale->dims[scale->rank - (scale->transposed ? 2 : 1)] : 0;
    if (groups < 1 || shape->cols % groups != 0)
        return em_fail(status, EM_BAD_DATA, "%s: %s have %lld groups, which do not divide the %lld inputs of %s", path,
                       scale->name, (long long)groups, (long long)shape->cols, array->name);
    return check_shape(foreign, scale, shape, groups, "its int8 and its groups, and from the rest", status);
}

static bool check_number(const em_foreign *foreign, const em_array *array, const em_tensor_shape *shape,
                         em_status *status)
{
    bool is_integer = array->number == EM_NUMBER_INT8 || array->number == EM_NUMBER_Q8_0;
    return shape->quantised || !is_integer ||
           em_fail(status, EM_BAD_DATA, "%s: %s is %s, but norms and routers must be floats",
                   foreign->input[array->input], array->name, em_number_name(array->number));
}

static bool check_array(const em_foreign *foreign, const em_array *array, em_status *status)
{
    em_tensor_shape shape = em_tensor_shape_of(&foreign->config, array->place.tensor);
    const em_place *place = &array->place;
    const em_array *scale =
        find_exactly(foreign, (em_place){EM_ROLE_SCALE, place->tensor, place->layer, place->expert});
    return check_shape(foreign, array, &shape, shape.cols, shape.reason, status) &&
           check_number(foreign, array, &shape, status) &&
           (place->role == EM_ROLE_HEAD || check_scale(foreign, array, scale, &shape, status));
}

/* The arrays of a tensor; how many are missing. */
static int64_t check_tensor(const em_foreign *foreign, em_tensor tensor, int64_t layer, em_status *status)
{
    int64_t experts = em_tensor_shape_of(&foreign->config, tensor).experts, missing = 0;
    for (int64_t e = 0; e < experts; e++) {
        const em_array *array = em_foreign_find(foreign, EM_ROLE_DATA, tensor, layer, e);
        if (!array)
            missing++;
        else if (e == 0 || array->place.expert != EM_ALL_EXPERTS)
            check_array(foreign, array, status);
    }
    return missing;
}

/* Which layers have no tensor at all, in words: the first few. */
static void tell_missing_layers(const em_foreign *foreign, em_status *status)
{
    char text[200] = "";
    int64_t missing = 0;
    size_t length = 0;
    bool *there = em_zeroed(foreign->config.num_layers, sizeof *there);
    for (int64_t i = 0; i < foreign->num_arrays; i++) {
        const em_place *place = &foreign->array[i].place;
        if (place->role == EM_ROLE_DATA && place->tensor >= EM_FIRST_LAYER_TENSOR) there[place->layer] = true;
    }
    for (int64_t layer = 0; layer < foreign->config.num_layers; layer++) {
        if (there[layer]) continue;
        if (length < 150)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%lld", missing > 0 ? ", " : "",
                                       (long long)layer);
        else if (strcmp(text + length - 3, "...") != 0)
            length += (size_t)snprintf(text + length, sizeof text - length, ", ...");
        missing++;
    }
    free(there);
    em_fail(status, EM_BAD_DATA, "%s: %lld of %lld layers are missing: %s; --layers imports others", foreign->path,
            (long long)missing, (long long)foreign->config.num_layers, text);
}

/* What is missing of a layer: the first tensor by name, or the whole layer and others. */
static bool tell_missing(const em_foreign *foreign, int64_t missing, int64_t present, em_tensor first, int64_t layer,
                         em_status *status)
{
    em_tensor_path path;
    if (missing == 0) return true;
    if (present == 0) {
        tell_missing_layers(foreign, status);
        return false;
    }
    return em_fail(status, EM_BAD_DATA, "%s: %s is missing, or that of one of its experts%s", foreign->path,
                   em_tensor_path_of(first, layer, path), missing > 1 ? ", and more" : "");
}

static bool check_layer(const em_foreign *foreign, em_tensor from, em_tensor past, int64_t layer, em_status *status)
{
    int64_t missing = 0, present = 0;
    em_tensor first = from;
    for (em_tensor t = from; t < past; t++) {
        em_tensor_shape shape = em_tensor_shape_of(&foreign->config, t);
        int64_t lacks = shape.present ? check_tensor(foreign, t, layer, status) : 0;
        if (lacks > 0 && missing == 0) first = t;
        missing += lacks;
        present += shape.present && lacks < shape.experts;
    }
    if (status->code != EM_OK) return false;
    if (from < EM_FIRST_LAYER_TENSOR) present++; /* not a layer */
    return tell_missing(foreign, missing, present, first, layer, status);
}

bool em_foreign_check(const em_foreign *foreign, const int64_t *layer, int64_t num_layers, em_status *status)
{
    const em_array *head = em_foreign_find(foreign, EM_ROLE_HEAD, EM_EMBEDDING, 0, EM_ALL_EXPERTS);
    int64_t layers = past_last(foreign, true), experts = past_last(foreign, false);
    if (layers > foreign->config.num_layers || experts > foreign->config.num_experts)
        return em_fail(status, EM_BAD_DATA, "%s: has tensors of %lld %s, but the config says %lld", foreign->path,
                       (long long)(layers > foreign->config.num_layers ? layers : experts),
                       layers > foreign->config.num_layers ? "layers" : "experts",
                       (long long)(layers > foreign->config.num_layers ? foreign->config.num_layers
                                                                       : foreign->config.num_experts));
    if (!check_layer(foreign, EM_EMBEDDING, EM_FIRST_LAYER_TENSOR, 0, status)) return false;
    if (head && !check_array(foreign, head, status)) return false;
    for (int64_t i = 0; i < num_layers; i++)
        if (!check_layer(foreign, EM_FIRST_LAYER_TENSOR, EM_NUM_TENSORS, layer[i], status)) return false;
    return true;
}
