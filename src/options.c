#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const em_option em_model_options[] = {
    {"preset", "article|grok1|demo|tiny", "start from this preset (expertmesh presets)", 0},
    {"config", "FILE", "model fields from a JSON file, over those of the preset", 0},
    {"seed", "N", "seed of random weights (0)", 0},
    {"storage", "f32|bf16|int8", "how random weights are stored (f32)", 0},
    {NULL, NULL, NULL, 0},
};

const em_option em_watch_options[] = {
    {"watchdog", "SECONDS", "end the job when no rank has moved for so long; 0: wait for ever (600)", 0},
    {NULL, NULL, NULL, 0},
};

static const em_option help_option = {"help", NULL, "show this", 'h'};

static void append_all(em_option_list *list, const em_option *options)
{
    for (; options->name; options++) list->option[list->count++] = *options;
}

em_option_list em_options_of(const em_command *command)
{
    em_option_list list = {.count = 0};
    append_all(&list, command->options);
    if (command->watched) append_all(&list, em_watch_options);
    if (command->takes_model) append_all(&list, em_model_options);
    list.first_field = list.count;
    for (int f = 0; command->takes_model && f < EM_NUM_CONFIG_FIELDS; f++) {
        snprintf(list.field_name[f], sizeof list.field_name[f], "%s", em_config_fields[f].name);
        for (char *c = list.field_name[f]; *c; c++)
            if (*c == '_') *c = '-';
        const char *takes = em_config_fields[f].type == EM_FIELD_FFN_KIND ? "glu|mlp" : "X";
        list.option[list.count++] = (em_option){NULL, takes, em_config_fields[f].meaning, 0};
    }
    list.option[list.count++] = help_option;
    return list;
}

const char *em_options_name(const em_option_list *list, int i)
{
    return list->option[i].name ? list->option[i].name : list->field_name[i - list->first_field];
}

/* Edit distance (Levenshtein 1966) between two short words. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[LONGEST + 1], m = (int)strlen(a), n = (int)strlen(b);
    if (m > LONGEST || n > LONGEST) return INT_MAX;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; i <= m; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int shorter = row[j - 1] < row[j] ? row[j - 1] + 1 : row[j] + 1;
            row[j] = change < shorter ? change : shorter;
        }
    }
    return row[n];
}

const char *em_nearest(const char *word, const char *const *names, int count)
{
    const char *nearest = NULL;
    int best = (int)(strlen(word) + 1) / 2 + 1;
    for (int i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

static bool unknown_option(const em_option_list *list, const em_command *command, const char *word, em_status *status)
{
    const char *names[EM_MAX_OPTIONS];
    char typed[64];
    for (int i = 0; i < list->count; i++) names[i] = em_options_name(list, i);
    snprintf(typed, sizeof typed, "%.*s", (int)strcspn(word, "="), word);
    const char *bare = typed + strspn(typed, "-"), *nearest = NULL;
    for (int i = 0; *bare && i < list->count; i++) /* a beginning of several names: the shortest */
        if (strncmp(names[i], bare, strlen(bare)) == 0 && (!nearest || strlen(names[i]) < strlen(nearest)))
            nearest = names[i];
    if (!nearest) nearest = em_nearest(bare, names, list->count);
    if (nearest)
        return em_fail(status, EM_USAGE, "%s: unknown option %s; the nearest is --%s", command->name, typed, nearest);
    return em_fail(status, EM_USAGE, "%s: unknown option %s; expertmesh %s --help lists them all", command->name, typed,
                   command->name);
}

static void describe_for_getopt(const em_option_list *list, struct option *longs, char *shorts)
{
    *shorts++ = ':';
    for (int i = 0; i < list->count; i++) {
        longs[i] = (struct option){em_options_name(list, i), list->option[i].argument ? required_argument : no_argument,
                                   NULL, 256 + i};
        if (!list->option[i].letter) continue;
        *shorts++ = list->option[i].letter;
        if (list->option[i].argument) *shorts++ = ':';
    }
    longs[list->count] = (struct option){0};
    *shorts = '\0';
}

static int place_of_letter(const em_option_list *list, int letter)
{
    int i = 0;
    while (list->option[i].letter != letter) i++;
    return i;
}

