/* Going on from a checkpoint; declared in checkpoint.h. */
#include "checkpoint_file.h"

#include "expertmesh/seal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static bool check_format(em_store *store, em_status *status)
{
    char *format = NULL;
    int64_t version;
    if (!em_store_get_text(store, "/", "format", &format, status)) return false;
    if (strcmp(format, "expertmesh-checkpoint") != 0)
        em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", but a checkpoint is wanted", em_store_path(store),
                format);
    free(format);
    if (status->code || !em_store_get_int(store, "/", "format_version", &version, status)) return false;
    return version == 1 || em_fail(status, EM_BAD_DATA, "%s: format_version %lld, but this program reads version 1",
                                   em_store_path(store), (long long)version);
}

static bool read_model(em_checkpoint *c, em_status *status)
{
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        bool good;
        if (field->type == EM_FIELD_INTEGER)
            good = em_store_get_int(c->store, "/config", field->name, em_config_integer(&c->config, field), status);
        else if (field->type == EM_FIELD_REAL)
            good = em_store_get_real(c->store, "/config", field->name, em_config_real(&c->config, field), status);
        else {
            char *kind = NULL;
            good = em_store_get_text(c->store, "/config", field->name, &kind, status) &&
                   (em_ffn_kind_parse(kind, &c->config.ffn_kind) ||
                    em_fail(status, EM_BAD_DATA, "%s: ffn_kind is \"%s\"", c->path, kind));
            free(kind);
        }
        if (!good) return false;
    }
    return em_config_check(&c->config, c->path, EM_BAD_DATA, status);
}

static bool read_numbers(em_checkpoint *c, em_status *status)
{
    char *loops = NULL;
    bool good = em_store_get_int(c->store, "/", "num_ranks", &c->num_ranks, status) &&
                em_store_get_int(c->store, "/", "rows", &c->rows, status) &&
                em_store_get_int(c->store, "/", "count", &c->count, status) &&
                em_store_get_int(c->store, "/", "weights_sum", &c->weights_sum, status) &&
                em_store_get_int(c->store, "/", "trace_id", &c->trace_id, status) &&
                em_store_get_text(c->store, "/", "loops", &loops, status);
    if (good && !em_isa_parse(loops, &c->isa))
        good = em_fail(status, EM_BAD_DATA, "%s: computed by loops \"%s\", which this program does not know", c->path,
                       loops);
    free(loops);
    return good;
}

bool em_checkpoint_find(const em_checkpoint *c, const em_dataset *wanted, em_dataset *found, em_status *status)
{
    if (!em_store_find(c->store, wanted->name, found, status)) return false;
    bool same = found->rank == wanted->rank && found->type == wanted->type && found->offset >= 0;
    for (int i = 0; same && i < found->rank; i++) same = found->dims[i] == wanted->dims[i];
    em_dims_text have, want;
    return same || em_fail(status, EM_BAD_DATA, "%s: %s has shape %s, but must have %s", c->path, wanted->name,
                           em_dims(found, have), em_dims(wanted, want));
}

/* The whole of it; out has room for it. */
static bool read_data(const em_checkpoint *c, const em_dataset *wanted, void *out, em_status *status)
{
    em_dataset found;
    int64_t width = wanted->dims[wanted->rank - 1], all = em_dataset_count(wanted);
    if (all == 0) return true;
    return em_checkpoint_find(c, wanted, &found, status) &&
           em_store_read_block(c->store, &found, 0, all / width, 0, width, out, status);
}

static bool read_prompts(em_checkpoint *c, em_status *status)
{
    em_dataset tokens, ends;
    if (!em_store_find(c->store, "/prompt_tokens", &tokens, status) ||
        !em_store_find(c->store, "/prompt_ends", &ends, status))
        return false;
    em_dataset shapes[EM_NUM_CHECKPOINT_DATA];
    em_checkpoint_shape shape = {&c->config, tokens.dims[0], ends.dims[0], c->count, c->num_ranks, 0};
    em_checkpoint_shapes(&shape, shapes);
    int64_t T = shape.T, N = shape.N, *end = em_alloc(N, sizeof *end);
    int32_t *token = em_alloc(T, sizeof *token);
    bool good = read_data(c, &shapes[EM_CHECKPOINT_PROMPT_TOKENS], token, status) &&
                read_data(c, &shapes[EM_CHECKPOINT_PROMPT_ENDS], end, status);
    for (int64_t s = 0; good && s < N; s++)
        if (end[s] <= (s > 0 ? end[s - 1] : 0) || end[s] > T || end[N - 1] != T)
            good = em_fail(status, EM_BAD_DATA, "%s: its prompts do not fit together", c->path);
    if (good) c->prompts = em_batch_of(N, end, token);
    free(end);
    free(token);
    return good && em_batch_check(&c->prompts, &c->config, c->path, EM_BAD_DATA, status);
}

