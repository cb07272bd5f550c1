#include "expertmesh/checksum.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char sums_name[] = "/crc32", names_name[] = "crc32_of";

const em_dataset **em_checksum_datasets(const em_source *source, int64_t *count)
{
    const em_dataset **list = em_alloc(2 * EM_NUM_TENSORS * source->config.num_layers, sizeof *list);
    *count = 0;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(&source->config, t); layer++) {
            const em_form *form = em_source_form(source, t, layer);
            list[(*count)++] = &form->data;
            if (form->storage == EM_INT8) list[(*count)++] = &form->scale;
        }
    return list;
}

uint32_t em_checksum_add(uint32_t sum, const void *data, int64_t bytes)
{
    return (uint32_t)crc32_z(sum, data, (z_size_t)bytes);
}

uint32_t em_checksum_join(uint32_t first, uint32_t second, int64_t bytes)
{
    return (uint32_t)crc32_combine(first, second, (z_off_t)bytes);
}

bool em_checksum_create(const em_source *source, const char *path, em_dataset *dataset, em_status *status)
{
    int64_t count;
    const em_dataset **list = em_checksum_datasets(source, &count);
    const char **names = em_alloc(count, sizeof *names);
    for (int64_t i = 0; i < count; i++) names[i] = list[i]->name;
    *dataset = (em_dataset){.type = EM_TYPE_INT64, .rank = 1, .dims = {count}};
    memcpy(dataset->name, sums_name, sizeof sums_name);
    em_store *store = em_store_reopen(path, status);
    bool good =
        store && em_store_add_word_axis(store, names_name, count, names, status) &&
        em_store_add(store, dataset, status) && em_store_attach(store, sums_name, 0, names_name, status) &&
        em_store_put_text(store, sums_name, "long_name", "CRC-32 of each dataset's bytes, as zlib's crc32", status);
    good = em_store_close(store, status) && good;
    free(names);
    free(list);
    return good;
}

bool em_checksum_find(const em_source *source, em_dataset *dataset, em_status *status)
{
    em_dataset names;
    char **word = NULL;
    int64_t count;
    if (!em_store_has(source->store, sums_name))
        return em_fail(status, EM_BAD_DATA, "%s: has no checksums: `expertmesh import` stores them",
                       em_store_path(source->store));
    const em_dataset **list = em_checksum_datasets(source, &count);
    bool good = em_store_find(source->store, sums_name, dataset, status) &&
                em_store_find(source->store, "/crc32_of", &names, status);
    bool fits = good && dataset->type == EM_TYPE_INT64 && dataset->rank == 1 && dataset->dims[0] == count &&
                dataset->offset >= 0 && names.type == EM_TYPE_TEXT && names.rank == 1 && names.dims[0] == count;
    if (fits) fits = em_store_read_words(source->store, &names, &word, status);
    for (int64_t i = 0; word && i < count; i++) {
        fits = fits && strcmp(word[i], list[i]->name) == 0;
        free(word[i]);
    }
    free(word);
    free(list);
    if (good && !fits)
        em_fail(status, EM_BAD_DATA, "%s: %s are not the checksums of its datasets", em_store_path(source->store),
                sums_name);
    return good && fits;
}

/* ---- verifying ---- */

typedef struct verifying {
    const em_source *source;
    em_progress *progress;
    void *context;
    double done, all; /* bytes of this rank */
    char *spare;
} verifying;

enum { PIECE = 1 << 22 };

static int64_t rows_of(const em_dataset *dataset, int64_t *row_bytes)
{
    int64_t cols = dataset->dims[dataset->rank - 1];
    *row_bytes = cols * (int64_t)em_type_bytes(dataset->type);
    return cols > 0 ? em_dataset_count(dataset) / cols : 0;
}

