#include "expertmesh/view.h"

#include "expertmesh/profile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *em_view_path(const em_view *view)
{
    return em_store_path(view->store);
}

/* ---- opening ---- */

static bool check_format(em_store *store, em_status *status)
{
    const char *path = em_store_path(store);
    char *format = NULL;
    int64_t version;
    if (!em_store_has_attribute(store, "/", "format"))
        return em_fail(status, EM_BAD_DATA, "%s: HDF5, but no trace: the root has no attribute \"format\"", path);
    if (!em_store_get_text(store, "/", "format", &format, status)) return false;
    if (strcmp(format, "expertmesh-trace") != 0)
        em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", but a trace is wanted (expertmesh run --trace)",
                path, format);
    free(format);
    if (status->code || !em_store_get_int(store, "/", "format_version", &version, status)) return false;
    if (version == 1) return true;
    return em_fail(status, EM_BAD_DATA, "%s: format_version %lld, but this program reads version 1", path,
                   (long long)version);
}

static bool read_model(em_view *view, em_status *status)
{
    const char *path = em_view_path(view);
    char *json = NULL;
    uint32_t given = 0;
    int64_t ranks = 0;
    if (!em_store_get_text(view->store, "/", "config_json", &json, status)) return false;
    char *source = em_text("%s: attribute config_json", path);
    em_config_parse_json(json, source, &view->config, &given, status);
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        if (!(given >> f & 1)) em_fail(status, EM_BAD_DATA, "%s has no \"%s\"", source, em_config_fields[f].name);
    free(json);
    bool good = status->code == EM_OK && em_config_check(&view->config, source, EM_BAD_DATA, status) &&
                em_store_get_int(view->store, "/", "num_ranks", &ranks, status);
    free(source);
    view->num_ranks = (int)ranks;
    if (good && (ranks < 1 || ranks > INT32_MAX))
        good = em_fail(status, EM_BAD_DATA, "%s: num_ranks is %lld", path, (long long)ranks);
    return good;
}

/* The numbers along an axis: ascending, from 0, below limit. */
static bool read_axis(em_view *view, const char *name, int64_t limit, int64_t *count, int64_t **number,
                      em_status *status)
{
    em_dataset axis;
    if (!em_store_find(view->store, name, &axis, status)) return false;
    if (axis.rank != 1 || axis.type != EM_TYPE_INT64 || axis.dims[0] < 1)
        return em_fail(status, EM_BAD_DATA, "%s: %s is not a list of 64-bit numbers", em_view_path(view), name);
    *count = axis.dims[0];
    *number = em_alloc(*count, sizeof **number);
    if (!em_store_read_block(view->store, &axis, 0, 1, 0, *count, *number, status)) return false;
    for (int64_t i = 0; i < *count; i++) {
        int64_t n = (*number)[i];
        if (n < (i > 0 ? (*number)[i - 1] + 1 : 0) || n >= limit)
            return em_fail(status, EM_BAD_DATA, "%s: %s[%lld] is %lld, but numbers must ascend, and lie from 0 to %lld",
                           em_view_path(view), name, (long long)i, (long long)n, (long long)limit - 1);
    }
    return true;
}

static bool read_phases(em_view *view, em_status *status)
{
    em_dataset axis;
    if (!em_store_has(view->store, "/phase")) return true;
    if (!em_store_find(view->store, "/phase", &axis, status)) return false;
    if (axis.rank != 1 || axis.type != EM_TYPE_TEXT)
        return em_fail(status, EM_BAD_DATA, "%s: /phase is not a list of words", em_view_path(view));
    view->num_phases = axis.dims[0];
    return em_store_read_words(view->store, &axis, &view->phase, status);
}

