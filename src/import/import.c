#include "expertmesh/import.h"

#include "expertmesh/standing.h"

#include "convert.h"
#include "journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct em_import {
    MPI_Comm comm;
    int rank, num_ranks;
    em_foreign foreign;
    em_selection selection;
    int64_t *layer, *expert;
    em_import_block *block;
    int64_t num_blocks, room;
};

em_import *em_import_open(MPI_Comm comm, const char *path, const char *config, bool follow_links, em_status *status)
{
    em_import *import = em_zeroed(1, sizeof *import);
    import->comm = comm;
    MPI_Comm_rank(comm, &import->rank);
    MPI_Comm_size(comm, &import->num_ranks);
    if (em_foreign_open(&import->foreign, path, config, follow_links, status))
        em_foreign_settle(&import->foreign, status);
    if (em_agree(comm, status)) return import;
    em_import_free(import);
    return NULL;
}

void em_import_free(em_import *import)
{
    if (!import) return;
    em_foreign_close(&import->foreign);
    em_source_close(&import->selection.target);
    free(import->layer);
    free(import->expert);
    free(import->block);
    free(import);
}

const char *em_import_kind(const em_import *import)
{
    return import->foreign.kind;
}

const em_config *em_import_config(const em_import *import)
{
    return &import->foreign.config;
}

const em_source *em_import_target(const em_import *import)
{
    return &import->selection.target;
}

/* ---- choosing ---- */

static int64_t *list_of(const int64_t *chosen, int64_t count)
{
    int64_t *list = em_alloc(count, sizeof *list);
    for (int64_t i = 0; i < count; i++) list[i] = chosen ? chosen[i] : i;
    return list;
}

/* Rows that a block of a tensor may have: what is read and what is written stay below a size. */
static int64_t rows_in_block(const em_form *form, int64_t cols)
{
    enum { BLOCK = 1 << 26 };
    int64_t widest = form->storage == EM_F32 ? 4 : 2; /* bytes a number; also of a file's f16 for int8 */
    int64_t rows = BLOCK / (cols * widest);
    return rows > 0 ? rows : 1;
}

static void list_blocks(em_import *import)
{
    const em_source *target = &import->selection.target;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        em_tensor_shape shape = em_tensor_shape_of(&target->config, t);
        for (int64_t layer = 0; layer < em_tensor_layers(&target->config, t); layer++)
            for (int64_t e = 0; e < shape.experts; e++) {
                int64_t step = rows_in_block(em_source_form(target, t, layer), shape.cols);
                for (int64_t row = 0; row < shape.rows; row += step) {
                    if (import->num_blocks == import->room) {
                        import->room = 2 * import->room + 64;
                        import->block = em_grow(import->block, import->num_blocks, import->room, sizeof *import->block);
                    }
                    em_range rows = {row, row + step < shape.rows ? row + step : shape.rows};
                    import->block[import->num_blocks++] = (em_import_block){t, layer, e, rows};
                }
            }
    }
}

bool em_import_choose(em_import *import, const int64_t *layers, int64_t num_layers, const int64_t *experts,
                      int64_t num_experts, const em_storage *storage, em_status *status)
{
    em_selection *s = &import->selection;
    em_config config = import->foreign.config;
    if (layers) config.num_layers = num_layers;
    if (experts) config.num_experts = num_experts;
    s->foreign = &import->foreign;
    s->layer = import->layer = list_of(layers, config.num_layers);
    s->expert = import->expert = list_of(experts, config.num_experts);
    if (!em_config_check(&config, import->foreign.path, EM_BAD_DATA, status) ||
        !em_foreign_check(&import->foreign, s->layer, config.num_layers, status))
        return false;
    em_source_generate(&s->target, &config, 0, EM_F32);
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(&config, t); layer++)
            s->target.form[(int64_t)t * config.num_layers + layer] = em_import_form(s, t, layer, storage);
    list_blocks(import);
    return true;
}

/* ---- writing ---- */

typedef struct importing {
    em_import *import;
    char *partial, *journal_path, *text; /* text: what is imported how */
    em_dataset sums;                     /* the file's checksums */
    em_record *record;                   /* [num_blocks] */
    em_bulk bulk;
    em_journal journal;
    em_progress *progress;
    void *context;
    double done, all; /* bytes of this rank */
} importing;