static bool read_told(em_checkpoint *c, em_status *status)
{
    int count;
    char **name = em_store_attributes(c->store, "/options", &count);
    c->told = em_zeroed(count, sizeof *c->told);
    for (int i = 0; i < count; i++) {
        snprintf(c->told[i].name, sizeof c->told[i].name, "%s", name[i]);
        if (status->code == EM_OK && em_store_get_text(c->store, "/options", name[i], &c->told[i].value, status))
            c->num_told = i + 1;
        free(name[i]);
    }
    free(name);
    return status->code == EM_OK;
}

em_checkpoint *em_checkpoint_read(const char *path, em_status *status)
{
    em_checkpoint *c = em_zeroed(1, sizeof *c);
    c->path = em_text("%s", path);
    c->store = em_store_open(path, status);
    if (c->store && check_format(c->store, status) && read_model(c, status) && read_numbers(c, status) &&
        read_told(c, status))
        read_prompts(c, status);
    return c;
}

em_checkpoint *em_checkpoint_open(MPI_Comm comm, const char *path, em_status *status)
{
    if (!em_seal_check(comm, path, status)) return NULL;
    em_checkpoint *c = em_checkpoint_read(path, status);
    if (em_agree(comm, status)) return c;
    em_checkpoint_close(c);
    return NULL;
}

void em_checkpoint_close(em_checkpoint *checkpoint)
{
    em_status ignored = {0};
    if (!checkpoint) return;
    for (int i = 0; i < checkpoint->num_told; i++) free(checkpoint->told[i].value);
    free(checkpoint->told);
    free(checkpoint->path);
    em_batch_free(&checkpoint->prompts);
    em_store_close(checkpoint->store, &ignored);
    free(checkpoint);
}

const char *em_checkpoint_told(const em_checkpoint *checkpoint, const char *name)
{
    for (int i = 0; i < checkpoint->num_told; i++)
        if (strcmp(checkpoint->told[i].name, name) == 0) return checkpoint->told[i].value;
    return NULL;
}

/* ---- putting everything in its place ---- */

static bool read_state(const em_checkpoint *c, const em_dataset *shapes, em_state *state, em_status *status)
{
    int64_t N = c->prompts.num_sequences, V = c->config.vocab_size;
    state->rows = c->rows;
    state->after.num_best = V < EM_NUM_BEST ? (int)V : EM_NUM_BEST;
    if (!read_data(c, &shapes[EM_CHECKPOINT_CHOSEN], state->chosen, status) ||
        !read_data(c, &shapes[EM_CHECKPOINT_CHOSEN_TOKENS], state->token, status) ||
        !read_data(c, &shapes[EM_CHECKPOINT_NEXT_TOKENS], state->after.token, status) ||
        !read_data(c, &shapes[EM_CHECKPOINT_NEXT_SCORES], state->after.logit, status))
        return false;
    int64_t rows = 0;
    for (int64_t s = 0; s < N; s++) {
        bool good = state->chosen[s] >= 0 && state->chosen[s] <= c->count;
        for (int64_t i = 0; good && i < state->chosen[s]; i++) {
            int32_t token = state->token[s * c->count + i];
            good = token >= 0 && token < V;
        }
        if (!good)
            return em_fail(status, EM_BAD_DATA, "%s: the tokens chosen after prompt %lld cannot be", c->path,
                           (long long)s);
        rows += em_state_length(state, &c->prompts, s);
    }
    return rows == c->rows || em_fail(status, EM_BAD_DATA, "%s: %lld tokens were run, but its sequences hold %lld",
                                      c->path, (long long)c->rows, (long long)rows);
}