static bool read_counter(const em_view *view, const char *name, int64_t limit, int64_t *count, em_status *status)
{
    em_dataset data;
    if (!em_store_find(view->store, name, &data, status)) return false;
    if (data.rank != 0 || data.type != EM_TYPE_INT64)
        return em_fail(status, EM_BAD_DATA, "%s: %s is not one 64-bit number", em_view_path(view), name);
    if (!em_store_read_block(view->store, &data, 0, 1, 0, 1, count, status)) return false;
    if (*count >= 0 && *count <= limit) return true;
    return em_fail(status, EM_BAD_DATA, "%s: %s is %lld, but must be from 0 to %lld", em_view_path(view), name,
                   (long long)*count, (long long)limit);
}

/* In this order, while a run goes on: it sets layers_done to 0 before step_tokens, and step_tokens to 0 before it counts them
 * in tokens_done. So what is read here may be behind, but never ahead of what is written. */
static bool read_progress(em_view *view, em_status *status)
{
    int64_t complete = 0;
    if (!em_store_get_int(view->store, "/", "complete", &complete, status) ||
        !read_counter(view, "/tokens_done", view->num_tokens, &view->tokens_done, status))
        return false;
    if (em_store_has(view->store, "/step_tokens") &&
        !read_counter(view, "/step_tokens", view->num_tokens, &view->step_tokens, status))
        return false;
    if (em_store_has(view->store, "/layers_done") &&
        !read_counter(view, "/layers_done", view->num_layers, &view->layers_done, status))
        return false;
    if (em_store_has(view->store, "/resumes") && !read_counter(view, "/resumes", INT64_MAX, &view->resumes, status))
        return false;
    int64_t rest = view->num_tokens - view->tokens_done;
    if (view->step_tokens > rest) view->step_tokens = rest;
    view->complete = complete != 0;
    return true;
}

static int64_t axis_size(const em_view *view, em_axis axis)
{
    const em_config *c = &view->config;
    const int64_t size[EM_NUM_AXES] = {
        [EM_AXIS_LAYER] = view->num_layers,
        [EM_AXIS_TOKEN] = view->num_tokens,
        [EM_AXIS_EMB] = c->emb_size,
        [EM_AXIS_Q_HEAD] = c->num_q_heads,
        [EM_AXIS_KV_HEAD] = c->num_kv_heads,
        [EM_AXIS_HEAD_DIM] = c->key_size,
        [EM_AXIS_EXPERT] = c->num_experts,
        [EM_AXIS_CHOICE] = c->num_selected_experts,
        [EM_AXIS_NEURON] = c->ffn_size,
        [EM_AXIS_VOCAB] = c->vocab_size,
        [EM_AXIS_SOURCE_RANK] = view->num_ranks,
        [EM_AXIS_RANK] = view->num_ranks,
        [EM_AXIS_PHASE] = view->num_phases,
        [EM_AXIS_MEMORY] = EM_NUM_MEMORIES,
        [EM_AXIS_STEP] = view->num_steps,
        [EM_AXIS_EVENT] = view->num_events,
        [EM_AXIS_FIELD] = EM_NUM_FIELDS,
        [EM_AXIS_REACH] = EM_NUM_REACHES,
    };
    return size[axis];
}

static bool check_data(const em_view *view, em_quantity quantity, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    const em_dataset *found = &view->data[quantity];
    em_dataset wanted = {.rank = info->num_axes};
    bool same = found->rank == wanted.rank;
    for (int i = 0; i < wanted.rank; i++) {
        wanted.dims[i] = axis_size(view, info->axis[i]);
        same = same && found->dims[i] == wanted.dims[i];
    }
    em_dims_text have, want;
    em_type_text type;
    if (found->composed) /* where a part is missing it reads as 0, with no error */
        return em_fail(status, EM_BAD_DATA, "%s: %s is a virtual dataset, but must be contiguous or chunked",
                       em_view_path(view), found->name);
    if (!same)
        return em_fail(status, EM_BAD_DATA, "%s: %s has shape %s, but must be %s", em_view_path(view), found->name,
                       em_dims(found, have), em_dims(&wanted, want));
    if (found->type == info->type) return true;
    return em_fail(status, EM_BAD_DATA, "%s: %s is stored as %s, but must be %s", em_view_path(view), found->name,
                   em_store_type(view->store, found, type), em_type_name(info->type));
}