static double block_bytes(const em_import *import, const em_import_block *block)
{
    const em_form *form = em_source_form(&import->selection.target, block->tensor, block->layer);
    int64_t cols = em_tensor_shape_of(&import->selection.target.config, block->tensor).cols;
    double row = (double)cols * (double)em_storage_bytes(form->storage);
    if (form->storage == EM_INT8) row += (double)form->groups * sizeof(float);
    return row * (double)em_range_size(block->rows);
}

static char *append(char *text, const char *more)
{
    char *longer = em_text("%s%s", text, more);
    free(text);
    return longer;
}

/* All that decides what is written: files with their sizes, config, layers, experts, storage. */
static char *describe(const em_import *import)
{
    const em_foreign *foreign = &import->foreign;
    const em_source *target = &import->selection.target;
    char *config = em_config_json(&target->config), *text = em_text("expertmesh import 1\n%s\n", config), line[64];
    free(config);
    for (int64_t i = 0; i < target->config.num_layers; i++) {
        snprintf(line, sizeof line, "layer %lld", (long long)import->layer[i]);
        text = append(text, line);
        for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
            const em_form *form = em_source_form(target, t, t < EM_FIRST_LAYER_TENSOR ? 0 : i);
            snprintf(line, sizeof line, " %s/%lld", em_storage_name(form->storage), (long long)form->groups);
            text = append(text, line);
        }
        text = append(text, "\n");
    }
    for (int64_t i = 0; i < target->config.num_experts; i++) {
        snprintf(line, sizeof line, "expert %lld\n", (long long)import->expert[i]);
        text = append(text, line);
    }
    for (int i = 0; i < foreign->num_inputs; i++) {
        char *input = em_text("%s, %lld bytes, changed %lld\n", foreign->input[i], (long long)foreign->size[i],
                              (long long)foreign->changed[i]);
        text = append(text, input);
        free(input);
    }
    return text;
}

/* Does a file of an earlier try have the structure that we want? Then where its datasets lie is ours. */
static bool take_over(importing *w)
{
    em_source *target = &w->import->selection.target, found;
    em_status ignored = {0};
    if (access(w->partial, W_OK) != 0 || !em_source_open(&found, w->partial, &ignored)) return false;
    int64_t count = EM_NUM_TENSORS * target->config.num_layers;
    bool same = memcmp(&found.config, &target->config, sizeof found.config) == 0 &&
                em_checksum_find(&found, &w->sums, &ignored);
    for (int64_t i = 0; same && i < count; i++)
        same = found.form[i].storage == target->form[i].storage && found.form[i].groups == target->form[i].groups;
    if (same) memcpy(target->form, found.form, (size_t)count * sizeof *found.form);
    em_source_close(&found);
    return same;
}

/* On rank 0: go on with what an earlier try left, or begin. */
static void prepare(importing *w, em_status *status)
{
    em_import *import = w->import;
    em_store *store = NULL;
    if (em_journal_read(w->journal_path, w->text, import->num_blocks, w->record) && take_over(w)) return;
    memset(w->record, 0, (size_t)import->num_blocks * sizeof *w->record);
    unlink(w->journal_path);
    bool good = em_source_create(&import->selection.target, w->partial, status) &&
                em_checksum_create(&import->selection.target, w->partial, &w->sums, status) &&
                (store = em_store_reopen(w->partial, status)) &&
                em_store_put_text(store, "/", "imported_from", import->foreign.path, status);
    good = em_store_close(store, status) && good;
    if (!good || !em_journal_create(w->journal_path, w->text, import->num_blocks, status)) unlink(w->partial);
}

static void tell_all(importing *w)
{
    em_import *import = w->import;
    em_source *target = &import->selection.target;
    MPI_Bcast(target->form, (int)(EM_NUM_TENSORS * target->config.num_layers * (int64_t)sizeof(em_form)), MPI_BYTE, 0,
              import->comm);
    MPI_Bcast(&w->sums, (int)sizeof w->sums, MPI_BYTE, 0, import->comm);
    MPI_Bcast(w->record, (int)(import->num_blocks * (int64_t)sizeof *w->record), MPI_BYTE, 0, import->comm);
}

