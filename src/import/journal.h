/* journal.h: which blocks of a file are written, kept beside it so that an interrupted import goes on where it was. Private to
 * the library.
 *
 * The journal begins with a text that says what is imported how; only the same text goes on. Then each block has a record of its
 * own place, which the rank that writes the block writes after it. */
#ifndef EXPERTMESH_JOURNAL_H
#define EXPERTMESH_JOURNAL_H

#include "expertmesh/base.h"

typedef enum em_written {
    EM_NOT_WRITTEN,
    EM_WRITTEN, /* and handed to the system: there unless the machine crashed */
    EM_ON_DISK
} em_written;

typedef struct em_record {
    uint32_t written;
    uint32_t data, scale; /* checksums of the block */
    uint32_t reserved;
} em_record;

typedef struct em_journal {
    int file;         /* -1: none */
    int64_t start;    /* of the records */
    const char *path; /* borrowed */
} em_journal;

/* Begin a journal of so many blocks, none written. Local. */
bool em_journal_create(const char *path, const char *text, int64_t num_blocks, em_status *status);
/* Is there one of this text and so many blocks? Then its records. A journal that cannot be read is none. Local. */
bool em_journal_read(const char *path, const char *text, int64_t num_blocks, em_record *record);

/* Note blocks. Any rank, each its own. */
bool em_journal_open(em_journal *journal, const char *path, const char *text, em_status *status);
bool em_journal_note(const em_journal *journal, int64_t block, const em_record *record, em_status *status);
void em_journal_close(em_journal *journal);

#endif
