/* The options of the program: what is typed, what is mistyped, and the model that comes out of them. */
#include "suite.h"

#include "options.h"
#include "scratch.h"

#include <getopt.h>
#include <string.h>

static const em_option run_options[] = {
    {"output", "FILE", "where it goes", 'o'},
    {"force", NULL, "replace it", 0},
    {"trace-layers", "LIST", "which layers", 0},
    {NULL, NULL, NULL, 0},
};
static const em_option few_options[] = {{"tolerance", "X", "how much", 't'}, {NULL, NULL, NULL, 0}};

static const em_command takes_model = {
    .name = "run", .usage = "[OPTION...]", .meaning = "Run.", .more = "", .options = run_options, .takes_model = true};
static const em_command takes_files = {.name = "compare",
                                       .usage = "A.h5 B.h5 [OPTION...]",
                                       .meaning = "Compare.",
                                       .more = "More.",
                                       .options = few_options,
                                       .num_arguments = 2};

static bool contains(const em_status *status, const char *word)
{
    return strstr(status->text, word) != NULL;
}

/* ---- parsing ---- */

enum { MAX_WORDS = 8 };

/* What a command made of words, up to the first NULL. */
typedef struct outcome {
    em_call call;
    em_status status;
    bool good, wants_help;
} outcome;

/* A process reads its arguments once; to do it again, getopt must forget where in a word it stopped. */
static void forget_the_last_words(void)
{
    char *none[] = {(char[]){"none"}, NULL};
    optind = 0;
    getopt(1, none, "");
}

static outcome parse(const em_command *command, const char *const *words)
{
    static char copy[MAX_WORDS + 1][300]; /* getopt moves words about; the call points into them */
    char *argv[MAX_WORDS + 2] = {NULL};
    int argc = 0;
    snprintf(copy[argc], sizeof copy[argc], "%s", command->name);
    argv[argc] = copy[argc];
    argc++;
    for (int i = 0; i < MAX_WORDS && words[i]; i++, argc++) {
        snprintf(copy[argc], sizeof copy[argc], "%s", words[i]);
        argv[argc] = copy[argc];
    }
    outcome out = {.call = {.command = command, .comm = MPI_COMM_SELF, .num_ranks = 1}};
    forget_the_last_words();
    out.good = em_options_parse(command, argc, argv, &out.call, &out.wants_help, &out.status);
    return out;
}

#define RUN(...)     parse(&takes_model, (const char *const[MAX_WORDS + 1]){__VA_ARGS__})
#define COMPARE(...) parse(&takes_files, (const char *const[MAX_WORDS + 1]){__VA_ARGS__})

static void check_value(const outcome *out, const char *option, const char *expected)
{
    const char *value = em_option_value(&out->call, option);
    CU_ASSERT(out->good && !out->wants_help && out->status.code == EM_OK);
    CU_ASSERT_EQUAL(value == NULL, expected == NULL);
    if (value && expected) CU_ASSERT_STRING_EQUAL(value, expected);
}

static void options_have_values(void)
{
    outcome out = RUN("--preset", "tiny", "--force", "-o", "x.h5", "--num-layers=3");
    check_value(&out, "preset", "tiny");
    check_value(&out, "force", "");
    check_value(&out, "output", "x.h5");
    check_value(&out, "num-layers", "3");
    check_value(&out, "seed", NULL);
    check_value(&out, "emb-size", NULL);
    out = RUN("-ox.h5", "--seed=");
    check_value(&out, "output", "x.h5");
    check_value(&out, "seed", "");
    out = RUN("--rope-base", "-1", "--output", "--force");
    check_value(&out, "rope-base", "-1");
    check_value(&out, "output", "--force");
    check_value(&out, "force", NULL);
    out = RUN(NULL);
    check_value(&out, "output", NULL);
}

/* Every field of a model has an option of its own place. */
static void every_field_is_an_option(void)
{
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        char name[60], word[70];
        snprintf(name, sizeof name, "%s", em_config_fields[f].name);
        for (char *c = name; *c; c++)
            if (*c == '_') *c = '-';
        snprintf(word, sizeof word, "--%s", name);
        outcome out = RUN(word, "value");
        check_value(&out, name, "value");
    }
}