/* Was it really written? After a crash of the machine the journal may say so without it. */
static bool is_there(const importing *w, const em_source *written, int64_t i, em_converter *c)
{
    const em_import_block *block = &w->import->block[i];
    const em_form *form = em_source_form(&w->import->selection.target, block->tensor, block->layer);
    em_tensor_shape shape = em_tensor_shape_of(&w->import->selection.target.config, block->tensor);
    int64_t row = block->expert * shape.rows + block->rows.begin, rows = em_range_size(block->rows);
    const em_dataset *part[] = {&form->data, form->storage == EM_INT8 ? &form->scale : NULL};
    const uint32_t sum[] = {w->record[i].data, w->record[i].scale};
    em_status ignored = {0};
    for (int p = 0; p < 2 && part[p]; p++) {
        int64_t width = part[p]->dims[part[p]->rank - 1], bytes = rows * width * (int64_t)em_type_bytes(part[p]->type);
        void *data = em_room_for(&c->raw, bytes, 1);
        if (!em_store_read_block(written->store, part[p], row, rows, 0, width, data, &ignored) ||
            em_checksum_add(0, data, bytes) != sum[p])
            return false;
    }
    return true;
}

static bool write_block(importing *w, em_converter *c, int64_t i, em_status *status)
{
    const em_import_block *block = &w->import->block[i];
    const em_form *form = em_source_form(&w->import->selection.target, block->tensor, block->layer);
    em_tensor_shape shape = em_tensor_shape_of(&w->import->selection.target.config, block->tensor);
    int64_t row = block->expert * shape.rows + block->rows.begin, rows = em_range_size(block->rows), cols = shape.cols;
    if (!em_convert_block(c, &w->import->selection, block, status) ||
        !em_bulk_write(&w->bulk, &form->data, cols, row, rows, 0, cols, c->data, cols, status))
        return false;
    em_record *record = &w->record[i];
    record->data = em_checksum_add(0, c->data, rows * cols * (int64_t)em_storage_bytes(form->storage));
    if (form->storage == EM_INT8) {
        if (!em_bulk_write(&w->bulk, &form->scale, form->groups, row, rows, 0, form->groups, c->scales, form->groups,
                           status))
            return false;
        record->scale = em_checksum_add(0, c->scales, rows * form->groups * (int64_t)sizeof(float));
    }
    record->written = EM_WRITTEN;
    return em_journal_note(&w->journal, i, record, status);
}

/* What this rank wrote until now survives even a crash of the machine. */
static bool secure(importing *w, em_range mine, em_status *status)
{
    if (!em_bulk_sync(&w->bulk, status)) return false;
    for (int64_t i = mine.begin; i < mine.end; i++) {
        if (w->record[i].written != EM_WRITTEN) continue;
        w->record[i].written = EM_ON_DISK;
        if (!em_journal_note(&w->journal, i, &w->record[i], status)) return false;
    }
    return true;
}

/* This rank's blocks: a run of those that are left, as many bytes as the others'. */
static em_range share_of(importing *w)
{
    const em_import *import = w->import;
    double left = 0, before = 0;
    em_range mine = {import->num_blocks, import->num_blocks};
    for (int64_t i = 0; i < import->num_blocks; i++)
        if (w->record[i].written != EM_ON_DISK) left += block_bytes(import, &import->block[i]);
    for (int64_t i = 0; i < import->num_blocks; i++) {
        double bytes = w->record[i].written != EM_ON_DISK ? block_bytes(import, &import->block[i]) : 0;
        int rank = left > 0 ? (int)((before + bytes / 2) / left * import->num_ranks) : 0;
        if (rank >= import->rank && mine.begin == import->num_blocks) mine.begin = i;
        if (rank > import->rank && mine.end == import->num_blocks) mine.end = i;
        if (rank == import->rank) w->all += bytes;
        before += bytes;
    }
    return mine;
}

static bool write_share(importing *w, int64_t *there, em_status *status)
{
    const double SECURE = 1e9; /* bytes between two waits for the disk */
    em_converter c = {.reader.foreign = &w->import->foreign, .head.foreign = &w->import->foreign};
    em_source written = {0};
    em_range mine = share_of(w);
    double unsecured = 0;
    bool good = em_source_open(&written, w->partial, status);
    for (int64_t i = mine.begin; good && i < mine.end; i++) {
        const em_import_block *block = &w->import->block[i];
        if (w->record[i].written == EM_ON_DISK) continue;
        em_stand((int)block->layer, "importing weights");
        if (w->record[i].written == EM_WRITTEN && is_there(w, &written, i, &c))
            ++*there;
        else
            good = write_block(w, &c, i, status);
        w->done += block_bytes(w->import, block);
        unsecured += block_bytes(w->import, block);
        if (good && unsecured >= SECURE) {
            good = secure(w, mine, status);
            unsecured = 0;
        }
        if (good && w->progress) w->progress(w->context, w->done < w->all ? w->done : 0.999 * w->all, w->all);
    }
    good = good && secure(w, mine, status);
    em_stand(-1, NULL);
    em_source_close(&written);
    em_converter_free(&c);
    return good;
}

