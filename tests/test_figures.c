/* The figures of `bench`: medians and spreads, and one list in three forms. */
#include "suite.h"

#include "bench/bench.h"
#include "table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static em_series series_of(int count, const double *value)
{
    em_series series = {.count = 0};
    for (int i = 0; i < count; i++) em_series_add(&series, value[i]);
    return series;
}

static void a_median_lies_in_the_middle(void)
{
    em_series three = series_of(3, (double[]){9, 1, 2}), four = series_of(4, (double[]){4, 1, 8, 2});
    em_series one = series_of(1, (double[]){5}), none = {.count = 0};
    CU_ASSERT_EQUAL(em_series_median(&three), 2);
    CU_ASSERT_EQUAL(em_series_median(&four), 3);
    CU_ASSERT_EQUAL(em_series_median(&one), 5);
    CU_ASSERT(isnan(em_series_median(&none)));
    CU_ASSERT_EQUAL(em_series_best(&three), 9);
    CU_ASSERT_EQUAL(em_series_spread(&three), 4);
    CU_ASSERT_EQUAL(em_series_spread(&one), 0);
}

static void no_more_runs_than_there_is_room_for(void)
{
    em_series series = {.count = 0};
    for (int i = 0; i < EM_MOST_RUNS + 5; i++) em_series_add(&series, i);
    CU_ASSERT_EQUAL(series.count, EM_MOST_RUNS);
}

/* A figure with neither limit nor target, one with a limit, and targets reached and missed from both sides. */
static em_figures some_figures(void)
{
    em_figures figures = {0};
    em_series two = series_of(1, (double[]){2});
    em_figures_add(&figures, "g", "s", &two, "bare");
    em_figure_limit(em_figures_add(&figures, "g", "s", &two, "a, %s", "b"), 4, "read");
    em_figure_limit(em_figures_add(&figures, "g", "s", &two, "no limit after all"), (double)NAN, "sgemm");
    for (int i = 0; i < 4; i++) {
        em_figure *figure = em_figures_add(&figures, "h", "s", &two, "target %d", i);
        em_figure_limit(figure, 4, "read");
        em_figure_target(figure, i % 2 == 0 ? 0.4 : 0.6, i >= 2);
    }
    return figures;
}

typedef void print_figures(const em_figures *figures, FILE *out);

static char *printed(print_figures *print)
{
    em_figures figures = some_figures();
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    print(&figures, out);
    fclose(out);
    em_figures_free(&figures);
    return text;
}

static void csv_has_all_columns(void)
{
    char *text = printed(em_figures_csv);
    CU_ASSERT_STRING_EQUAL(text, "group,what,unit,value,spread,runs,limit,against,ratio,target,reached\n"
                                 "g,bare,s,2,0.000,1,,,,,\n"
                                 "g,\"a, b\",s,2,0.000,1,4,read,0.500,,\n"
                                 "g,no limit after all,s,2,0.000,1,,,,,\n"
                                 "h,target 0,s,2,0.000,1,4,read,0.500,>= 0.4,yes\n"
                                 "h,target 1,s,2,0.000,1,4,read,0.500,>= 0.6,no\n"
                                 "h,target 2,s,2,0.000,1,4,read,0.500,<= 0.4,no\n"
                                 "h,target 3,s,2,0.000,1,4,read,0.500,<= 0.6,yes\n");
    free(text);
}

static void print_json(const em_figures *figures, FILE *out)
{
    em_figures_json(figures, 2, 3, out);
}

static void json_says_what_is_absent(void)
{
    char *text = printed(print_json);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"ranks\": 2"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"threads\": 3"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"limit\": null"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"ratio\": 0.500"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"target\": \"<= 0.6\""));
    CU_ASSERT_PTR_NULL(strstr(text, "nan"));
    free(text);
}

static void a_table_shows_a_dash_for_what_is_absent(void)
{
    char *text = printed(em_figures_table);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "bare"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, " -\n"));
    CU_ASSERT_PTR_NULL(strstr(text, "nan"));
    free(text);
}

/* A table of one word and one number a row; print: em_table_print, em_table_csv, or em_table_json. */
static char *table_of(const char *const *word, int count, void (*print)(const em_table *table, FILE *out))
{
    em_table *table = em_table_new(2, "lr");
    char *text = NULL;
    size_t size = 0;
    em_table_cell(table, "word");
    em_table_cell(table, "n");
    for (int i = 0; i < count; i++) {
        em_table_text(table, word[i]);
        em_table_whole(table, i);
    }
    FILE *out = open_memstream(&text, &size);
    print(table, out);
    fclose(out);
    em_table_free(table);
    return text;
}

static void print_objects(const em_table *table, FILE *out)
{
    em_table_json(table, "", out);
}

/* Characters of several bytes take one place each; what a terminal would obey, and bytes that are no text, are spelled. */
static void a_table_shows_every_byte_in_line(void)
{
    static const char csi[] = {'\xc2', '\x9b', '1', 'm', '\0'};
    const char *const word[] = {"\xe2\x96\x81neuron", "a\nb\tc", "\x1b[31m", csi, "\xff\xc3"};
    char *text = table_of(word, 5, em_table_print);
    CU_ASSERT_STRING_EQUAL(text, "word        n\n"
                                 "----------  -\n"
                                 "\xe2\x96\x81neuron     0\n"
                                 "a\\nb\\tc     1\n"
                                 "\\x1b[31m    2\n"
                                 "\\xc2\\x9b1m  3\n"
                                 "\\xff\\xc3    4\n");
    free(text);
}

static void programs_get_text_as_it_is_and_json_as_utf_8(void)
{
    static const char *const word[] = {"a\nb", "\xe2\x96\x81", "\xff"};
    char *csv = table_of(word, 3, em_table_csv), *json = table_of(word, 3, print_objects);
    CU_ASSERT_STRING_EQUAL(csv, "word,n\n\"a\nb\",0\n\xe2\x96\x81,1\n\xff,2\n");
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"word\": \"a\\u000ab\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"word\": \"\xe2\x96\x81\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"word\": \"\\ufffd\""));
    free(csv);
    free(json);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"a median lies in the middle", a_median_lies_in_the_middle},
        {"no more runs than there is room for", no_more_runs_than_there_is_room_for},
        {"csv has all columns", csv_has_all_columns},
        {"json says what is absent", json_says_what_is_absent},
        {"a table shows a dash for what is absent", a_table_shows_a_dash_for_what_is_absent},
        {"a table shows every byte in line", a_table_shows_every_byte_in_line},
        {"programs get text as it is, and JSON as UTF-8", programs_get_text_as_it_is_and_json_as_utf_8},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "figures", tests);
}
