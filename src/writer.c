#include "expertmesh/writer.h"

#include "expertmesh/standing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Where a run of numbers goes that lie beside each other in the file; or a mark. */
typedef struct record {
    const em_dataset *dataset; /* NULL: a mark */
    int64_t first, count;      /* numbers of the dataset; first is the mark's number */
    int64_t start;             /* of its bytes in the block's data */
} record;

/* Data from the front, records from the back, until they meet. The caller fills it while the thread writes what is
 * already published. */
typedef struct block {
    struct block *next;
    int64_t bytes;     /* of data */
    int64_t records;   /* the caller's */
    int64_t published; /* of the records: the thread may write them; guarded */
    int64_t written;   /* of those; the thread's */
    char data[];
} block;

enum {
    SLAB = 4,        /* blocks whose memory is one array: large enough for huge pages */
    GATHER = 1 << 19 /* bytes of records that are one write, as they lie beside each other in the file */
};

struct em_writer {
    const em_bulk *bulk; /* borrowed */
    pthread_t thread;
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t work;   /* something was published, or it is to stop */
    pthread_cond_t done;   /* a block was written, or everything was */
    block *first, *last;   /* the queue; the last block is the one being filled */
    block *free;           /* written ones, the latest first: its memory is warm */
    int64_t blocks, most;  /* blocks there are, and may be */
    char **slab;           /* their memory, SLAB of them in each */
    int64_t marks, passed; /* put, and reached by the thread */
    bool idle;             /* all that was published is written */
    em_status status;      /* the first failure */
    atomic_bool failed;    /* as the status says */
    atomic_bool stop;
    /* the thread's own */
    int64_t ahead;  /* bytes written since the disk last had everything */
    em_room order;  /* const record *, as they are written */
    char *gathered; /* [GATHER] bytes of several records */
};

static record *record_of(block *b, int64_t index)
{
    return (record *)(void *)((char *)b + EM_WRITER_BLOCK) - 1 - index;
}

/* Bytes of data that may be added together with one more record. */
static int64_t room_in(const block *b)
{
    int64_t records = (b->records + 1) * (int64_t)sizeof(record);
    return EM_WRITER_BLOCK - (int64_t)offsetof(block, data) - b->bytes - records;
}

/* ---- the thread ---- */

static void fail_with(em_writer *w, const em_status *status)
{
    pthread_mutex_lock(&w->lock);
    w->status = *status;
    pthread_mutex_unlock(&w->lock);
    atomic_store(&w->failed, true);
}

static void pass_mark(em_writer *w, int64_t mark)
{
    pthread_mutex_lock(&w->lock);
    w->passed = mark;
    pthread_mutex_unlock(&w->lock);
}

/* Write, and let the disk never fall far behind: the caller, who goes on, would wait for it at the end. After a failure
 * nothing is written. */
static void write_numbers(em_writer *w, const em_dataset *dataset, int64_t first, int64_t count, const char *data)
{
    enum { FAR = 16 << 20 };
    em_status status = {0};
    em_beat();
    if (atomic_load(&w->failed) || atomic_load(&w->stop)) return;
    bool good = em_bulk_write(w->bulk, dataset, 1, first, count, 0, 1, data, 1, &status);
    w->ahead += count * (int64_t)em_type_bytes(dataset->type);
    if (good && w->ahead >= FAR) {
        good = em_bulk_sync(w->bulk, &status);
        w->ahead = 0;
    }
    if (!good) fail_with(w, &status);
}

