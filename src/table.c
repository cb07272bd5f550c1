#include "table.h"

#include "expertmesh/base.h"
#include "utf8.h"

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

/* Would a terminal obey it, or begin a line? Controls, also those of two bytes (U+0080 to U+009F). */
static bool is_control(const char *at, int bytes)
{
    unsigned char first = (unsigned char)at[0], second = bytes == 2 ? (unsigned char)at[1] : 0xff;
    return first < ' ' || first == 0x7f || (first == 0xc2 && second < 0xa0);
}

/* "\n", "\t" or "\x1b", for a byte that is not shown as it is. Returns how many letters. */
static size_t spell_byte(char byte, char letters[5])
{
    if (byte == '\n' || byte == '\t') return (size_t)snprintf(letters, 5, "\\%c", byte == '\n' ? 'n' : 't');
    return (size_t)snprintf(letters, 5, "\\x%02x", (unsigned char)byte);
}

/* A text as it is shown: of what is a control, or no character, the bytes. */
static int64_t add_shown(em_table *table, const char *text)
{
    size_t length = strlen(text), used = 0;
    char *shown = em_alloc(4 * (int64_t)length + 1, 1);
    for (size_t i = 0; i < length;) {
        int bytes = em_utf8_character(text + i, length - i);
        size_t count = bytes > 0 ? (size_t)bytes : 1;
        bool plain = bytes > 0 && !is_control(text + i, bytes);
        if (plain) memcpy(shown + used, text + i, count);
        if (plain) used += count;
        for (size_t k = 0; !plain && k < count; k++) used += spell_byte(text[i + k], shown + used);
        i += count;
    }
    shown[used] = '\0';
    int64_t begin = add_text(table, shown);
    free(shown);
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
    int64_t begin = add_shown(table, shown);
    bool same = !raw && strcmp(table->text + begin, shown) == 0;
    table->cells[table->count++] = (cell){begin, same ? begin : add_text(table, raw ? raw : shown)};
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

/* shown: as the eye gets it. */
static void add_number(em_table *table, const char *shown, double value)
{
    char raw[40];
    snprintf(raw, sizeof raw, "%.9g", value); /* a float32 reads back as itself */
    if (isfinite(value))
        add_cell(table, shown, raw);
    else
        em_table_none(table);
}

void em_table_real(em_table *table, int digits, double value)
{
    char shown[40];
    snprintf(shown, sizeof shown, "%.*g", digits, value);
    add_number(table, shown, value);
}

void em_table_seconds(em_table *table, double seconds)
{
    char shown[40];
    snprintf(shown, sizeof shown, "%.3f", seconds * 1e3);
    add_number(table, shown, seconds);
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

/* Places that a text takes: its characters, not its bytes. */
static int width_of(const char *text)
{
    int width = 0;
    for (const char *c = text; *c; c++) width += (*c & 0xc0) != 0x80;
    return width;
}

static void measure(const em_table *table, int *width)
{
    for (int c = 0; c < table->columns; c++) width[c] = 0;
    for (int64_t i = 0; i < table->count; i++) {
        int length = width_of(shown(table, i)), *widest = &width[i % table->columns];
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
        int blanks = width[c] - width_of(shown(table, i));
        bool right = table->sides[c] == 'r';
        fprintf(out, "%*s%s%*s%s", right ? blanks : 0, "", shown(table, i), right || last ? 0 : blanks, "",
                last ? "\n" : "  ");
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
    size_t length = strlen(text);
    fputc('"', out);
    for (size_t i = 0; i < length;) {
        int bytes = em_utf8_character(text + i, length - i);
        if (bytes <= 0)
            fputs("\\ufffd", out); /* JSON is UTF-8 (RFC 8259) */
        else if (text[i] == '"' || text[i] == '\\')
            fprintf(out, "\\%c", text[i]);
        else if ((unsigned char)text[i] < ' ')
            fprintf(out, "\\u%04x", (unsigned)text[i]);
        else
            fwrite(text + i, 1, (size_t)bytes, out);
        i += bytes > 0 ? (size_t)bytes : 1;
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