/* How many steps and events there is room for, which no attribute tells. */
static bool find_steps(em_view *view, em_status *status)
{
    em_dataset events;
    if (!em_store_has(view->store, "/events")) return true;
    if (!em_store_find(view->store, "/events", &events, status)) return false;
    if (events.rank == 4) {
        view->num_steps = events.dims[1];
        view->num_events = events.dims[2];
    }
    return true;
}

static bool find_data(em_view *view, em_status *status)
{
    bool good = find_steps(view, status);
    for (em_quantity q = 0; good && q < EM_NUM_QUANTITIES; q++) {
        char name[64];
        snprintf(name, sizeof name, "/%s", em_quantities[q].name);
        view->recorded[q] = em_store_has(view->store, name);
        if (view->recorded[q])
            good = em_store_find(view->store, name, &view->data[q], status) && check_data(view, q, status);
    }
    return good && em_view_need(view, EM_TOKEN_IDS, status);
}

bool em_view_open(em_view *view, const char *path, em_status *status)
{
    *view = (em_view){.store = em_store_open(path, status)};
    if (view->store && check_format(view->store, status) && read_model(view, status) &&
        read_axis(view, "/layer", view->config.num_layers, &view->num_layers, &view->layer, status) &&
        read_axis(view, "/token", INT64_MAX, &view->num_tokens, &view->token, status) && read_phases(view, status) &&
        read_progress(view, status) && find_data(view, status))
        return true;
    em_view_close(view);
    return false;
}

void em_view_close(em_view *view)
{
    em_status ignored = {0};
    em_store_close(view->store, &ignored);
    free(view->layer);
    free(view->token);
    for (int64_t i = 0; view->phase && i < view->num_phases; i++) free(view->phase[i]);
    free(view->phase);
    *view = (em_view){0};
}

/* ---- finding ---- */

bool em_view_need(const em_view *view, em_quantity quantity, em_status *status)
{
    const char *name = em_quantities[quantity].name;
    if (view->recorded[quantity]) return true;
    if (em_quantity_optional(quantity))
        return em_fail(status, EM_BAD_DATA,
                       "%s: %s was not recorded; run with --trace-only ...,%s, or without --trace-only, records it",
                       em_view_path(view), name, name);
    return em_fail(status, EM_BAD_DATA, "%s: dataset /%s is missing, which every trace has", em_view_path(view), name);
}

/* The place of a number among ascending ones, or -1. */
static int64_t place_of(const int64_t *number, int64_t count, int64_t wanted)
{
    int64_t first = 0, past = count;
    while (first < past) {
        int64_t middle = first + (past - first) / 2;
        if (number[middle] == wanted) return middle;
        if (number[middle] < wanted)
            first = middle + 1;
        else
            past = middle;
    }
    return -1;
}

/* "0-3,7": a list as --trace-layers takes it; a long one ends with dots. */
typedef char list_text[120];
static const char *list_of(const int64_t *number, int64_t count, list_text text)
{
    enum { LONGEST = 50 }; /* leaves room for two more numbers */
    size_t length = 0;
    text[0] = '\0';
    for (int64_t i = 0, last; i < count; i = last + 1) {
        for (last = i; last + 1 < count && number[last + 1] == number[last] + 1;) last++;
        if (length > LONGEST) {
            snprintf(text + length, sizeof(list_text) - length, ",...");
            return text;
        }
        length += (size_t)snprintf(text + length, sizeof(list_text) - length, "%s%lld", i > 0 ? "," : "",
                                   (long long)number[i]);
        if (last > i)
            length += (size_t)snprintf(text + length, sizeof(list_text) - length, "-%lld", (long long)number[last]);
    }
    return text;
}

