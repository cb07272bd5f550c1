#include "checkpoint_file.h"

#include "expertmesh/seal.h"
#include "expertmesh/version.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- its datasets ---- */

void em_checkpoint_shapes(const em_checkpoint_shape *s, em_dataset *data)
{
    const em_config *c = s->config;
    int64_t L = c->num_layers;
    const em_dataset all[EM_NUM_CHECKPOINT_DATA] = {
        [EM_CHECKPOINT_PROMPT_TOKENS] = {"/prompt_tokens", EM_TYPE_INT32, 1, {s->T}, -1, false},
        [EM_CHECKPOINT_PROMPT_ENDS] = {"/prompt_ends", EM_TYPE_INT64, 1, {s->N}, -1, false},
        [EM_CHECKPOINT_CHOSEN] = {"/chosen", EM_TYPE_INT64, 1, {s->N}, -1, false},
        [EM_CHECKPOINT_CHOSEN_TOKENS] = {"/chosen_tokens", EM_TYPE_INT32, 2, {s->N, s->count}, -1, false},
        [EM_CHECKPOINT_NEXT_TOKENS] = {"/next_tokens", EM_TYPE_INT32, 2, {s->N, EM_NUM_BEST}, -1, false},
        [EM_CHECKPOINT_NEXT_SCORES] = {"/next_scores", EM_TYPE_F32, 2, {s->N, EM_NUM_BEST}, -1, false},
        [EM_CHECKPOINT_EXPERT_LOAD] = {"/expert_load", EM_TYPE_INT64, 2, {L, c->num_experts}, -1, false},
        [EM_CHECKPOINT_DISPATCH_ROWS] = {"/dispatch_rows", EM_TYPE_INT64, 3, {L, s->P, s->P}, -1, false},
        [EM_CHECKPOINT_ROWS_SENT] =
            {"/rows_sent", EM_TYPE_INT64, 3, {L + 1, s->P, EM_NUM_PHASES * EM_NUM_REACHES}, -1, false},
        [EM_CHECKPOINT_SECONDS] = {"/phase_seconds", EM_TYPE_F64, 3, {L + 1, s->P, EM_NUM_PHASES}, -1, false},
        [EM_CHECKPOINT_KEYS] = {"/keys", EM_TYPE_F32, 4, {L, c->num_kv_heads, s->tokens, c->key_size}, -1, false},
        [EM_CHECKPOINT_VALUES] = {"/values", EM_TYPE_F32, 4, {L, c->num_kv_heads, s->tokens, c->key_size}, -1, false},
    };
    memcpy(data, all, sizeof all);
}

void em_checkpoint_starts(const em_state *state, const em_batch *prompts, int64_t *start)
{
    start[0] = 0;
    for (int64_t s = 0; s < prompts->num_sequences; s++) start[s + 1] = start[s] + em_state_length(state, prompts, s);
}

/* ---- the structure, by rank 0 ---- */

