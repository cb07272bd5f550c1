/* table.h: tables of text: for the eye, with columns as wide as they need, or for programs, as CSV or JSON.
 *
 * What programs read has the headings as names, with '_' for a blank, and numbers in full; it is there to stay. */
#ifndef EXPERTMESH_TABLE_H
#define EXPERTMESH_TABLE_H

#include <stdint.h>
#include <stdio.h>

typedef struct em_table em_table;

/* A table of so many columns. left: a letter a column, 'l' for words (left) or 'r' for numbers (right). */
em_table *em_table_new(int columns, const char *sides);
void em_table_free(em_table *table);

/* Add the next cell, row by row; the first row is the heading. What a terminal would obey is shown as \n, \t or \xHH. */
void em_table_cell(em_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A text of any length. */
void em_table_text(em_table *table, const char *text);
/* A number: for the eye in so many digits. One that is not finite is absent. */
void em_table_real(em_table *table, int digits, double value);
void em_table_whole(em_table *table, int64_t value);
/* Seconds: for the eye as milliseconds, with as many decimals in every row. */
void em_table_seconds(em_table *table, double seconds);
/* For the eye "1.5 MB", for programs the number. */
void em_table_bytes(em_table *table, int64_t bytes);
/* Absent: for the eye "-", in CSV nothing, in JSON null. */
void em_table_none(em_table *table);

/* Rows, without the heading. */
int64_t em_table_rows(const em_table *table);

/* Print it: two blanks between columns, a rule under the heading. */
void em_table_print(const em_table *table, FILE *out);

/* RFC 4180, with a line feed at the end of a line. */
void em_table_csv(const em_table *table, FILE *out);

/* A list of objects, one a row and line, each line after the first with this indent; no line feed at the end. Columns of
 * words are strings, of numbers numbers. */
void em_table_json(const em_table *table, const char *indent, FILE *out);

/* Text as a JSON string, with its quotes; bytes that are not UTF-8 as U+FFFD. */
void em_json_text(const char *text, FILE *out);

#endif