bool em_options_parse(const em_command *command, int argc, char **argv, em_call *call, bool *wants_help,
                      em_status *status)
{
    em_option_list list = em_options_of(command);
    struct option longs[EM_MAX_OPTIONS + 1];
    char shorts[2 * EM_MAX_OPTIONS];
    describe_for_getopt(&list, longs, shorts);
    optind = 1;
    opterr = 0;
    for (int got; (got = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (got == '?' && optopt >= 256)
            return em_fail(status, EM_USAGE, "%s: --%s takes no argument", command->name,
                           em_options_name(&list, optopt - 256));
        char letter[] = {'-', (char)optopt, '\0'}; /* of several in one word, as -xy */
        if (got == '?') return unknown_option(&list, command, optopt ? letter : argv[optind - 1], status);
        if (got == ':') return em_fail(status, EM_USAGE, "%s: %s needs an argument", command->name, argv[optind - 1]);
        int i = got >= 256 ? got - 256 : place_of_letter(&list, got);
        if (list.option[i].letter == 'h') {
            *wants_help = true;
            return true;
        }
        if (call->value[i])
            return em_fail(status, EM_USAGE, "%s: --%s is given twice", command->name, em_options_name(&list, i));
        call->value[i] = optarg ? optarg : "";
    }
    int most = command->most_arguments > 0 ? command->most_arguments : command->num_arguments;
    for (int i = optind; i < argc; i++) {
        if (call->num_arguments == most)
            return em_fail(status, EM_USAGE, "%s: too many arguments at \"%s\"; usage: expertmesh %s %s", command->name,
                           argv[i], command->name, command->usage);
        call->argument[call->num_arguments++] = argv[i];
    }
    if (call->num_arguments < command->num_arguments)
        return em_fail(status, EM_USAGE, "%s: a file name is missing; usage: expertmesh %s %s", command->name,
                       command->name, command->usage);
    return true;
}

static int place_of_name(const em_call *call, const char *name)
{
    em_option_list list = em_options_of(call->command);
    for (int i = 0; i < list.count; i++)
        if (strcmp(em_options_name(&list, i), name) == 0) return i;
    em_die("%s has no option --%s", call->command->name, name);
}

const char *em_option_value(const em_call *call, const char *name)
{
    return call->value[place_of_name(call, name)];
}

void em_options_default(em_call *call, const char *name, const char *value)
{
    int i = place_of_name(call, name);
    if (!call->value[i]) call->value[i] = value;
}

void em_options_set(em_call *call, const char *name, const char *value)
{
    call->value[place_of_name(call, name)] = value;
}

bool em_option_at(const em_call *call, int place, char name[40], const char **value)
{
    em_option_list list = em_options_of(call->command);
    if (place >= list.count) return false;
    snprintf(name, 40, "%s", em_options_name(&list, place));
    *value = call->value[place];
    return true;
}

bool em_option_whole(const em_call *call, const char *name, int64_t least, int64_t most, int64_t fallback,
                     int64_t *value, em_status *status)
{
    const char *text = em_option_value(call, name);
    char *end, range[64];
    *value = fallback;
    if (!text) return true;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (isdigit((unsigned char)*text) && *end == '\0' && !errno && *value >= least && *value <= most) return true;
    if (most == INT64_MAX)
        snprintf(range, sizeof range, "of %lld or more", (long long)least);
    else
        snprintf(range, sizeof range, "from %lld to %lld", (long long)least, (long long)most);
    return em_fail(status, EM_USAGE, "--%s: \"%s\" is not a whole number %s", name, text, range);
}

bool em_option_real(const em_call *call, const char *name, double fallback, double *value, em_status *status)
{
    const char *text = em_option_value(call, name);
    char *end;
    *value = fallback;
    if (!text) return true;
    *value = strtod(text, &end);
    if (end != text && *end == '\0' && isfinite(*value)) return true;
    return em_fail(status, EM_USAGE, "--%s: \"%s\" is not a finite number", name, text);
}

static void print_option(FILE *out, const em_option *option, const char *name)
{
    enum { WIDTH = 33 };
    char *left = em_text("%s--%s%s%s", option->letter ? (char[]){'-', option->letter, ',', ' ', 0} : "", name,
                         option->argument ? " " : "", option->argument ? option->argument : "");
    if (strlen(left) > WIDTH) /* the meaning goes below it */
        fprintf(out, "  %s\n  %*s %s\n", left, WIDTH, "", option->meaning);
    else
        fprintf(out, "  %-*s %s\n", WIDTH, left, option->meaning);
    free(left);
}

void em_options_help(const em_command *command, FILE *out)
{
    em_option_list list = em_options_of(command);
    fprintf(out, "usage: expertmesh %s %s\n\n%s\n", command->name, command->usage, command->meaning);
    if (command->more[0]) fprintf(out, "\n%s\n", command->more);
    fprintf(out, "\noptions:\n");
    for (int i = 0; i < list.count; i++) {
        if (i == list.first_field && command->takes_model) fprintf(out, "\nthe model's shape, one field at a time:\n");
        if (i == list.count - 1 && command->takes_model) fprintf(out, "\n");
        print_option(out, &list.option[i], em_options_name(&list, i));
    }
}

static bool add_span(const char **next, int64_t limit, bool *chosen)
{
    char *end;
    errno = 0;
    long long from = strtoll(*next, &end, 10), to = from;
    if (end == *next || !isdigit((unsigned char)**next)) return false;
    if (*end == '-') {
        const char *second = end + 1;
        to = strtoll(second, &end, 10);
        if (end == second || !isdigit((unsigned char)*second)) return false;
    }
    if (errno || from > to || to >= limit || (*end != ',' && *end != '\0')) return false;
    for (long long i = from; i <= to; i++) chosen[i] = true;
    *next = *end == ',' ? end + 1 : end;
    return *end == '\0' || **next != '\0';
}

int64_t *em_parse_list(const char *text, int64_t limit, const char *source, int64_t *count, em_status *status)
{
    bool *chosen = em_zeroed(limit, sizeof *chosen), good = *text != '\0';
    for (const char *next = text; good && *next;) good = add_span(&next, limit, chosen);
    int64_t *list = NULL;
    *count = 0;
    if (good) {
        list = em_alloc(limit, sizeof *list);
        for (int64_t i = 0; i < limit; i++)
            if (chosen[i]) list[(*count)++] = i;
    } else {
        em_fail(status, EM_USAGE, "%s: \"%s\" is not a list of numbers from 0 to %lld, such as 0 or 0-%lld", source,
                text, (long long)limit - 1, (long long)limit - 1);
    }
    free(chosen);
    return list;
}

bool em_options_watchdog(const em_call *call, double *seconds, em_status *status)
{
    enum { LEAST = 1, MOST = 1000000 };
    if (!em_option_real(call, "watchdog", EM_USUAL_WATCHDOG, seconds, status)) return false;
    if (*seconds == 0 || (*seconds >= LEAST && *seconds <= MOST)) return true;
    return em_fail(status, EM_USAGE, "--watchdog: %g is not a number of seconds from %d to %d, or 0 for none", *seconds,
                   LEAST, MOST);
}

bool em_options_seed(const em_call *call, uint64_t *seed, em_status *status)
{
    int64_t value;
    bool good = em_option_whole(call, "seed", 0, INT64_MAX, 0, &value, status);
    *seed = (uint64_t)value;
    return good;
}

bool em_options_storage(const em_call *call, em_storage *storage, em_status *status)
{
    const char *text = em_option_value(call, "storage");
    *storage = EM_F32;
    if (!text || em_storage_parse(text, storage)) return true;
    return em_fail(status, EM_USAGE, "--storage: \"%s\" is not f32, bf16 or int8", text);
}

bool em_options_first_of_model(const em_call *call, char name[40])
{
    em_option_list list = em_options_of(call->command);
    for (int i = 0; i < list.count; i++) {
        bool of_model = i >= list.first_field;
        for (const em_option *o = em_model_options; o->name; o++)
            of_model |= strcmp(o->name, em_options_name(&list, i)) == 0;
        if (!of_model || !call->value[i]) continue;
        snprintf(name, 40, "%s", em_options_name(&list, i));
        return true;
    }
    return false;
}

/* Fields of a JSON file, read by rank 0 for all. */
static bool read_config_file(const em_call *call, const char *path, em_config *config, uint32_t *given,
                             em_status *status)
{
    if (call->rank == 0) em_config_read_json(path, config, given, status);
    if (!em_agree(call->comm, status)) return false;
    MPI_Bcast(config, (int)sizeof *config, MPI_BYTE, 0, call->comm);
    MPI_Bcast(given, 1, MPI_UINT32_T, 0, call->comm);
    return true;
}

static bool set_fields(const em_call *call, em_config *config, uint32_t *given, em_status *status)
{
    em_option_list list = em_options_of(call->command);
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const char *text = call->value[list.first_field + f];
        if (!text) continue;
        char source[48];
        snprintf(source, sizeof source, "--%s", list.field_name[f]);
        if (!em_config_set(config, &em_config_fields[f], text, source, status)) return false;
        *given |= UINT32_C(1) << f;
    }
    return true;
}