/* By their places in the file. */
static int by_place(const void *a, const void *b)
{
    const record *x = *(const record *const *)a, *y = *(const record *const *)b;
    if (x->dataset != y->dataset) return x->dataset->offset < y->dataset->offset ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static bool beside(const record *before, const record *after)
{
    return before->dataset == after->dataset && before->first + before->count == after->first;
}

static bool overlap(const record *before, const record *after)
{
    return before->dataset == after->dataset && before->first + before->count > after->first;
}

/* Records [begin, end) of a block in the order of the file; where two overlap, in the order they were put. */
static const record **put_in_order(em_writer *w, block *b, int64_t begin, int64_t end)
{
    int64_t count = end - begin;
    const record **order = em_room_for(&w->order, count, sizeof *order);
    bool apart = true;
    for (int64_t i = 0; i < count; i++) order[i] = record_of(b, begin + i);
    qsort(order, (size_t)count, sizeof *order, by_place);
    for (int64_t i = 1; apart && i < count; i++) apart = !overlap(order[i - 1], order[i]);
    for (int64_t i = 0; !apart && i < count; i++) order[i] = record_of(b, begin + i);
    return order;
}

/* Records [begin, end) of a block, whose order does not matter. Small ones beside each other are gathered first: a disk that
 * is far away minds many small writes. */
static void write_records(em_writer *w, block *b, int64_t begin, int64_t end)
{
    const record **order = put_in_order(w, b, begin, end);
    for (int64_t i = 0, run; i < end - begin; i += run) {
        const record *r = order[i];
        int64_t size = (int64_t)em_type_bytes(r->dataset->type), count = r->count;
        for (run = 1; i + run < end - begin && beside(order[i + run - 1], order[i + run]) &&
                      (count + order[i + run]->count) * size <= GATHER;
             run++)
            count += order[i + run]->count;
        char *to = w->gathered;
        for (int64_t j = i; run > 1 && j < i + run; to += order[j++]->count * size)
            memcpy(to, b->data + order[j]->start, (size_t)(order[j]->count * size));
        write_numbers(w, r->dataset, r->first, count, run > 1 ? w->gathered : b->data + r->start);
    }
}

/* Must what was put before it be written before it? */
static bool keeps_its_turn(const record *r)
{
    return !r->dataset || r->dataset->rank == 0;
}

/* Records [begin, end) of a block: together what lies between two that keep their turns. */
static void write_published(em_writer *w, block *b, int64_t begin, int64_t end)
{
    for (int64_t turn; begin < end; begin = turn + 1) {
        for (turn = begin; turn < end && !keeps_its_turn(record_of(b, turn));) turn++;
        write_records(w, b, begin, turn);
        if (turn == end) break;
        const record *r = record_of(b, turn);
        if (r->dataset)
            write_numbers(w, r->dataset, r->first, r->count, b->data + r->start);
        else if (!atomic_load(&w->failed) && !atomic_load(&w->stop))
            pass_mark(w, r->first);
    }
}

/* Take off the blocks that are full and written. With the lock held. */
static void free_written(em_writer *w)
{
    for (block *b; (b = w->first) != w->last && b->written == b->published;) {
        w->first = b->next;
        b->next = w->free;
        w->free = b;
        pthread_cond_broadcast(&w->done);
    }
}

/* The next block with something to write; NULL when the thread is to stop. With the lock held. */
static block *wait_for_work(em_writer *w)
{
    while (!atomic_load(&w->stop)) {
        free_written(w);
        if (w->first && w->first->written < w->first->published) return w->first;
        w->idle = true;
        pthread_cond_broadcast(&w->done);
        pthread_cond_wait(&w->work, &w->lock);
    }
    return NULL;
}

static void *write_behind(void *context)
{
    em_writer *w = context;
    pthread_mutex_lock(&w->lock);
    for (block *b; (b = wait_for_work(w));) {
        int64_t published = b->published;
        pthread_mutex_unlock(&w->lock);
        write_published(w, b, b->written, published);
        pthread_mutex_lock(&w->lock);
        b->written = published;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the caller ---- */

em_writer *em_writer_start(const em_bulk *bulk, int64_t most)
{
    em_writer *w = em_zeroed(1, sizeof *w);
    w->bulk = bulk;
    w->most = most / EM_WRITER_BLOCK > 2 ? most / EM_WRITER_BLOCK : 2;
    w->idle = true;
    w->gathered = em_alloc(GATHER, 1);
    w->slab = em_zeroed(w->most / SLAB + 1, sizeof *w->slab);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_cond_init(&w->done, NULL);
    int error = pthread_create(&w->thread, NULL, write_behind, w);
    if (error) em_die("no thread could be started to write %s: %s", bulk->path, strerror(error));
    return w;
}

/* Hand over what is in the last block. With the lock held. */
static void publish(em_writer *w)
{
    if (!w->last || w->last->published == w->last->records) return;
    w->last->published = w->last->records;
    w->idle = false;
    pthread_cond_signal(&w->work);
}

/* A block without anything in it: a written one, a new one, or, when there may be no more, the next to be written. With
 * the lock held. */
static block *empty_block(em_writer *w)
{
    em_wait("the disk");
    while (!w->free && w->blocks == w->most) pthread_cond_wait(&w->done, &w->lock);
    em_wait(NULL);
    block *b = w->free;
    if (b) {
        w->free = b->next;
    } else {
        char **slab = &w->slab[w->blocks / SLAB];
        if (!*slab) *slab = em_alloc(SLAB * EM_WRITER_BLOCK, 1);
        b = (block *)(void *)(*slab + w->blocks++ % SLAB * EM_WRITER_BLOCK);
    }
    *b = (block){0};
    return b;
}

/* The block to fill has no more room: hand it over and begin another. */
static void next_block(em_writer *w)
{
    pthread_mutex_lock(&w->lock);
    publish(w);
    block *b = empty_block(w);
    if (w->last)
        w->last->next = b;
    else
        w->first = b;
    w->last = b;
    pthread_cond_signal(&w->work); /* the block before may be written already: only now it can be taken off */
    pthread_mutex_unlock(&w->lock);
}

/* A new record at the end of the last block; the last record instead, where this goes on from it in the file. */
static record *record_for(em_writer *w, const em_dataset *dataset, int64_t first)
{
    block *b = w->last;
    record *last = b->records > b->published ? record_of(b, b->records - 1) : NULL;
    if (last && dataset && last->dataset == dataset && last->first + last->count == first) return last;
    record *r = record_of(b, b->records++);
    *r = (record){.dataset = dataset, .first = first, .start = b->bytes};
    return r;
}

static void append(em_writer *w, const em_dataset *dataset, int64_t first, int64_t count, const char *data)
{
    int64_t size = (int64_t)em_type_bytes(dataset->type);
    while (count > 0 && !atomic_load(&w->failed)) {
        if (!w->last || room_in(w->last) < size) next_block(w);
        int64_t fits = room_in(w->last) / size, some = count < fits ? count : fits;
        record *r = record_for(w, dataset, first);
        memcpy(w->last->data + w->last->bytes, data, (size_t)(some * size));
        w->last->bytes += some * size;
        r->count += some;
        first += some;
        count -= some;
        data += some * size;
    }
}

void em_writer_put(em_writer *writer, const em_dataset *dataset, int64_t width, int64_t row, int64_t rows, int64_t col,
                   int64_t cols, const void *data, int64_t stride)
{
    int64_t size = (int64_t)em_type_bytes(dataset->type);
    bool one = cols == width && stride == width;
    int64_t pieces = one ? (rows > 0) : rows, length = one ? rows * cols : cols;
    for (int64_t i = 0; i < pieces; i++)
        append(writer, dataset, (row + i) * width + col, length, (const char *)data + i * stride * size);
}

int64_t em_writer_mark(em_writer *writer)
{
    if (!writer->last || room_in(writer->last) < 0) next_block(writer);
    record_for(writer, NULL, ++writer->marks);
    pthread_mutex_lock(&writer->lock);
    publish(writer);
    pthread_mutex_unlock(&writer->lock);
    return writer->marks;
}

/* With the lock held. */
static bool is_well(const em_writer *w, em_status *status)
{
    if (w->status.code && status->code == EM_OK) *status = w->status;
    return w->status.code == EM_OK;
}

int64_t em_writer_passed(em_writer *writer, em_status *status)
{
    pthread_mutex_lock(&writer->lock);
    int64_t passed = is_well(writer, status) ? writer->passed : -1;
    pthread_mutex_unlock(&writer->lock);
    return passed;
}

bool em_writer_drain(em_writer *writer, em_status *status)
{
    pthread_mutex_lock(&writer->lock);
    publish(writer);
    em_wait("the disk");
    while (!writer->idle) pthread_cond_wait(&writer->done, &writer->lock);
    em_wait(NULL);
    bool good = is_well(writer, status);
    pthread_mutex_unlock(&writer->lock);
    return good;
}

int64_t em_writer_held(em_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    int64_t held = writer->blocks * EM_WRITER_BLOCK;
    pthread_mutex_unlock(&writer->lock);
    return held;
}

void em_writer_stop(em_writer *writer)
{
    if (!writer) return;
    pthread_mutex_lock(&writer->lock);
    atomic_store(&writer->stop, true);
    pthread_cond_signal(&writer->work);
    pthread_mutex_unlock(&writer->lock);
    em_wait("the disk");
    pthread_join(writer->thread, NULL);
    em_wait(NULL);
    for (int64_t i = 0; i * SLAB < writer->blocks; i++) free(writer->slab[i]);
    free(writer->slab);
    em_room_free(&writer->order);
    free(writer->gathered);
    pthread_cond_destroy(&writer->done);
    pthread_cond_destroy(&writer->work);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}