/* The checksum of a share of a dataset's rows, a few megabytes at a time; no piece reaches over two experts. */
static bool sum_share(verifying *v, const em_dataset *dataset, em_range share, uint32_t *sum, em_status *status)
{
    int64_t row_bytes, cols = dataset->dims[dataset->rank - 1];
    rows_of(dataset, &row_bytes);
    int64_t matrix = dataset->rank > 1 ? dataset->dims[dataset->rank - 2] : 1,
            most = PIECE / row_bytes > 0 ? PIECE / row_bytes : 1;
    char *room = row_bytes > PIECE ? em_alloc(row_bytes, 1) : v->spare;
    bool good = true;
    *sum = em_checksum_add(0, NULL, 0);
    for (int64_t row = share.begin, rows; good && row < share.end; row += rows) {
        rows = share.end - row < most ? share.end - row : most;
        if (rows > matrix - row % matrix) rows = matrix - row % matrix;
        good = em_store_read_block(v->source->store, dataset, row, rows, 0, cols, room, status);
        if (good) *sum = em_checksum_add(*sum, room, rows * row_bytes);
        v->done += (double)(rows * row_bytes);
        if (good && v->progress) v->progress(v->context, v->done < v->all ? v->done : 0.999 * v->all, v->all);
    }
    if (room != v->spare) free(room);
    return good;
}

static bool compare_sums(const em_source *source, const em_dataset **list, int64_t count, int ranks,
                         const uint32_t *sum, em_status *status)
{
    em_dataset dataset;
    int64_t wrong = 0, first = -1, row_bytes;
    int64_t *stored = em_alloc(count, sizeof *stored);
    bool good = em_checksum_find(source, &dataset, status) &&
                em_store_read_block(source->store, &dataset, 0, 1, 0, count, stored, status);
    for (int64_t i = 0; good && i < count; i++) {
        uint32_t all = 0;
        int64_t rows = rows_of(list[i], &row_bytes);
        for (int r = 0; r < ranks; r++)
            all = em_checksum_join(all, sum[r * count + i], em_range_size(em_share(rows, ranks, r)) * row_bytes);
        if (stored[i] == (int64_t)all) continue;
        wrong++;
        if (first < 0) first = i;
    }
    free(stored);
    if (wrong == 0) return good;
    return em_fail(status, EM_BAD_DATA,
                   "%s: damaged: the numbers of %s are not those that were written%s (%lld of %lld datasets differ)",
                   em_store_path(source->store), list[first]->name, wrong > 1 ? ", nor others'" : "", (long long)wrong,
                   (long long)count);
}

bool em_checksum_verify(MPI_Comm comm, const char *path, em_progress *progress, void *context, int64_t *count,
                        double *bytes, em_status *status)
{
    int rank, ranks;
    em_source source;
    em_dataset dataset;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    if (em_source_open(&source, path, status)) em_checksum_find(&source, &dataset, status);
    if (!em_agree(comm, status)) {
        em_source_close(&source);
        return false;
    }
    int64_t number, row_bytes;
    const em_dataset **list = em_checksum_datasets(&source, &number);
    double all = (double)em_weights_model_bytes(&source);
    verifying v = {&source, progress, context, 0, all / ranks, em_alloc(PIECE, 1)};
    uint32_t *mine = em_zeroed(number, sizeof *mine), *sums = em_zeroed(number * ranks, sizeof *sums);
    bool good = true;
    for (int64_t i = 0; good && i < number; i++)
        good = sum_share(&v, list[i], em_share(rows_of(list[i], &row_bytes), ranks, rank), &mine[i], status);
    good = em_agree(comm, status);
    if (good) MPI_Gather(mine, (int)number, MPI_UINT32_T, sums, (int)number, MPI_UINT32_T, 0, comm);
    if (good && rank == 0) compare_sums(&source, list, number, ranks, sums, status);
    good = good && em_agree(comm, status);
    if (good && progress) progress(context, 1, 1);
    if (count) *count = number;
    if (bytes) *bytes = all;
    free(v.spare);
    free(mine);
    free(sums);
    free(list);
    em_source_close(&source);
    return good;
}
