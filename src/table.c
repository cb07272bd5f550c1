#include "table.h"

#include "expertmesh/base.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct em_table {
    int columns;
    char *sides;
    char **cell;
    int count, room;
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
    for (int i = 0; i < table->count; i++) free(table->cell[i]);
    free(table->cell);
    free(table->sides);
    free(table);
}

void em_table_cell(em_table *table, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (table->count == table->room) {
        int room = table->room > 0 ? 2 * table->room : 64;
        table->cell = em_grow(table->cell, table->count, room, sizeof(char *));
        table->room = room;
    }
    table->cell[table->count++] = em_text("%s", text);
}

static int width_of(const em_table *table, int column)
{
    int width = 0;
    for (int i = column; i < table->count; i += table->columns) {
        int length = (int)strlen(table->cell[i]);
        width = length > width ? length : width;
    }
    return width;
}

static void print_rule(const em_table *table, FILE *out)
{
    for (int c = 0; c < table->columns; c++) {
        for (int i = width_of(table, c); i > 0; i--) fputc('-', out);
        fputs(c + 1 < table->columns ? "  " : "\n", out);
    }
}

void em_table_print(const em_table *table, FILE *out)
{
    for (int i = 0; i < table->count; i++) {
        int c = i % table->columns, last = c + 1 == table->columns;
        if (i == table->columns) print_rule(table, out);
        if (table->sides[c] == 'r')
            fprintf(out, "%*s", width_of(table, c), table->cell[i]);
        else
            fprintf(out, "%-*s", last ? 0 : width_of(table, c), table->cell[i]);
        fputs(last ? "\n" : "  ", out);
    }
}
