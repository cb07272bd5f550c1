/* book.h: what a command answers: a few named tables, for the eye, or in one form for programs (-o csv, -o json). */
#ifndef EXPERTMESH_BOOK_H
#define EXPERTMESH_BOOK_H

#include "options.h"
#include "table.h"

typedef enum em_output { EM_OUTPUT_WORDS, EM_OUTPUT_CSV, EM_OUTPUT_JSON } em_output;

/* What --output says: csv, json, or nothing. */
bool em_output_read(const em_call *call, em_output *form, em_status *status);

typedef struct em_book em_book;

/* only: the one table that is asked for, or NULL: all; as CSV the first, for a CSV file holds one. Borrowed. */
em_book *em_book_new(em_output form, const char *only);
void em_book_free(em_book *book);

/* Is this table to be made? Asked once for each that there is, in order. */
bool em_book_wants(em_book *book, const char *name);

/* Was just this one asked for, so that one that cannot be made is a failure? */
bool em_book_insists(const em_book *book, const char *name);

/* A table, empty below its heading. title: what it says, one line. heads: the columns, "layer,most at"; sides: as for
 * em_table_new. The book owns it. */
em_table *em_book_add(em_book *book, const char *name, const char *sides, const char *heads, const char *title, ...)
    __attribute__((format(printf, 5, 6)));

/* A line to be read with the tables, of what is not in them. */
void em_book_note(em_book *book, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print all of it. Fails where a table was asked for that there is not. For the eye a table of more than EM_BOOK_LONG rows
 * is only told of, unless it was asked for; notes go to standard error where programs read. */
enum { EM_BOOK_LONG = 100 };
bool em_book_print(const em_book *book, FILE *out, em_status *status);

#endif
