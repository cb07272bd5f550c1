#include "book.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool em_output_read(const em_call *call, em_output *form, em_status *status)
{
    const char *text = em_option_value(call, "output");
    *form = EM_OUTPUT_WORDS;
    if (!text) return true;
    *form = strcmp(text, "csv") == 0 ? EM_OUTPUT_CSV : EM_OUTPUT_JSON;
    if (*form == EM_OUTPUT_CSV || strcmp(text, "json") == 0) return true;
    return em_fail(status, EM_USAGE, "--output: \"%s\" is not csv or json", text);
}

enum { MOST = 16 }; /* tables, and notes */

typedef struct page {
    const char *name;
    char *title;
    em_table *table;
} page;

struct em_book {
    em_output form;
    const char *only;
    page pages[MOST];
    int num_pages;
    const char *known[MOST]; /* every table that there is */
    int num_known;
    char *notes[MOST];
    int num_notes;
};

em_book *em_book_new(em_output form, const char *only)
{
    em_book *book = em_zeroed(1, sizeof *book);
    book->form = form;
    book->only = only;
    return book;
}

void em_book_free(em_book *book)
{
    for (int i = 0; i < book->num_pages; i++) {
        em_table_free(book->pages[i].table);
        free(book->pages[i].title);
    }
    for (int i = 0; i < book->num_notes; i++) free(book->notes[i]);
    free(book);
}

bool em_book_insists(const em_book *book, const char *name)
{
    if (book->only) return strcmp(book->only, name) == 0;
    return book->form == EM_OUTPUT_CSV;
}

bool em_book_wants(em_book *book, const char *name)
{
    if (book->num_known == MOST) em_die("a book has no room for the table %s", name);
    book->known[book->num_known++] = name;
    if (book->only) return em_book_insists(book, name);
    return book->form != EM_OUTPUT_CSV || book->num_known == 1;
}

em_table *em_book_add(em_book *book, const char *name, const char *sides, const char *heads, const char *title, ...)
{
    char text[400];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    if (book->num_pages == MOST) em_die("a book has no room for the table %s", name);
    em_table *table = em_table_new((int)strlen(sides), sides);
    book->pages[book->num_pages++] = (page){name, em_text("%s", text), table};
    for (const char *next = heads; next; next = strchr(next, ',') ? strchr(next, ',') + 1 : NULL)
        em_table_cell(table, "%.*s", (int)strcspn(next, ","), next);
    return table;
}

void em_book_note(em_book *book, const char *format, ...)
{
    char text[1600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (book->num_notes < MOST) book->notes[book->num_notes++] = em_text("%s", text);
}

/* ---- printing ---- */

static void print_words(const em_book *book, FILE *out)
{
    for (int i = 0; i < book->num_pages; i++) {
        const page *p = &book->pages[i];
        long long rows = em_table_rows(p->table);
        fprintf(out, "%s%s: %s\n", i > 0 ? "\n" : "", p->name, p->title);
        if (rows > EM_BOOK_LONG && !book->only)
            fprintf(out, "(%lld rows; --table %s prints them, -o csv or json writes them)\n", rows, p->name);
        else if (rows == 0)
            fprintf(out, "(none)\n");
        else
            em_table_print(p->table, out);
    }
    for (int i = 0; i < book->num_notes; i++) fprintf(out, "%s%s\n", i == 0 ? "\n" : "", book->notes[i]);
}

static void print_json(const em_book *book, FILE *out)
{
    fprintf(out, "{");
    for (int i = 0; i < book->num_pages; i++) {
        fprintf(out, "%s\n  \"%s\": ", i > 0 ? "," : "", book->pages[i].name);
        em_table_json(book->pages[i].table, "  ", out);
    }
    fprintf(out, "\n}\n");
}

static bool check_asked(const em_book *book, em_status *status)
{
    char names[200] = "";
    for (int i = 0; i < book->num_known; i++) {
        if (!book->only || strcmp(book->only, book->known[i]) == 0) return true;
        size_t length = strlen(names);
        snprintf(names + length, sizeof names - length, "%s%s", i > 0 ? ", " : "", book->known[i]);
    }
    const char *nearest = em_nearest(book->only, book->known, book->num_known);
    return em_fail(status, EM_USAGE, "--table: there is no table \"%s\" here; %s%s", book->only,
                   nearest ? "the nearest is " : "they are ", nearest ? nearest : names);
}

bool em_book_print(const em_book *book, FILE *out, em_status *status)
{
    if (!check_asked(book, status)) return false;
    if (book->form == EM_OUTPUT_WORDS) {
        print_words(book, out);
        return true;
    }
    if (book->form == EM_OUTPUT_JSON)
        print_json(book, out);
    else if (book->num_pages > 0)
        em_table_csv(book->pages[0].table, out);
    for (int i = 0; i < book->num_notes; i++) fprintf(stderr, "%s\n", book->notes[i]);
    return true;
}