bool em_view_find_layer(const em_view *view, int64_t number, const char *source, int64_t *place, em_status *status)
{
    list_text kept;
    *place = place_of(view->layer, view->num_layers, number);
    if (*place >= 0) return true;
    if (number < 0 || number >= view->config.num_layers)
        return em_fail(status, EM_USAGE, "%s: there is no layer %lld; the model has layers 0 to %lld", source,
                       (long long)number, (long long)view->config.num_layers - 1);
    return em_fail(
        status, EM_BAD_DATA, "%s: layer %lld was not recorded, only %s; run with --trace-layers ...,%lld records it",
        em_view_path(view), (long long)number, list_of(view->layer, view->num_layers, kept), (long long)number);
}

bool em_view_find_token(const em_view *view, int64_t number, const char *source, int64_t *place, em_status *status)
{
    list_text kept;
    int64_t written = em_view_tokens(view, 0), last = view->token[view->num_tokens - 1];
    *place = place_of(view->token, view->num_tokens, number);
    if (*place >= 0 && *place < written) return true;
    if (*place >= 0 && view->complete)
        return em_fail(status, EM_USAGE, "%s: there is no token %lld; the run ended after %lld tokens", source,
                       (long long)number, (long long)written);
    if (*place >= 0)
        return em_fail(status, EM_BAD_DATA,
                       "%s: token %lld is not written: the trace is not complete and has %lld tokens",
                       em_view_path(view), (long long)number, (long long)written);
    if (number < 0 || (number > last && last + 1 == view->num_tokens))
        return em_fail(status, EM_USAGE, "%s: there is no token %lld; the trace has tokens 0 to %lld", source,
                       (long long)number, (long long)last);
    return em_fail(
        status, EM_BAD_DATA, "%s: token %lld was not recorded, only %s; run with --trace-tokens ...,%lld records it",
        em_view_path(view), (long long)number, list_of(view->token, view->num_tokens, kept), (long long)number);
}

int64_t em_view_tokens(const em_view *view, int64_t layer)
{
    return view->tokens_done + (layer < view->layers_done ? view->step_tokens : 0);
}

/* ---- reading ---- */

static int first_inner_axis(em_quantity quantity)
{
    return em_quantities[quantity].axis[0] == EM_AXIS_LAYER ? 2 : 1;
}

int64_t em_view_width(const em_view *view, em_quantity quantity)
{
    int64_t width = 1;
    for (int i = first_inner_axis(quantity); i < em_quantities[quantity].num_axes; i++)
        width *= axis_size(view, em_quantities[quantity].axis[i]);
    return width;
}

/* Rows of the last axis. Those of a chunked dataset are read within one index of the axes before the last two. */
static bool read_rows(const em_view *view, const em_dataset *data, int64_t row, int64_t rows, void *out,
                      em_status *status)
{
    int64_t width = data->dims[data->rank - 1], size = width * (int64_t)em_type_bytes(data->type);
    int64_t together = data->offset >= 0 || data->rank < 2 ? rows : data->dims[data->rank - 2];
    bool good = true;
    for (int64_t i = 0, count; good && i < rows; i += count) {
        count = together - (row + i) % together < rows - i ? together - (row + i) % together : rows - i;
        if (data->offset >= 0) count = rows;
        good = em_store_read_block(view->store, data, row + i, count, 0, width, (char *)out + i * size, status);
    }
    return good;
}

bool em_view_read(const em_view *view, em_quantity quantity, int64_t layer, int64_t token, int64_t tokens, void *out,
                  em_status *status)
{
    const em_dataset *data = &view->data[quantity];
    if (!em_view_need(view, quantity, status) || tokens == 0) return status->code == EM_OK;
    bool layered = em_quantities[quantity].axis[0] == EM_AXIS_LAYER;
    int64_t first = (layered ? layer * view->num_tokens : 0) + token;
    if (data->rank == 1) return em_store_read_block(view->store, data, 0, 1, first, tokens, out, status);
    int64_t per_token = em_view_width(view, quantity) / data->dims[data->rank - 1];
    return read_rows(view, data, first * per_token, tokens * per_token, out, status);
}

