/* table.h: tables of text with columns as wide as they need. */
#ifndef EXPERTMESH_TABLE_H
#define EXPERTMESH_TABLE_H

#include <stdio.h>

typedef struct em_table em_table;

/* A table of so many columns. left: a letter a column, 'l' for words (left) or 'r' for numbers (right). */
em_table *em_table_new(int columns, const char *sides);
void em_table_free(em_table *table);

/* Add the next cell, row by row; the first row is the heading. */
void em_table_cell(em_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print it: two blanks between columns, a rule under the heading. */
void em_table_print(const em_table *table, FILE *out);

#endif
