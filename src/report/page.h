/* page.h: an HTML page as it is written: markup, text that is escaped, numbers, and tables below pictures.
 *
 * A failed write is not told here: the one who opened `out` asks it at the end. */
#ifndef EXPERTMESH_REPORT_PAGE_H
#define EXPERTMESH_REPORT_PAGE_H

#include <stdint.h>
#include <stdio.h>

typedef struct em_page {
    FILE *out;
    int num_pictures; /* so far: each has an id of its own */
} em_page;

/* Markup as it is. Nothing that came from a file may be among the arguments: that is what em_page_text is for. */
void em_page_put(em_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Text from anywhere: what HTML would read as markup is escaped, what is no UTF-8 or no character becomes U+FFFD. */
void em_page_text(em_page *page, const char *text);

/* A number in words: whole ones exactly, others to six digits; a dash for NaN. Written to buffer, which is returned. */
typedef char em_number_text[32];
const char *em_number(double value, em_number_text buffer);

/* The numbers of a picture as a table, folded away below it: open, then cells row by row, the heading first, then close.
 * The first cell of a row names it. caption is markup of our own. */
typedef struct em_numbers {
    em_page *page;
    int columns, place;
} em_numbers;
em_numbers em_numbers_open(em_page *page, int columns, const char *caption);
void em_numbers_cell(em_numbers *numbers, double value);
void em_numbers_word(em_numbers *numbers, const char *text);
void em_numbers_close(em_numbers *numbers);

#endif