/* Counts and seconds are never below 0, in no run. layer: its place; -1: the quantity has none. */
static bool check_counted(const em_view *view, em_quantity quantity, int64_t layer, const void *out, int64_t count,
                          em_status *status)
{
    bool whole = view->data[quantity].type == EM_TYPE_INT64;
    char where[40] = "";
    if (layer >= 0) snprintf(where, sizeof where, " of layer %lld", (long long)view->layer[layer]);
    for (int64_t i = 0; i < count; i++) {
        double value = whole ? (double)((const int64_t *)out)[i] : ((const double *)out)[i];
        if (!(value >= 0 && value < INFINITY))
            return em_fail(status, EM_BAD_DATA, "%s: %s%s has %g, which no run counts: the file is damaged",
                           em_view_path(view), em_quantities[quantity].name, where, value);
    }
    return true;
}

bool em_view_read_layer(const em_view *view, em_quantity quantity, int64_t layer, void *out, em_status *status)
{
    const em_dataset *data = &view->data[quantity];
    bool at_end = quantity >= EM_PHASE_SECONDS && quantity < EM_STEP_ROWS;
    bool layered = em_quantities[quantity].axis[0] == EM_AXIS_LAYER;
    if (!em_view_need(view, quantity, status)) return false;
    if (at_end && !view->complete)
        return em_fail(status, EM_BAD_DATA,
                       "%s: %s is not written: a run writes it at its end, and this trace is not complete",
                       em_view_path(view), em_quantities[quantity].name);
    int64_t rows = 1;
    for (int i = layered; i < data->rank - 1; i++) rows *= data->dims[i];
    return read_rows(view, data, layered ? layer * rows : 0, rows, out, status) &&
           check_counted(view, quantity, layered ? layer : -1, out, rows * data->dims[data->rank - 1], status);
}

bool em_view_read_events(const em_view *view, int64_t step, double *out, em_status *status)
{
    int64_t rows = view->num_events;
    bool good = em_view_need(view, EM_EVENTS, status);
    for (int rank = 0; good && rank < view->num_ranks; rank++)
        good = read_rows(view, &view->data[EM_EVENTS], (rank * view->num_steps + step) * rows, rows,
                         out + rank * rows * EM_NUM_FIELDS, status);
    return good;
}

bool em_view_read_list(const em_view *view, em_quantity quantity, void *out, em_status *status)
{
    const em_dataset *data = &view->data[quantity];
    return em_view_need(view, quantity, status) &&
           em_store_read_block(view->store, data, 0, 1, 0, data->dims[0], out, status);
}

char *em_view_attribute(const em_view *view, const char *name)
{
    em_status ignored = {0};
    char *text = NULL;
    int64_t number;
    if (!em_store_has_attribute(view->store, "/", name)) return NULL;
    if (em_store_get_text(view->store, "/", name, &text, &ignored)) return text;
    ignored = (em_status){0};
    return em_store_get_int(view->store, "/", name, &number, &ignored) ? em_text("%lld", (long long)number) : NULL;
}

char **em_view_token_text(const em_view *view, em_status *status)
{
    em_dataset data;
    char **words = NULL;
    if (!em_store_has(view->store, "/token_text") || !em_store_find(view->store, "/token_text", &data, status))
        return NULL;
    if (data.rank != 1 || data.type != EM_TYPE_TEXT || data.dims[0] != view->config.vocab_size) {
        em_fail(status, EM_BAD_DATA, "%s: /token_text is not a list of %lld words, one a token of the vocabulary",
                em_view_path(view), (long long)view->config.vocab_size);
        return NULL;
    }
    if (em_store_read_words(view->store, &data, &words, status)) return words;
    for (int64_t i = 0; words && i < data.dims[0]; i++) free(words[i]);
    free(words);
    return NULL;
}
