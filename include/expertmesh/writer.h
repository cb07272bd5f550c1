/* expertmesh/writer.h: writes in place to a file, behind the arithmetic.
 *
 *   em_writer_put --copies--> blocks --one thread--> em_bulk_write
 *
 * What is put is copied into blocks of a queue and written by a thread that does nothing else. A mark, and a number that is a
 * dataset alone (a counter), come after what was put before them and before what is put after; between these the order is
 * the file's, with small pieces beside each other as one write, and where pieces overlap, that in which they were put.
 * Whenever 16 MB were written, the thread waits until the disk has them, so that little is waited for at the end. The queue
 * grows block by block to its bound; then a put waits until a block is written. A mark between puts tells, later and without
 * waiting, how far the file has come. After the first failure nothing more is written and no put waits.
 * Advantage: the caller's arithmetic goes on while the disk works. Cost: one copy, the memory of the queue, and that what
 * is put is not yet written. One thread calls these functions; none of them calls MPI or HDF5. */
#ifndef EXPERTMESH_WRITER_H
#define EXPERTMESH_WRITER_H

#include "expertmesh/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a block, with what says where its data go. A bound on a queue counts in blocks. */
enum { EM_WRITER_BLOCK = 2 << 20 };

typedef struct em_writer em_writer;

/* bulk is borrowed. most: bytes that the queue may hold at once, and two blocks at least. */
em_writer *em_writer_start(const em_bulk *bulk, int64_t most);

/* As em_bulk_write, later; data may be changed at once, dataset must outlive the writer. */
void em_writer_put(em_writer *writer, const em_dataset *dataset, int64_t width, int64_t row, int64_t rows, int64_t col,
                   int64_t cols, const void *data, int64_t stride);

/* A mark after all that was put so far, and the thread may begin with that. Returns how many marks there are. */
int64_t em_writer_mark(em_writer *writer);

/* How many marks the thread has passed: what was put before them is in the file. -1, and the status, after a failure. */
int64_t em_writer_passed(em_writer *writer, em_status *status);

/* Wait until everything is in the file, or a write has failed. */
bool em_writer_drain(em_writer *writer, em_status *status);

/* The most bytes that the queue has held. */
int64_t em_writer_held(em_writer *writer);

/* End the thread after the write, or the wait for the disk, at hand; what is not yet written is forgotten. writer may be NULL. */
void em_writer_stop(em_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