/* On rank 0, when all blocks are there: the checksums of whole datasets. */
static bool write_sums(importing *w, em_status *status)
{
    const em_import *import = w->import;
    const em_source *target = &import->selection.target;
    int64_t count, at = -1, *sum;
    const em_dataset **list = em_checksum_datasets(target, &count);
    sum = em_zeroed(count, sizeof *sum);
    for (int64_t i = 0; i < import->num_blocks; i++) { /* in the order of datasets, and of rows within each */
        const em_import_block *block = &import->block[i];
        const em_form *form = em_source_form(target, block->tensor, block->layer);
        int64_t cols = em_tensor_shape_of(&target->config, block->tensor).cols, rows = em_range_size(block->rows);
        while (at < 0 || list[at] != &form->data) at++;
        sum[at] = em_checksum_join((uint32_t)sum[at], w->record[i].data,
                                   rows * cols * (int64_t)em_storage_bytes(form->storage));
        if (form->storage == EM_INT8)
            sum[at + 1] = em_checksum_join((uint32_t)sum[at + 1], w->record[i].scale,
                                           rows * form->groups * (int64_t)sizeof(float));
    }
    bool good = em_bulk_write(&w->bulk, &w->sums, 1, 0, count, 0, 1, sum, 1, status);
    free(sum);
    free(list);
    return good;
}

/* All records on rank 0: each rank noted its own. */
static void gather_records(importing *w, em_status *status)
{
    if (!em_journal_read(w->journal_path, w->text, w->import->num_blocks, w->record))
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be read again", w->journal_path);
    for (int64_t i = 0; i < w->import->num_blocks && status->code == EM_OK; i++)
        if (w->record[i].written != EM_ON_DISK)
            em_fail(status, EM_CANNOT_WRITE, "%s: block %lld of %lld was not written, though a rank said so",
                    w->partial, (long long)i, (long long)w->import->num_blocks);
}

static void finish(importing *w, const char *path, em_status *status)
{
    gather_records(w, status);
    if (status->code == EM_OK) write_sums(w, status);
    em_bulk_close(&w->bulk, status);
    if (status->code == EM_OK && rename(w->partial, path) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", w->partial, path, strerror(errno));
    if (status->code == EM_OK) unlink(w->journal_path);
}

static bool write_all(importing *w, const char *path, int64_t *there, em_status *status)
{
    em_import *import = w->import;
    if (import->rank == 0) prepare(w, status);
    if (!em_agree(import->comm, status)) return false;
    tell_all(w);
    for (int64_t i = 0; import->rank == 0 && i < import->num_blocks; i++) *there += w->record[i].written == EM_ON_DISK;
    if (em_bulk_open(&w->bulk, w->partial, status) && em_journal_open(&w->journal, w->journal_path, w->text, status))
        write_share(w, there, status);
    bool good = em_agree(import->comm, status);
    if (good && import->rank == 0) finish(w, path, status);
    em_bulk_close(&w->bulk, status);
    em_journal_close(&w->journal);
    good = good && em_agree(import->comm, status);
    if (!good && import->rank == 0 &&
        status->code != EM_CANNOT_WRITE) { /* it would fail again: nothing to go on with */
        unlink(w->partial);
        unlink(w->journal_path);
    }
    return good;
}

bool em_import_write(em_import *import, const char *path, em_progress *progress, void *context, em_imported *done,
                     em_status *status)
{
    importing w = {.import = import,
                   .partial = em_text("%s.partial", path),
                   .journal_path = em_text("%s.partial.blocks", path),
                   .text = describe(import),
                   .record = em_zeroed(import->num_blocks, sizeof *w.record),
                   .bulk.file = -1,
                   .journal.file = -1,
                   .progress = progress,
                   .context = context};
    int64_t there = 0;
    bool good = write_all(&w, path, &there, status);
    if (good && progress) progress(context, 1, 1);
    MPI_Allreduce(MPI_IN_PLACE, &there, 1, MPI_INT64_T, MPI_SUM, import->comm);
    *done = (em_imported){import->num_blocks, there, (double)em_weights_model_bytes(&import->selection.target)};
    free(w.partial);
    free(w.journal_path);
    free(w.text);
    free(w.record);
    return good;
}
