#include "expertmesh/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- any source ---- */

const em_form *em_source_form(const em_source *source, em_tensor tensor, int64_t layer)
{
    return &source->form[(int64_t)tensor * source->config.num_layers + layer];
}

static em_form *form_of(em_source *source, em_tensor tensor, int64_t layer)
{
    return &source->form[(int64_t)tensor * source->config.num_layers + layer];
}

void em_source_generate(em_source *source, const em_config *config, uint64_t seed, em_storage storage)
{
    *source = (em_source){.config = *config, .seed = seed};
    source->form = em_zeroed(EM_NUM_TENSORS * config->num_layers, sizeof(em_form));
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(config, t); layer++)
            *form_of(source, t, layer) = (em_form){.storage = em_tensor_storage(t, storage), .groups = 1};
}

void em_source_close(em_source *source)
{
    em_status ignored = {0};
    em_store_close(source->store, &ignored);
    free(source->form);
    *source = (em_source){0};
}

/* ---- reading a file ---- */

static bool read_config(em_store *store, em_config *config, em_status *status)
{
    *config = (em_config){0};
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER) {
            if (!em_store_get_int(store, "/config", field->name, em_config_integer(config, field), status))
                return false;
        } else if (field->type == EM_FIELD_REAL) {
            if (!em_store_get_real(store, "/config", field->name, em_config_real(config, field), status)) return false;
        } else {
            char *kind;
            if (!em_store_get_text(store, "/config", field->name, &kind, status)) return false;
            if (!em_ffn_kind_parse(kind, &config->ffn_kind))
                em_fail(status, EM_BAD_DATA, "%s: ffn_kind of /config is \"%s\", but must be glu or mlp",
                        em_store_path(store), kind);
            free(kind);
            if (status->code) return false;
        }
    }
    return em_config_check(config, em_store_path(store), EM_BAD_DATA, status);
}

static bool check_format(em_store *store, em_status *status)
{
    char *format = NULL;
    int64_t version;
    if (!em_store_has_attribute(store, "/", "format"))
        return em_fail(status, EM_BAD_DATA, "%s: HDF5, but no weights file: the root has no attribute \"format\"",
                       em_store_path(store));
    if (!em_store_get_text(store, "/", "format", &format, status)) return false;
    if (strcmp(format, "expertmesh-weights") != 0)
        em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", but \"expertmesh-weights\" is wanted",
                em_store_path(store), format);
    free(format);
    if (status->code || !em_store_get_int(store, "/", "format_version", &version, status)) return false;
    if (version == 1) return true;
    return em_fail(status, EM_BAD_DATA, "%s: format_version %lld, but this program reads version 1",
                   em_store_path(store), (long long)version);
}

static bool check_shape(const em_store *store, const em_dataset *found, const em_tensor_shape *shape, em_status *status)
{
    em_dataset wanted = {.rank = shape->rank};
    memcpy(wanted.dims, shape->dims, sizeof shape->dims);
    bool same = found->rank == wanted.rank;
    for (int i = 0; same && i < wanted.rank; i++) same = found->dims[i] == wanted.dims[i];
    em_dims_text have, want;
    return same || em_fail(status, EM_BAD_DATA, "%s: %s has shape %s, but must be %s = %s", em_store_path(store),
                           found->name, em_dims(found, have), shape->reason, em_dims(&wanted, want));
}

static bool check_type(em_store *store, em_form *form, bool quantised, em_status *status)
{
    em_type_text found;
    bool known = true;
    if (form->data.composed) /* where a part is missing it reads as 0, with no error */
        return em_fail(status, EM_BAD_DATA, "%s: %s is a virtual dataset, but must be contiguous or chunked",
                       em_store_path(store), form->data.name);
    switch (form->data.type) {
    case EM_TYPE_F32: form->storage = EM_F32; return true;
    case EM_TYPE_BF16: form->storage = EM_BF16; break;
    case EM_TYPE_INT8: form->storage = EM_INT8; break;
    default: known = false;
    }
    if (quantised && known) return true;
    return em_fail(status, EM_BAD_DATA, "%s: %s is stored as %s, but must be %s (little-endian)", em_store_path(store),
                   form->data.name, em_store_type(store, &form->data, found),
                   quantised ? "float32, bfloat16 or int8" : "float32: norms, biases and routers always are");
}