static bool start_from_preset(const char *name, em_config *config, em_status *status)
{
    const em_preset *preset = em_preset_find(name);
    const char *names[EM_NUM_PRESETS];
    if (preset) {
        *config = preset->config;
        return true;
    }
    for (int i = 0; i < EM_NUM_PRESETS; i++) names[i] = em_presets[i].name;
    const char *nearest = em_nearest(name, names, EM_NUM_PRESETS);
    return em_fail(status, EM_USAGE, "--preset: there is no \"%s\"; %s%s", name,
                   nearest ? "the nearest is " : "expertmesh presets lists them", nearest ? nearest : "");
}

bool em_options_config(const em_call *call, em_config *config, em_status *status)
{
    const char *preset = em_option_value(call, "preset"), *file = em_option_value(call, "config");
    const uint32_t all = (UINT32_C(1) << EM_NUM_CONFIG_FIELDS) - 1;
    uint32_t given = preset ? all : 0;
    *config = (em_config){0};
    if (preset && !start_from_preset(preset, config, status)) return false;
    if (file && !read_config_file(call, file, config, &given, status)) return false;
    if (!set_fields(call, config, &given, status)) return false;
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        if (!(given >> f & 1))
            return em_fail(status, EM_USAGE, "the model's %s is not given: add --preset, or all fields by --config",
                           em_config_fields[f].name);
    return em_config_check(config, file ? file : "options", file ? EM_BAD_DATA : EM_USAGE, status);
}