static void files_are_arguments(void)
{
    outcome out = COMPARE("a.h5", "--tolerance", "1", "b.h5");
    CU_ASSERT(out.good);
    CU_ASSERT_EQUAL(out.call.num_arguments, 2);
    CU_ASSERT_STRING_EQUAL(out.call.argument[0], "a.h5");
    CU_ASSERT_STRING_EQUAL(out.call.argument[1], "b.h5");
    out = COMPARE("-t1", "--", "-a", "--tolerance");
    CU_ASSERT(out.good);
    CU_ASSERT_STRING_EQUAL(out.call.argument[0], "-a");
    CU_ASSERT_STRING_EQUAL(out.call.argument[1], "--tolerance");
}

/* Past the least, arguments may be left out, up to the most. */
static void arguments_may_be_a_range(void)
{
    static const em_command range = {.name = "inspect",
                                     .usage = "FILE [WORD [NUMBER]]",
                                     .meaning = "Look.",
                                     .more = "",
                                     .options = few_options,
                                     .num_arguments = 1,
                                     .most_arguments = 3};
    static const char *const words[] = {"a.h5", "token", "17", "more", NULL};
    for (int count = 0; count <= 4; count++) {
        const char *given[MAX_WORDS + 1] = {NULL};
        for (int i = 0; i < count; i++) given[i] = words[i];
        outcome out = parse(&range, given);
        CU_ASSERT_EQUAL(out.good, count >= 1 && count <= 3);
        CU_ASSERT_EQUAL(out.call.num_arguments, count < 3 ? count : 3);
    }
}

static void help_goes_before_anything_else(void)
{
    CU_ASSERT(RUN("--help").wants_help);
    CU_ASSERT(RUN("-h").wants_help);
    CU_ASSERT(RUN("--seed", "x", "stray", "-h").wants_help);
    CU_ASSERT(COMPARE("-h").wants_help);
    CU_ASSERT(COMPARE("a", "b", "c", "--help").wants_help);
    CU_ASSERT(COMPARE("-h").good);
}

/* ---- mistakes ---- */

/* The message begins with the command and holds every word, up to the first NULL. */
static void check_mistake(const outcome *out, const char *const *words)
{
    size_t length = strlen(out->call.command->name);
    CU_ASSERT_FALSE(out->good);
    CU_ASSERT_EQUAL(out->status.code, EM_USAGE);
    CU_ASSERT(strncmp(out->status.text, out->call.command->name, length) == 0 && out->status.text[length] == ':');
    for (int i = 0; words[i]; i++) CU_ASSERT(contains(&out->status, words[i]));
}

#define MISTAKE(outcome_of_call, ...)                                   \
    do {                                                                \
        outcome out_ = outcome_of_call;                                 \
        check_mistake(&out_, (const char *const[]){__VA_ARGS__, NULL}); \
    } while (0)

static void unknown_options_are_met_with_the_nearest(void)
{
    MISTAKE(RUN("--presett", "tiny"), "--presett", "nearest", "--preset");
    MISTAKE(RUN("--outptu=x"), "--outptu;", "--output");
    MISTAKE(RUN("--num_layers", "3"), "--num_layers", "--num-layers");
    MISTAKE(RUN("--force", "--numlayers=3"), "--numlayers", "--num-layers");
    MISTAKE(RUN("--zzzzzzzz"), "--zzzzzzzz", "--help");
    MISTAKE(COMPARE("a", "b", "--preset", "tiny"), "--preset");
}

/* getopt is still inside of a word of several letters when it meets one that it does not know: the message must not name
 * the word before. */
static void unknown_letters_are_named(void)
{
    MISTAKE(RUN("-x"), "-x");
    MISTAKE(RUN("--force", "-x", "3"), "-x");
    MISTAKE(RUN("--force", "-xyz"), "unknown option -x");
    MISTAKE(RUN("-preset", "tiny"), "unknown option -p");
}

static void options_are_given_once(void)
{
    MISTAKE(RUN("--seed", "1", "--seed", "2"), "--seed", "twice");
    MISTAKE(RUN("--seed=1", "--seed=1"), "--seed", "twice");
    MISTAKE(RUN("--output", "a", "-o", "b"), "--output", "twice");
    MISTAKE(RUN("--force", "--force"), "--force", "twice");
}

static void arguments_are_where_they_belong(void)
{
    MISTAKE(RUN("--preset"), "--preset", "needs an argument");
    MISTAKE(RUN("--force", "-o"), "-o", "needs an argument");
    MISTAKE(RUN("--force=3"), "--force", "no argument");
    MISTAKE(RUN("--help=3"), "--help", "no argument");
}

