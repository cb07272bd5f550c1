/* The list of figures and its three forms; declared in bench.h. */
#include "bench.h"

#include "../table.h"
#include "expertmesh/version.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void em_series_add(em_series *series, double value)
{
    if (series->count < EM_MOST_RUNS) series->value[series->count++] = value;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static em_series sorted(const em_series *series)
{
    em_series copy = *series;
    qsort(copy.value, (size_t)copy.count, sizeof copy.value[0], ascending);
    return copy;
}

double em_series_median(const em_series *series)
{
    em_series s = sorted(series);
    return s.count == 0 ? (double)NAN : (s.value[(s.count - 1) / 2] + s.value[s.count / 2]) / 2;
}

double em_series_best(const em_series *series)
{
    em_series s = sorted(series);
    return s.count == 0 ? (double)NAN : s.value[s.count - 1];
}

double em_series_spread(const em_series *series)
{
    em_series s = sorted(series);
    return s.count == 0 ? (double)NAN : (s.value[s.count - 1] - s.value[0]) / em_series_median(series);
}

em_figure *em_figures_add(em_figures *figures, const char *group, const char *unit, const em_series *series,
                          const char *what, ...)
{
    if (figures->count == figures->room) {
        int room = figures->room > 0 ? 2 * figures->room : 64;
        figures->figure = em_grow(figures->figure, figures->count, room, sizeof(em_figure));
        figures->room = room;
    }
    em_figure *figure = &figures->figure[figures->count++];
    *figure = (em_figure){.group = group,
                          .unit = unit,
                          .value = em_series_median(series),
                          .spread = em_series_spread(series),
                          .runs = series->count,
                          .limit = (double)NAN,
                          .target = (double)NAN};
    va_list args;
    va_start(args, what);
    vsnprintf(figure->what, sizeof figure->what, what, args);
    va_end(args);
    return figure;
}

void em_figure_limit(em_figure *figure, double limit, const char *against)
{
    figure->limit = limit;
    figure->against = isfinite(limit) ? against : NULL;
}

void em_figure_target(em_figure *figure, double target, bool at_most)
{
    figure->target = target;
    figure->at_most = at_most;
}

void em_figures_free(em_figures *figures)
{
    free(figures->figure);
    *figures = (em_figures){0};
}

/* ---- the columns ---- */

enum { WHAT_IT_IS = 3, COLUMNS = 11 };
static const char *const columns[COLUMNS] = {"group", "what",    "unit",  "value",  "spread", "runs",
                                             "limit", "against", "ratio", "target", "reached"};

typedef char cell[120];

/* Text of a column, "" where a figure has none. Numbers in as many digits as their spread makes sense of. */
static const char *text_of(const em_figure *f, int column, cell text)
{
    double ratio = f->value / f->limit;
    bool limited = isfinite(f->limit), aimed = limited && isfinite(f->target);
    text[0] = '\0';
    switch (column) {
    case 0: return f->group;
    case 1: return f->what;
    case 2: return f->unit;
    case 3: snprintf(text, sizeof(cell), "%.4g", f->value); break;
    case 4: snprintf(text, sizeof(cell), "%.3f", f->spread); break;
    case 5: snprintf(text, sizeof(cell), "%d", f->runs); break;
    case 6:
        if (limited) snprintf(text, sizeof(cell), "%.4g", f->limit);
        break;
    case 7: return f->against ? f->against : "";
    case 8:
        if (limited) snprintf(text, sizeof(cell), "%.3f", ratio);
        break;
    case 9:
        if (aimed) snprintf(text, sizeof(cell), "%s %g", f->at_most ? "<=" : ">=", f->target);
        break;
    default:
        if (aimed) return (f->at_most ? ratio <= f->target : ratio >= f->target) ? "yes" : "no";
    }
    return text;
}

/* Is a column words, in JSON and for the eye? */
static bool is_words(int column)
{
    return column < WHAT_IT_IS || column == 7 || column >= 9;
}

/* Freed by the caller. */
static em_table *table_of(const em_figures *figures)
{
    char sides[COLUMNS + 1] = "";
    for (int c = 0; c < COLUMNS; c++) sides[c] = is_words(c) ? 'l' : 'r';
    em_table *table = em_table_new(COLUMNS, sides);
    for (int c = 0; c < COLUMNS; c++) em_table_cell(table, "%s", columns[c]);
    for (int i = 0; i < figures->count; i++)
        for (int c = 0; c < COLUMNS; c++) {
            cell text;
            const char *shown = text_of(&figures->figure[i], c, text);
            if (shown[0])
                em_table_cell(table, "%s", shown);
            else
                em_table_none(table);
        }
    return table;
}

void em_figures_table(const em_figures *figures, FILE *out)
{
    em_table *table = table_of(figures);
    em_table_print(table, out);
    em_table_free(table);
}

void em_figures_csv(const em_figures *figures, FILE *out)
{
    em_table *table = table_of(figures);
    em_table_csv(table, out);
    em_table_free(table);
}

void em_figures_json(const em_figures *figures, int ranks, int threads, FILE *out)
{
    em_machine_text text;
    em_table *table = table_of(figures);
    fprintf(out, "{\n  \"version\": ");
    em_json_text(EM_VERSION " (" EM_GIT_REVISION ")", out);
    fprintf(out, ",\n  \"processor\": ");
    em_json_text(em_processor(text), out);
    fprintf(out, ",\n  \"date\": ");
    em_json_text(em_now(text), out);
    fprintf(out, ",\n  \"ranks\": %d,\n  \"threads\": %d,\n  \"figures\": ", ranks, threads);
    em_table_json(table, "  ", out);
    fprintf(out, "\n}\n");
    em_table_free(table);
}

const char *em_processor(em_machine_text text)
{
    static const char key[] = "model name";
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(text, sizeof(em_machine_text), "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, key, sizeof key - 1) != 0 || !value) continue;
        snprintf(text, sizeof(em_machine_text), "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (file) fclose(file);
    return text;
}

const char *em_now(em_machine_text text)
{
    time_t now = time(NULL);
    struct tm utc;
    strftime(text, sizeof(em_machine_text), "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
    return text;
}