static bool put_model(em_store *store, const em_config *config, em_status *status)
{
    em_config copy = *config;
    bool good = em_store_add_group(store, "/config", status);
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

static bool put_told(em_store *store, const em_errand *errand, em_status *status)
{
    bool good = em_store_add_group(store, "/options", status);
    for (int i = 0; good && i < errand->num_told; i++)
        good = em_store_put_text(store, "/options", errand->told[i].name, errand->told[i].value, status);
    return good;
}

static bool put_attributes(em_store *store, const em_errand *errand, const em_state *state, int64_t trace_id,
                           em_status *status)
{
    char date[64];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    return em_store_put_text(store, "/", "format", "expertmesh-checkpoint", status) &&
           em_store_put_int(store, "/", "format_version", 1, status) &&
           em_store_put_text(store, "/", "creator", "expertmesh", status) &&
           em_store_put_text(store, "/", "creator_version", EM_VERSION, status) &&
           em_store_put_text(store, "/", "git_revision", EM_GIT_REVISION, status) &&
           em_store_put_text(store, "/", "command_line", errand->command_line, status) &&
           em_store_put_text(store, "/", "date_created", date, status) &&
           em_store_put_text(store, "/", "loops", em_isa_name(em_isa_in_use()), status) &&
           em_store_put_int(store, "/", "num_ranks", errand->model->num_ranks, status) &&
           em_store_put_int(store, "/", "rows", state->rows, status) &&
           em_store_put_int(store, "/", "count", errand->generation->count, status) &&
           em_store_put_int(store, "/", "weights_sum", errand->weights_sum, status) &&
           em_store_put_int(store, "/", "trace_id", trace_id, status) &&
           put_model(store, &errand->model->config, status) && put_told(store, errand, status);
}

/* One checkpoint being written. */
typedef struct saving {
    const em_errand *errand;
    const em_state *state;
    const em_cache *cache;
    const em_profile *profile;
    int64_t *start; /* [N + 1] */
    em_dataset data[EM_NUM_CHECKPOINT_DATA];
    em_bulk bulk;
} saving;

static bool create(saving *s, const char *partial, int64_t trace_id, em_status *status)
{
    em_store *store = em_store_create(partial, status);
    bool good = store && put_attributes(store, s->errand, s->state, trace_id, status);
    for (int d = 0; good && d < EM_NUM_CHECKPOINT_DATA; d++)
        good = em_dataset_count(&s->data[d]) == 0 || em_store_add(store, &s->data[d], status);
    return em_store_close(store, status) && good;
}

/* ---- the parts ---- */

/* Rows of a dataset, as wide as its last axis, to the file; or, checking, against what is there. */
typedef bool put_rows(const saving *s, int d, int64_t row, int64_t rows, const void *data, em_status *status);

static int64_t width_of(const em_dataset *data)
{
    return data->dims[data->rank - 1];
}

static bool write_rows(const saving *s, int d, int64_t row, int64_t rows, const void *data, em_status *status)
{
    int64_t width = width_of(&s->data[d]);
    if (rows == 0 || width == 0) return true;
    return em_bulk_write(&s->bulk, &s->data[d], width, row, rows, 0, width, data, width, status);
}

static bool check_rows(const saving *s, int d, int64_t row, int64_t rows, const void *data, em_status *status)
{
    int64_t row_bytes = width_of(&s->data[d]) * (int64_t)em_type_bytes(s->data[d].type), bytes = rows * row_bytes;
    if (bytes == 0) return true;
    return em_bulk_check(&s->bulk, &s->data[d], row * row_bytes, bytes, data, status);
}

/* What is the same on all ranks, by rank 0. */
static bool put_state(const saving *s, put_rows *put, em_status *status)
{
    const em_batch *prompts = s->errand->prompts;
    const em_state *state = s->state;
    int64_t N = prompts->num_sequences;
    return put(s, EM_CHECKPOINT_PROMPT_TOKENS, 0, 1, prompts->token_id, status) &&
           put(s, EM_CHECKPOINT_PROMPT_ENDS, 0, 1, prompts->first_token + 1, status) &&
           put(s, EM_CHECKPOINT_CHOSEN, 0, 1, state->chosen, status) &&
           put(s, EM_CHECKPOINT_CHOSEN_TOKENS, 0, N, state->token, status) &&
           put(s, EM_CHECKPOINT_NEXT_TOKENS, 0, N, state->after.token, status) &&
           put(s, EM_CHECKPOINT_NEXT_SCORES, 0, N, state->after.logit, status) &&
           put(s, EM_CHECKPOINT_EXPERT_LOAD, 0, s->errand->model->config.num_layers, s->profile->load, status);
}

/* What each rank counted. */
static bool put_profile(const saving *s, put_rows *put, em_status *status)
{
    const em_model *m = s->errand->model;
    const em_profile *p = s->profile;
    int64_t L = m->config.num_layers, P = m->num_ranks;
    bool good = true;
    for (int64_t layer = 0; good && layer <= L; layer++) {
        int64_t row = layer * P + m->rank, place = layer * EM_NUM_PHASES;
        good = put(s, EM_CHECKPOINT_ROWS_SENT, row, 1, p->rows + place * EM_NUM_REACHES, status) &&
               put(s, EM_CHECKPOINT_SECONDS, row, 1, p->seconds + place, status) &&
               (layer == L || put(s, EM_CHECKPOINT_DISPATCH_ROWS, row, 1, p->dispatched + layer * P, status));
    }
    return good;
}

/* The heads that this rank counts as the owner of. */
static bool put_heads(const saving *s, put_rows *put, em_status *status)
{
    const em_model *m = s->errand->model;
    em_units heads = em_layout_kv_heads(&m->layout, m->rank);
    int64_t L = m->config.num_layers, K = m->config.num_kv_heads, C = m->config.key_size;
    int64_t N = s->errand->prompts->num_sequences, tokens = s->start[N];
    float *k = em_alloc(tokens * C, sizeof *k), *v = em_alloc(tokens * C, sizeof *v);
    bool good = true;
    for (int64_t layer = 0; good && tokens > 0 && layer < L; layer++)
        for (int64_t place = 0; good && place < heads.count; place++) {
            int64_t h = heads.unit[place];
            if (em_layout_kv_owner(&m->layout, h) != m->rank) continue;
            for (int64_t i = 0; i < N; i++)
                em_cache_get(s->cache, layer, i, place, s->start[i + 1] - s->start[i], k + s->start[i] * C,
                             v + s->start[i] * C);
            good = put(s, EM_CHECKPOINT_KEYS, (layer * K + h) * tokens, tokens, k, status) &&
                   put(s, EM_CHECKPOINT_VALUES, (layer * K + h) * tokens, tokens, v, status);
        }
    free(k);
    free(v);
    return good;
}

static bool put_parts(const saving *s, put_rows *put, em_status *status)
{
    return (s->errand->model->rank != 0 || put_state(s, put, status)) && put_profile(s, put, status) &&
           put_heads(s, put, status);
}

/* ---- one after the other ---- */

/* Each rank its parts, on the disk, and compared with what is there. Local. */
static void write_parts(saving *s, const char *partial, em_status *status)
{
    if (!em_bulk_open(&s->bulk, partial, status)) return;
    put_parts(s, write_rows, status);
    em_bulk_close(&s->bulk, status);
}

static void check_parts(saving *s, const char *partial, em_status *status)
{
    s->bulk = (em_bulk){.file = open(partial, O_RDONLY | O_CLOEXEC), .path = partial};
    if (s->bulk.file < 0) {
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be read back: %s", partial, strerror(errno));
        return;
    }
    put_parts(s, check_rows, status);
    close(s->bulk.file);
}

/* Does the file say of the run what it was told to? c: as read back. */
static bool says_the_same(const saving *s, const em_checkpoint *c, int64_t trace_id)
{
    const em_errand *e = s->errand;
    bool same = c->rows == s->state->rows && c->count == e->generation->count && c->num_ranks == e->model->num_ranks &&
                c->weights_sum == e->weights_sum && c->trace_id == trace_id && c->isa == em_isa_in_use() &&
                c->num_told == e->num_told && !em_config_difference(&c->config, &e->model->config);
    for (int i = 0; same && i < e->num_told; i++) {
        const char *value = em_checkpoint_told(c, e->told[i].name);
        same = value && strcmp(value, e->told[i].value) == 0;
    }
    return same;
}

/* The structure, read as a run reads it that goes on. By rank 0. */
static void check_structure(const saving *s, const char *partial, int64_t trace_id, em_status *status)
{
    em_dataset found;
    em_checkpoint *c = em_checkpoint_read(partial, status);
    if (status->code == EM_OK && !says_the_same(s, c, trace_id))
        em_fail(status, EM_CANNOT_WRITE, "%s: it does not read back as it was written", partial);
    for (int d = 0; status->code == EM_OK && d < EM_NUM_CHECKPOINT_DATA; d++)
        if (em_dataset_count(&s->data[d]) > 0 && em_checkpoint_find(c, &s->data[d], &found, status) &&
            found.offset != s->data[d].offset)
            em_fail(status, EM_CANNOT_WRITE, "%s: %s is not where it was put", partial, s->data[d].name);
    em_checkpoint_close(c);
    if (status->code) status->code = EM_CANNOT_WRITE;
}

static bool reserve(const char *partial, em_status *status)
{
    em_bulk bulk;
    if (!em_bulk_open(&bulk, partial, status)) return false;
    em_bulk_reserve(&bulk, status);
    return em_bulk_close(&bulk, status) && status->code == EM_OK;
}

/* The name, too, on the disk. */
static void take_place(const char *partial, const char *path, em_status *status)
{
    char *copy = em_text("%s", path);
    if (rename(partial, path) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", partial, path, strerror(errno));
    int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        fsync(folder); /* some file systems cannot, and need not */
        close(folder);
    }
    free(copy);
}

static bool save(saving *s, const char *partial, const char *path, int64_t trace_id, em_status *status)
{
    MPI_Comm comm = s->errand->model->comm;
    int rank = s->errand->model->rank;
    if (rank == 0 && create(s, partial, trace_id, status)) reserve(partial, status);
    if (!em_agree(comm, status)) return false;
    MPI_Bcast(s->data, (int)sizeof s->data, MPI_BYTE, 0, comm);
    write_parts(s, partial, status);
    if (!em_agree(comm, status)) return false;
    check_parts(s, partial, status);
    if (rank == 0 && status->code == EM_OK) check_structure(s, partial, trace_id, status);
    if (!em_agree(comm, status) || !em_seal_put(comm, partial, status)) return false;
    if (rank == 0) take_place(partial, path, status);
    return em_agree(comm, status);
}

bool em_checkpoint_save(const em_errand *errand, const char *path, const em_state *state, const em_cache *cache,
                        const em_profile *profile, int64_t trace_id, int64_t *bytes, em_status *status)
{
    int64_t N = errand->prompts->num_sequences;
    saving s = {.errand = errand, .state = state, .cache = cache, .profile = profile};
    struct stat info;
    em_stand(-1, "checkpoint");
    s.start = em_alloc(N + 1, sizeof *s.start);
    em_checkpoint_starts(state, errand->prompts, s.start);
    em_checkpoint_shape shape = {&errand->model->config,    errand->prompts->num_tokens, N,
                                 errand->generation->count, errand->model->num_ranks,    s.start[N]};
    em_checkpoint_shapes(&shape, s.data);
    char *partial = em_text("%s.partial", path);
    bool good = save(&s, partial, path, trace_id, status);
    if (!good && errand->model->rank == 0) unlink(partial);
    if (bytes) *bytes = good && stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
    free(partial);
    free(s.start);
    em_stand(-1, NULL);
    return good;
}
