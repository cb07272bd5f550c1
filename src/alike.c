#include "expertmesh/alike.h"

#include "expertmesh/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

/* ---- the program ---- */

typedef char identity[512];

static const char *byte_order(void)
{
    const uint16_t one = 1;
    return *(const uint8_t *)&one == 1 ? "little" : "big";
}

/* Bytes alone, so that it can be compared whatever the numbers look like. */
static void identify(const char *version, const char *revision, identity text)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(mpi, &length);
    snprintf(text, sizeof(identity), "expertmesh %s (%s), library %s (%s), compiler %.60s, %s-endian, %zu-bit, %.100s",
             version, revision, EM_VERSION, EM_GIT_REVISION, __VERSION__, byte_order(), 8 * sizeof(void *), mpi);
}

bool em_alike_program(MPI_Comm comm, const char *version, const char *revision, em_status *status)
{
    int rank;
    identity mine = "", first;
    em_host_text host;
    MPI_Comm_rank(comm, &rank);
    identify(version, revision, mine);
    memcpy(first, mine, sizeof first);
    MPI_Bcast(first, (int)sizeof first, MPI_BYTE, 0, comm);
    if (memcmp(first, mine, sizeof first) != 0)
        em_fail(status, EM_USAGE, "ranks run different programs: rank 0 is %s, but rank %d on %s is %s", first, rank,
                em_host(host), mine);
    return em_agree(comm, status);
}

/* ---- failures of some ranks ---- */

bool em_agree_where(MPI_Comm comm, em_status *status)
{
    int rank, size, failed = status->code != EM_OK;
    em_host_text host;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_SUM, comm);
    size_t used = strlen(status->text);
    if (status->code != EM_OK && failed < size)
        snprintf(status->text + used, sizeof status->text - used, " (rank %d on %s; %d of %d ranks found no fault)",
                 rank, em_host(host), size - failed, size);
    return em_agree(comm, status);
}

/* ---- the weights ---- */

/* FNV-1a, 64 bits (Fowler, Noll, Vo). */
static uint64_t hash(uint64_t sum, const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ byte[i]) * UINT64_C(0x100000001b3);
    return sum;
}
static const uint64_t hash_of_nothing = UINT64_C(0xcbf29ce484222325);

/* What a rank sees of one dataset. */
typedef struct glimpse {
    uint64_t place; /* hash of name, type, shape, place in the file */
    uint64_t data;  /* hash of some numbers; 0: not looked at */
} glimpse;

static glimpse look_at_place(const em_dataset *dataset)
{
    const int64_t numbers[] = {dataset->type, dataset->rank, dataset->offset};
    uint64_t sum = hash(hash_of_nothing, dataset->name, strlen(dataset->name));
    sum = hash(sum, numbers, sizeof numbers);
    return (glimpse){hash(sum, dataset->dims, (size_t)dataset->rank * sizeof *dataset->dims), 0};
}

/* The beginning of one row, which is drawn from seed. */
static bool look_at_data(const em_source *source, const em_dataset *dataset, uint64_t seed, glimpse *seen,
                         em_status *status)
{
    enum { MOST = 1024 };
    char numbers[MOST * sizeof(float)];
    int64_t width = dataset->dims[dataset->rank - 1], rows = em_dataset_count(dataset) / width;
    int64_t count = width < MOST ? width : MOST, row = (int64_t)(hash(seed, &rows, sizeof rows) % (uint64_t)rows);
    if (!em_store_read_block(source->store, dataset, row, 1, 0, count, numbers, status)) return false;
    seen->data = hash(hash_of_nothing, numbers, (size_t)count * em_type_bytes(dataset->type));
    return true;
}

/* All datasets of a source, in one order. Freed with free. */
static const em_dataset **list_datasets(const em_source *source, int64_t *count)
{
    const em_config *config = &source->config;
    const em_dataset **list = em_alloc(2 * EM_NUM_TENSORS * config->num_layers, sizeof *list);
    *count = 0;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(config, t); layer++) {
            const em_form *form = em_source_form(source, t, layer);
            list[(*count)++] = &form->data;
            if (form->storage == EM_INT8) list[(*count)++] = &form->scale;
        }
    return list;
}

/* The file at large. */
typedef struct outline {
    int64_t bytes, num_datasets;
    uint64_t config, seed; /* seed: rank 0's draw */
} outline;

static outline look_at_file(const em_source *source, int64_t num_datasets)
{
    struct stat info;
    outline seen = {.bytes = stat(em_store_path(source->store), &info) == 0 ? (int64_t)info.st_size : -1,
                    .num_datasets = num_datasets,
                    .config = hash(hash_of_nothing, &source->config, sizeof source->config)};
    if (getrandom(&seen.seed, sizeof seen.seed, 0) != (ssize_t)sizeof seen.seed)
        seen.seed = (uint64_t)(1e9 * MPI_Wtime());
    return seen;
}

static void differ(const em_source *source, int rank, em_status *status, const char *what)
{
    em_host_text host;
    em_fail(status, EM_BAD_DATA,
            "%s: rank %d on %s reads another file there than rank 0: %s; all ranks must see one file",
            em_store_path(source->store), rank, em_host(host), what);
}

static bool same_outline(MPI_Comm comm, const em_source *source, int rank, outline *mine, em_status *status)
{
    outline first = *mine;
    char what[120];
    MPI_Bcast(&first, (int)sizeof first, MPI_BYTE, 0, comm);
    snprintf(what, sizeof what, "it has %lld bytes, that of rank 0 %lld", (long long)mine->bytes,
             (long long)first.bytes);
    if (mine->config != first.config || mine->num_datasets != first.num_datasets)
        differ(source, rank, status, "it holds another model, or one that is stored differently");
    else if (mine->bytes != first.bytes)
        differ(source, rank, status, what);
    mine->seed = first.seed;
    return em_agree(comm, status);
}

static bool same_glimpses(MPI_Comm comm, const em_source *source, int rank, const em_dataset *const *list,
                          const glimpse *mine, int64_t count, em_status *status)
{
    glimpse *first = em_alloc(count, sizeof *first);
    memcpy(first, mine, (size_t)count * sizeof *first);
    MPI_Bcast(first, (int)(count * (int64_t)sizeof *first), MPI_BYTE, 0, comm);
    for (int64_t i = 0; i < count && status->code == EM_OK; i++) {
        char what[160];
        bool place = mine[i].place == first[i].place;
        snprintf(what, sizeof what, place ? "%s holds other numbers" : "%s has another shape, type or place",
                 list[i]->name);
        if (!place || mine[i].data != first[i].data) differ(source, rank, status, what);
    }
    free(first);
    return em_agree(comm, status);
}

bool em_alike_weights(MPI_Comm comm, const em_source *source, em_status *status)
{
    int rank;
    int64_t count;
    MPI_Comm_rank(comm, &rank);
    const em_dataset **list = list_datasets(source, &count);
    outline mine = look_at_file(source, count);
    bool good = same_outline(comm, source, rank, &mine, status);
    glimpse *seen = em_zeroed(count, sizeof *seen);
    for (int64_t i = 0; good && i < count; i++) seen[i] = look_at_place(list[i]);
    good = good && same_glimpses(comm, source, rank, list, seen, count, status); /* else they cannot be read alike */
    for (int64_t i = 0; good && status->code == EM_OK && i < count; i++)
        look_at_data(source, list[i], mine.seed + (uint64_t)i, &seen[i], status);
    good = good && em_agree_where(comm, status) && same_glimpses(comm, source, rank, list, seen, count, status);
    free(seen);
    free(list);
    return good;
}
