#include "table.h"

#include "expertmesh/base.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Where the two texts of a cell begin: for the eye, and for programs. */
typedef struct cell {
    int64_t shown, raw;
} cell;

struct em_table {
    int columns;
    char *sides;
    cell *cells;
    int64_t count, room;
    char *text; /* of all cells, each ended by a NUL */
    int64_t used, text_room;
};

em_table *em_table_new(int columns, const char *sides)
{
    em_table *table = em_zeroed(1, sizeof *table);
    table->columns = columns;
    table->sides = em_text("%s", sides);
    return table;
}

void em_table_free(em_table *table)
{
    free(table->cells);
    free(table->text);
    free(table->sides);
    free(table);
}

static int64_t add_text(em_table *table, const char *text)
{
    int64_t begin = table->used, size = (int64_t)strlen(text) + 1;
    if (begin + size > table->text_room) {
        int64_t room = 2 * (begin + size) + 1024;
        table->text = em_grow(table->text, begin, room, 1);
        table->text_room = room;
    }
    memcpy(table->text + begin, text, (size_t)size);
    table->used += size;
    return begin;
}

/* raw: NULL: the same as is shown. */
static void add_cell(em_table *table, const char *shown, const char *raw)
{
    if (table->count == table->room) {
        int64_t room = table->room > 0 ? 2 * table->room : 64;
        table->cells = em_grow(table->cells, table->count, room, sizeof *table->cells);
        table->room = room;
    }
    int64_t begin = add_text(table, shown);
    table->cells[table->count++] = (cell){begin, raw ? add_text(table, raw) : begin};
}

void em_table_cell(em_table *table, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_cell(table, text, NULL);
}

void em_table_text(em_table *table, const char *text)
{
    add_cell(table, text, NULL);
}

void em_table_real(em_table *table, int digits, double value)
{
    char shown[40], raw[40];
    if (!isfinite(value)) {
        em_table_none(table);
        return;
    }
    snprintf(shown, sizeof shown, "%.*g", digits, value);
    snprintf(raw, sizeof raw, "%.9g", value); /* a float32 reads back as itself */
    add_cell(table, shown, raw);
}

void em_table_whole(em_table *table, int64_t value)
{
    em_table_cell(table, "%lld", (long long)value);
}

void em_table_bytes(em_table *table, int64_t bytes)
{
    em_bytes_text shown;
    char raw[24];
    snprintf(raw, sizeof raw, "%lld", (long long)bytes);
    add_cell(table, em_bytes((double)bytes, shown), raw);
}

void em_table_none(em_table *table)
{
    add_cell(table, "-", "");
}

int64_t em_table_rows(const em_table *table)
{
    return table->count > 0 ? table->count / table->columns - 1 : 0;
}

static const char *shown(const em_table *table, int64_t i)
{
    return table->text + table->cells[i].shown;
}

static const char *raw(const em_table *table, int64_t i)
{
    return table->text + table->cells[i].raw;
}

/* ---- for the eye ---- */

static void measure(const em_table *table, int *width)
{
    for (int c = 0; c < table->columns; c++) width[c] = 0;
    for (int64_t i = 0; i < table->count; i++) {
        int length = (int)strlen(shown(table, i)), *widest = &width[i % table->columns];
        *widest = length > *widest ? length : *widest;
    }
}

/* Words at the end of a row may be a long text: nothing is below its end. */
static void print_rule(const em_table *table, const int *width, FILE *out)
{
    enum { LONGEST = 60 };
    for (int c = 0; c < table->columns; c++) {
        bool last = c + 1 == table->columns, cut = last && table->sides[c] == 'l' && width[c] > LONGEST;
        for (int i = cut ? LONGEST : width[c]; i > 0; i--) fputc('-', out);
        fputs(last ? "\n" : "  ", out);
    }
}

void em_table_print(const em_table *table, FILE *out)
{
    int *width = em_alloc(table->columns, sizeof *width);
    measure(table, width);
    for (int64_t i = 0; i < table->count; i++) {
        int c = (int)(i % table->columns), last = c + 1 == table->columns;
        if (i == table->columns) print_rule(table, width, out);
        if (table->sides[c] == 'r')
            fprintf(out, "%*s", width[c], shown(table, i));
        else
            fprintf(out, "%-*s", last ? 0 : width[c], shown(table, i));
        fputs(last ? "\n" : "  ", out);
    }
    free(width);
}

/* ---- for programs ---- */

/* The name of a column. Freed with free. */
static char *name_of(const em_table *table, int column)
{
    char *name = em_text("%s", raw(table, column));
    for (char *c = name; *c; c++)
        if (*c == ' ') *c = '_';
    return name;
}

static void print_csv(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"') fputc('"', out);
        fputc(*c, out);
    }
    fputc('"', out);
}

void em_table_csv(const em_table *table, FILE *out)
{
    for (int64_t i = 0; i < table->count; i++) {
        int c = (int)(i % table->columns);
        char *name = i < table->columns ? name_of(table, c) : NULL;
        print_csv(name ? name : raw(table, i), out);
        fputc(c + 1 < table->columns ? ',' : '\n', out);
        free(name);
    }
}

void em_json_text(const char *text, FILE *out)
{
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if ((unsigned char)*c < ' ')
            fprintf(out, "\\u%04x", (unsigned)*c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

void em_table_json(const em_table *table, const char *indent, FILE *out)
{
    char **name = em_alloc(table->columns, sizeof *name);
    for (int c = 0; c < table->columns; c++) name[c] = name_of(table, c);
    fputc('[', out);
    for (int64_t i = table->columns; i < table->count; i++) {
        int c = (int)(i % table->columns);
        const char *text = raw(table, i);
        if (c == 0) fprintf(out, "%s\n%s  {", i > table->columns ? "," : "", indent);
        em_json_text(name[c], out);
        fputs(": ", out);
        if (text[0] == '\0')
            fputs("null", out);
        else if (table->sides[c] == 'r')
            fputs(text, out);
        else
            em_json_text(text, out);
        fputs(c + 1 < table->columns ? ", " : "}", out);
    }
    if (em_table_rows(table) > 0) fprintf(out, "\n%s", indent);
    fputc(']', out);
    for (int c = 0; c < table->columns; c++) free(name[c]);
    free(name);
}