static void files_are_counted(void)
{
    MISTAKE(RUN("stray"), "too many", "\"stray\"");
    MISTAKE(COMPARE("a", "b", "c"), "too many", "\"c\"", "A.h5 B.h5");
    MISTAKE(COMPARE("a"), "missing", "A.h5 B.h5");
    MISTAKE(COMPARE(NULL), "missing");
}

/* ---- words near each other ---- */

static void the_nearest_takes_few_changes(void)
{
    static const char *const names[] = {"preset", "seed", "storage", "num-layers", "num-experts"};
    static const struct {
        const char *word, *nearest;
    } cases[] = {
        {"preset", "preset"},
        {"prest", "preset"},
        {"presset", "preset"},
        {"prezet", "preset"},
        {"sed", "seed"},
        {"sead", "seed"},
        {"storrage", "storage"},
        {"num-layer", "num-layers"},
        {"num-expert", "num-experts"},
        {"layers", NULL},
        {"x", NULL},
        {"", NULL},
        {"qqqqqqqqqq", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *nearest = em_nearest(cases[i].word, names, 5);
        CU_ASSERT_EQUAL(nearest == NULL, cases[i].nearest == NULL);
        if (nearest && cases[i].nearest) CU_ASSERT_STRING_EQUAL(nearest, cases[i].nearest);
    }
    CU_ASSERT_PTR_NULL(em_nearest("preset", names, 0));
}

static void nothing_is_near_a_word_without_end(void)
{
    static const char *const names[] = {"preset", "seed"};
    char word[300];
    for (size_t length = 20; length < sizeof word; length += 9) {
        memset(word, 'q', length);
        word[length] = '\0';
        CU_ASSERT_PTR_NULL(em_nearest(word, names, 2));
    }
}

/* ---- lists ---- */

static void lists_are_numbers_and_spans(void)
{
    static const struct {
        const char *text;
        int64_t count, list[10];
    } cases[] = {
        {"0", 1, {0}},
        {"9", 1, {9}},
        {"0,4-7", 5, {0, 4, 5, 6, 7}},
        {"7,0", 2, {0, 7}},
        {"3-3", 1, {3}},
        {"1,1,1-2,2", 2, {1, 2}},
        {"0-9", 10, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {"007", 1, {7}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_status status = {0};
        int64_t count = -1, *list = em_parse_list(cases[i].text, 10, "--trace-layers", &count, &status);
        CU_ASSERT_PTR_NOT_NULL(list);
        CU_ASSERT_EQUAL(count, cases[i].count);
        for (int64_t k = 0; list && k < count && k < cases[i].count; k++) CU_ASSERT_EQUAL(list[k], cases[i].list[k]);
        CU_ASSERT_EQUAL(status.code, EM_OK);
        free(list);
    }
}

static void what_is_no_list_is_refused(void)
{
    static const char *const bad[] = {"",
                                      "10",
                                      "0-10",
                                      "7-4",
                                      "0,",
                                      ",0",
                                      "0,,1",
                                      "-1",
                                      "0-",
                                      "-",
                                      "a",
                                      "1.5",
                                      "0 1",
                                      " 0",
                                      "0, 1",
                                      "0--1",
                                      "0-+1",
                                      "0-1-2",
                                      "+1",
                                      "0x1",
                                      "1;2",
                                      "4 -7",
                                      "4- 7",
                                      "99999999999999999999",
                                      "0-99999999999999999999",
                                      "9223372036854775807"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_status status = {0};
        int64_t count = -1, *list = em_parse_list(bad[i], 10, "--trace-layers", &count, &status);
        CU_ASSERT_PTR_NULL(list);
        CU_ASSERT_EQUAL(status.code, EM_USAGE);
        CU_ASSERT(strncmp(status.text, "--trace-layers: ", 16) == 0);
        CU_ASSERT(contains(&status, bad[i]) && contains(&status, "0 to 9"));
        free(list);
    }
}

/* ---- seed and storage ---- */

static void seeds_are_whole_numbers(void)
{
    static const char *const bad[] = {
        "", "-1", "x", "1.5", " 1", "+1", "1 ", "9223372036854775808", "1e3", "99999999999999999999999"};
    uint64_t seed = 1;
    em_status status = {0};
    outcome out = RUN("--force");
    CU_ASSERT(em_options_seed(&out.call, &seed, &status) && seed == 0);
    out = RUN("--seed", "9223372036854775807");
    CU_ASSERT(em_options_seed(&out.call, &seed, &status) && seed == INT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_status failed = {0};
        out = RUN("--seed", bad[i]);
        CU_ASSERT_FALSE(em_options_seed(&out.call, &seed, &failed));
        CU_ASSERT_EQUAL(failed.code, EM_USAGE);
        CU_ASSERT(contains(&failed, "--seed") && contains(&failed, bad[i]));
    }
}

static void storages_are_three(void)
{
    em_storage storage = EM_INT8;
    em_status status = {0};
    outcome out = RUN("--force");
    CU_ASSERT(em_options_storage(&out.call, &storage, &status) && storage == EM_F32);
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        out = RUN("--storage", em_storage_name(s));
        CU_ASSERT(em_options_storage(&out.call, &storage, &status) && storage == s);
    }
    out = RUN("--storage", "fp16");
    CU_ASSERT_FALSE(em_options_storage(&out.call, &storage, &status));
    CU_ASSERT(status.code == EM_USAGE && contains(&status, "--storage") && contains(&status, "fp16"));
}

/* ---- the model ---- */

static em_config config_of(const outcome *out, em_status *status)
{
    em_config config;
    CU_ASSERT(out->good);
    CU_ASSERT_EQUAL(em_options_config(&out->call, &config, status), status->code == EM_OK);
    return config;
}

static void check_config(const em_config *got, const em_config *expected)
{
    em_config a = *got, b = *expected;
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER)
            CU_ASSERT_EQUAL(*em_config_integer(&a, field), *em_config_integer(&b, field));
        if (field->type == EM_FIELD_REAL)
            CU_ASSERT_DOUBLE_EQUAL(*em_config_real(&a, field) / *em_config_real(&b, field), 1, 1e-15);
    }
    CU_ASSERT_EQUAL(a.ffn_kind, b.ffn_kind);
}