/* What rank r of the earlier run counted in one layer; layer L: outside of them. */
static bool add_rank(const em_checkpoint *c, const em_model *m, const em_dataset *data, int64_t layer, int64_t r,
                     em_profile *profile, em_status *status)
{
    int64_t P = c->num_ranks, L = c->config.num_layers, row = layer * P + r, place = layer * EM_NUM_PHASES;
    int64_t sent[EM_NUM_PHASES * EM_NUM_REACHES], *dispatched = em_alloc(P, sizeof *dispatched);
    double seconds[EM_NUM_PHASES];
    bool good =
        em_store_read_block(c->store, &data[EM_CHECKPOINT_SECONDS], row, 1, 0, EM_NUM_PHASES, seconds, status) &&
        em_store_read_block(c->store, &data[EM_CHECKPOINT_ROWS_SENT], row, 1, 0, EM_NUM_PHASES * EM_NUM_REACHES, sent,
                            status) &&
        (layer == L ||
         em_store_read_block(c->store, &data[EM_CHECKPOINT_DISPATCH_ROWS], row, 1, 0, P, dispatched, status));
    for (int i = 0; good && i < EM_NUM_PHASES; i++) profile->seconds[place + i] += seconds[i];
    for (int i = 0; good && i < EM_NUM_PHASES * EM_NUM_REACHES; i++)
        profile->rows[place * EM_NUM_REACHES + i] += sent[i];
    for (int64_t to = 0; good && layer < L && to < P; to++)
        profile->dispatched[layer * m->num_ranks + to % m->num_ranks] += dispatched[to];
    free(dispatched);
    return good;
}

static bool read_profile(const em_checkpoint *c, const em_model *m, const em_dataset *shapes, em_profile *profile,
                         em_status *status)
{
    static const int of_ranks[] = {EM_CHECKPOINT_SECONDS, EM_CHECKPOINT_ROWS_SENT, EM_CHECKPOINT_DISPATCH_ROWS};
    em_dataset data[EM_NUM_CHECKPOINT_DATA];
    bool good = read_data(c, &shapes[EM_CHECKPOINT_EXPERT_LOAD], profile->load, status);
    for (int i = 0; good && i < 3; i++) good = em_checkpoint_find(c, &shapes[of_ranks[i]], &data[of_ranks[i]], status);
    for (int64_t layer = 0; good && layer <= c->config.num_layers; layer++)
        for (int64_t r = m->rank; good && r < c->num_ranks; r += m->num_ranks)
            good = add_rank(c, m, data, layer, r, profile, status);
    return good;
}

/* The heads that this rank holds, be it their owner or not. */
static bool read_heads(const em_checkpoint *c, const em_model *m, const em_dataset *shapes, const int64_t *start,
                       em_cache *cache, em_status *status)
{
    em_units heads = em_layout_kv_heads(&m->layout, m->rank);
    int64_t K = c->config.num_kv_heads, C = c->config.key_size, N = c->prompts.num_sequences, tokens = start[N];
    em_dataset keys, values;
    if (tokens == 0) return true;
    if (!em_checkpoint_find(c, &shapes[EM_CHECKPOINT_KEYS], &keys, status) ||
        !em_checkpoint_find(c, &shapes[EM_CHECKPOINT_VALUES], &values, status))
        return false;
    float *k = em_alloc(tokens * C, sizeof *k), *v = em_alloc(tokens * C, sizeof *v);
    bool good = true;
    for (int64_t layer = 0; good && layer < c->config.num_layers; layer++)
        for (int64_t place = 0; good && place < heads.count; place++) {
            int64_t row = (layer * K + heads.unit[place]) * tokens;
            good = em_store_read_block(c->store, &keys, row, tokens, 0, C, k, status) &&
                   em_store_read_block(c->store, &values, row, tokens, 0, C, v, status);
            for (int64_t s = 0; good && s < N; s++)
                em_cache_set(cache, layer, s, place, start[s + 1] - start[s], k + start[s] * C, v + start[s] * C);
        }
    free(k);
    free(v);
    return good;
}

bool em_checkpoint_restore(const em_checkpoint *c, const em_model *model, em_state *state, em_cache *cache,
                           em_profile *profile, em_status *status)
{
    int64_t N = c->prompts.num_sequences, *start = em_alloc(N + 1, sizeof *start);
    em_dataset shapes[EM_NUM_CHECKPOINT_DATA];
    em_checkpoint_shape shape = {&c->config, c->prompts.num_tokens, N, c->count, c->num_ranks, c->rows};
    em_checkpoint_shapes(&shape, shapes);
    if (read_state(c, shapes, state, status)) {
        em_checkpoint_starts(state, &c->prompts, start);
        if (read_profile(c, model, shapes, profile, status)) read_heads(c, model, shapes, start, cache, status);
    }
    free(start);
    em_clock_go_on(&profile->clock, model->comm, em_profile_seconds(profile));
    return em_agree(model->comm, status);
}
