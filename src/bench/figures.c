/* The list of figures and its three forms; declared in bench.h. */
#include "bench.h"

#include "../table.h"
#include "expertmesh/version.h"

#include <cjson/cJSON.h>
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

void em_figures_table(const em_figures *figures, FILE *out)
{
    char sides[COLUMNS + 1] = "";
    for (int c = 0; c < COLUMNS; c++) sides[c] = is_words(c) ? 'l' : 'r';
    em_table *table = em_table_new(COLUMNS, sides);
    for (int c = 0; c < COLUMNS; c++) em_table_cell(table, "%s", columns[c]);
    for (int i = 0; i < figures->count; i++)
        for (int c = 0; c < COLUMNS; c++) {
            cell text;
            const char *shown = text_of(&figures->figure[i], c, text);
            em_table_cell(table, "%s", shown[0] ? shown : "-");
        }
    em_table_print(table, out);
    em_table_free(table);
}

void em_figures_csv(const em_figures *figures, FILE *out)
{
    for (int c = 0; c < COLUMNS; c++) fprintf(out, "%s%c", columns[c], c + 1 < COLUMNS ? ',' : '\n');
    for (int i = 0; i < figures->count; i++)
        for (int c = 0; c < COLUMNS; c++) {
            cell text;
            const char *shown = text_of(&figures->figure[i], c, text), *quote = strchr(shown, ',') ? "\"" : "";
            fprintf(out, "%s%s%s%c", quote, shown, quote, c + 1 < COLUMNS ? ',' : '\n');
        }
}

static void add_column(cJSON *object, const em_figure *figure, int column)
{
    cell text;
    const char *shown = text_of(figure, column, text);
    if (!shown[0])
        cJSON_AddNullToObject(object, columns[column]);
    else if (is_words(column))
        cJSON_AddStringToObject(object, columns[column], shown);
    else
        cJSON_AddRawToObject(object, columns[column], shown);
}

void em_figures_json(const em_figures *figures, int ranks, int threads, FILE *out)
{
    em_machine_text text;
    cJSON *all = cJSON_CreateObject();
    cJSON_AddStringToObject(all, "version", EM_VERSION " (" EM_GIT_REVISION ")");
    cJSON_AddStringToObject(all, "processor", em_processor(text));
    cJSON_AddStringToObject(all, "date", em_now(text));
    cJSON_AddNumberToObject(all, "ranks", ranks);
    cJSON_AddNumberToObject(all, "threads", threads);
    cJSON *list = cJSON_AddArrayToObject(all, "figures");
    for (int i = 0; i < figures->count; i++) {
        cJSON *object = cJSON_CreateObject();
        for (int c = 0; c < COLUMNS; c++) add_column(object, &figures->figure[i], c);
        cJSON_AddItemToArray(list, object);
    }
    char *printed = cJSON_Print(all);
    if (!printed) em_die("no memory for the figures as JSON");
    fprintf(out, "%s\n", printed);
    cJSON_free(printed);
    cJSON_Delete(all);
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