static void a_preset_is_a_model(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) {
        em_status status = {0};
        outcome out = RUN("--preset", em_presets[i].name);
        em_config config = config_of(&out, &status);
        check_config(&config, &em_presets[i].config);
    }
}

/* Fields go over the file, and the file over the preset, in whatever order they are typed. */
static void fields_go_over_the_file_and_the_file_over_the_preset(void)
{
    static const char json[] = "{\"num_layers\": 5, \"rope_base\": 500, \"ffn_kind\": \"mlp\"}";
    em_status status = {0};
    em_config expected = em_preset_find("tiny")->config;
    const char *path = scratch_write("config.json", json, sizeof json - 1);
    outcome out = RUN("--num-layers", "7", "--vocab-size=300", "--config", path, "--preset", "tiny");
    em_config config = config_of(&out, &status);
    expected.num_layers = 7;
    expected.vocab_size = 300;
    expected.rope_base = 500;
    expected.ffn_kind = EM_FFN_MLP;
    check_config(&config, &expected);
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

static void a_file_with_all_fields_needs_no_preset(void)
{
    em_status status = {0};
    char *json = em_config_json(&em_preset_find("tiny")->config);
    outcome out = RUN("--config", scratch_write("all.json", json, strlen(json)));
    em_config config = config_of(&out, &status);
    check_config(&config, &em_preset_find("tiny")->config);
    free(json);
}

static void check_no_config(outcome out, int code, const char *word, const char *other)
{
    em_status status = {0};
    em_config config;
    CU_ASSERT(out.good);
    CU_ASSERT_FALSE(em_options_config(&out.call, &config, &status));
    CU_ASSERT_EQUAL(status.code, code);
    CU_ASSERT(contains(&status, word) && contains(&status, other));
}

static void what_makes_no_model_is_refused(void)
{
    const char *odd = scratch_write("odd.json", "{\"key_size\": 15}", 16);
    const char *bad = scratch_write("bad.json", "{\"key_size\": \"x\"}", 17);
    check_no_config(RUN("--preset", "tinny"), EM_USAGE, "\"tinny\"", "nearest is tiny");
    check_no_config(RUN("--preset", "qqqqqqqqqqq"), EM_USAGE, "\"qqqqqqqqqqq\"", "expertmesh presets");
    check_no_config(RUN("--force"), EM_USAGE, "emb_size", "--preset");
    check_no_config(RUN("--emb-size", "96"), EM_USAGE, "num_layers", "not given");
    check_no_config(RUN("--preset", "tiny", "--emb-size", "x"), EM_USAGE, "--emb-size", "\"x\"");
    check_no_config(RUN("--preset", "tiny", "--emb-size="), EM_USAGE, "--emb-size", "\"\"");
    check_no_config(RUN("--preset", "tiny", "--ffn-kind", "relu"), EM_USAGE, "--ffn-kind", "relu");
    check_no_config(RUN("--preset", "tiny", "--num-selected-experts", "9"), EM_USAGE, "options",
                    "num_selected_experts");
    check_no_config(RUN("--preset", "tiny", "--config", odd), EM_BAD_DATA, odd, "key_size is 15");
    check_no_config(RUN("--preset", "tiny", "--config", bad), EM_BAD_DATA, bad, "key_size");
    check_no_config(RUN("--config", scratch_path("none.json")), EM_NO_INPUT, "none.json", "");
}

/* A name as it is typed after the dashes, for "leave out --NAME". */
static void the_first_option_of_a_model_is_named_as_typed(void)
{
    static const char *const words[][3] = {{"--preset", "tiny", "preset"},    {"--config", "x", "config"},
                                           {"--seed", "1", "seed"},           {"--storage", "f32", "storage"},
                                           {"--ffn-kind", "glu", "ffn-kind"}, {"--emb-size", "3", "emb-size"},
                                           {"--rope-base", "3", "rope-base"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        outcome out = RUN("--force", words[i][0], words[i][1]);
        char name[40] = "";
        CU_ASSERT(em_options_first_of_model(&out.call, name));
        CU_ASSERT_STRING_EQUAL(name, words[i][2]);
    }
    char name[40] = "";
    outcome none = RUN("--force", "-o", "x");
    CU_ASSERT_FALSE(em_options_first_of_model(&none.call, name));
}

/* ---- help ---- */

static void help_lists_every_option(void)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    em_options_help(&takes_model, out);
    em_options_help(&takes_files, out);
    fclose(out);
    static const char *const words[] = {"usage: expertmesh run [OPTION...]",
                                        "-o, --output FILE",
                                        "--force",
                                        "--trace-layers LIST",
                                        "--preset article|grok1|demo|tiny",
                                        "--config FILE",
                                        "--seed N",
                                        "--storage f32|bf16|int8",
                                        "--num-selected-experts",
                                        "--rms-norm-eps",
                                        "-h, --help",
                                        "usage: expertmesh compare A.h5 B.h5",
                                        "-t, --tolerance X",
                                        "More."};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) CU_ASSERT_PTR_NOT_NULL(strstr(text, words[i]));
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) CU_ASSERT_PTR_NOT_NULL(strstr(text, em_config_fields[f].meaning));
    free(text);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"options have values", options_have_values},
        {"every field is an option", every_field_is_an_option},
        {"files are arguments", files_are_arguments},
        {"arguments may be a range", arguments_may_be_a_range},
        {"help goes before anything else", help_goes_before_anything_else},
        {"unknown options are met with the nearest", unknown_options_are_met_with_the_nearest},
        {"unknown letters are named", unknown_letters_are_named},
        {"options are given once", options_are_given_once},
        {"arguments are where they belong", arguments_are_where_they_belong},
        {"files are counted", files_are_counted},
        {"the nearest takes few changes", the_nearest_takes_few_changes},
        {"nothing is near a word without end", nothing_is_near_a_word_without_end},
        {"lists are numbers and spans", lists_are_numbers_and_spans},
        {"what is no list is refused", what_is_no_list_is_refused},
        {"seeds are whole numbers", seeds_are_whole_numbers},
        {"storages are three", storages_are_three},
        {"a preset is a model", a_preset_is_a_model},
        {"fields go over the file and the file over the preset", fields_go_over_the_file_and_the_file_over_the_preset},
        {"a file with all fields needs no preset", a_file_with_all_fields_needs_no_preset},
        {"what makes no model is refused", what_makes_no_model_is_refused},
        {"the first option of a model is named as typed", the_first_option_of_a_model_is_named_as_typed},
        {"help lists every option", help_lists_every_option},
        {NULL, NULL},
    };
    int code = suite_main(argc, argv, "options", tests);
    scratch_remove();
    return code;
}