static bool find_scale(em_store *store, em_form *form, const em_tensor_shape *shape, em_status *status)
{
    em_dataset *scale = &form->scale;
    char name[sizeof form->data.name];
    snprintf(name, sizeof name, "%.*s_scale", (int)(sizeof name - sizeof "_scale"), form->data.name);
    if (!em_store_find(store, name, scale, status)) return false;
    em_type_text found;
    if (scale->type != EM_TYPE_F32)
        return em_fail(status, EM_BAD_DATA, "%s: %s is stored as %s, but scales must be float32", em_store_path(store),
                       scale->name, em_store_type(store, scale, found));
    em_dims_text have;
    int last = shape->rank - 1;
    bool fits = scale->rank == shape->rank;
    for (int i = 0; fits && i < last; i++) fits = scale->dims[i] == shape->dims[i];
    form->groups = fits ? scale->dims[last] : 0;
    if (form->groups > 0 && shape->cols % form->groups == 0) return true;
    return em_fail(status, EM_BAD_DATA,
                   "%s: %s has shape %s, but int8 %s needs that of its rows and a number of groups that divides its "
                   "%lld inputs",
                   em_store_path(store), scale->name, em_dims(scale, have), form->data.name, (long long)shape->cols);
}

static bool find_tensor(em_source *source, em_tensor tensor, int64_t layer, em_status *status)
{
    em_form *form = form_of(source, tensor, layer);
    em_tensor_shape shape = em_tensor_shape_of(&source->config, tensor);
    em_tensor_path path;
    form->groups = 1;
    return em_store_find(source->store, em_tensor_path_of(tensor, layer, path), &form->data, status) &&
           check_shape(source->store, &form->data, &shape, status) &&
           check_type(source->store, form, shape.quantised, status) &&
           (form->storage != EM_INT8 || find_scale(source->store, form, &shape, status));
}

bool em_source_open(em_source *source, const char *path, em_status *status)
{
    *source = (em_source){0};
    source->store = em_store_open(path, status);
    if (!source->store) return false;
    bool good = check_format(source->store, status) && read_config(source->store, &source->config, status);
    int64_t seed = 0;
    if (good && em_store_has_attribute(source->store, "/", "seed"))
        good = em_store_get_int(source->store, "/", "seed", &seed, status);
    source->seed = (uint64_t)seed;
    if (good) source->form = em_zeroed(EM_NUM_TENSORS * source->config.num_layers, sizeof(em_form));
    for (em_tensor t = 0; good && t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; good && layer < em_tensor_layers(&source->config, t); layer++)
            good = find_tensor(source, t, layer, status);
    if (!good) em_source_close(source);
    return good;
}

/* ---- creating a file ---- */

static bool write_config(em_store *store, const em_config *config, uint64_t seed, em_status *status)
{
    em_config copy = *config;
    bool good = em_store_put_text(store, "/", "format", "expertmesh-weights", status) &&
                em_store_put_int(store, "/", "format_version", 1, status) &&
                em_store_put_text(store, "/", "creator", "expertmesh", status) &&
                em_store_put_int(store, "/", "seed", (int64_t)seed, status) &&
                em_store_add_group(store, "/config", status);
    for (int f = 0; good && f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER)
            good = em_store_put_int(store, "/config", field->name, *em_config_integer(&copy, field), status);
        else if (field->type == EM_FIELD_REAL)
            good = em_store_put_real(store, "/config", field->name, *em_config_real(&copy, field), status);
        else
            good = em_store_put_text(store, "/config", field->name, em_ffn_kind_name(copy.ffn_kind), status);
    }
    return good;
}

static bool add_tensor(em_store *store, em_source *source, em_tensor tensor, int64_t layer, em_status *status)
{
    static const em_type stored_as[EM_NUM_STORAGES] = {EM_TYPE_F32, EM_TYPE_BF16, EM_TYPE_INT8};
    em_form *form = form_of(source, tensor, layer);
    em_tensor_shape shape = em_tensor_shape_of(&source->config, tensor);
    em_tensor_path path;
    em_tensor_path_of(tensor, layer, path);
    form->data = (em_dataset){.type = stored_as[form->storage], .rank = shape.rank};
    memcpy(form->data.dims, shape.dims, sizeof shape.dims);
    snprintf(form->data.name, sizeof form->data.name, "%s", path);
    if (!em_store_add(store, &form->data, status)) return false;
    if (form->storage != EM_INT8) return true;
    form->scale = form->data;
    form->scale.type = EM_TYPE_F32;
    form->scale.dims[shape.rank - 1] = form->groups;
    snprintf(form->scale.name, sizeof form->scale.name, "%s_scale", path);
    return em_store_add(store, &form->scale, status);
}

bool em_source_create(em_source *source, const char *path, em_status *status)
{
    em_store *store = em_store_create(path, status);
    bool good = store && write_config(store, &source->config, source->seed, status);
    for (em_tensor t = 0; good && t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; good && layer < em_tensor_layers(&source->config, t); layer++)
            good = add_tensor(store, source, t, layer, status);
    good = em_store_close(store, status) && good;
    em_bulk bulk;
    if (!good || !em_bulk_open(&bulk, path, status)) return false;
    good = em_bulk_reserve(&bulk, status);
    return em_bulk_close(&bulk, status) && good;
}
