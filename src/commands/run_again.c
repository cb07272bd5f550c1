#include "run_again.h"

#include "../outfile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- going on ---- */

/* Options that say how a run is carried out, and not what it computes. */
static bool may_change(const char *name)
{
    static const char *const names[] = {
        "threads",   "layout",          "layout-only",      "write-layout", "ranks",      "ranks-per-host",
        "routing",   "attention-ranks", "expert-ranks",     "exchange",     "checkpoint", "resume",
        "max-hours", "force",           "checkpoint-every", "watchdog",     "help"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

/* Files that may have another name now; what is in them is looked at. */
static bool may_move(const char *name)
{
    return strcmp(name, "weights") == 0 || strcmp(name, "trace") == 0 || strcmp(name, "tokenizer") == 0;
}

/* An option as it is given now, against what the earlier run was told. */
static bool check_option(const em_checkpoint *from, const char *name, const char *value, em_status *status)
{
    const char *before = em_checkpoint_told(from, name);
    int code = strcmp(name, "seed") == 0 ? EM_BAD_DATA : EM_USAGE; /* other weights */
    if (!value || may_change(name) || (before && (may_move(name) || strcmp(before, value) == 0))) return true;
    if (!before)
        return em_fail(status, code,
                       "--%s%s%s: the run of %s was not told so, and it goes on as it began; leave it out", name,
                       *value ? " " : "", value, from->path);
    return em_fail(status, code, "--%s %s: the run of %s was told %s, and it goes on as it began; leave it out", name,
                   value, from->path, before);
}

/* The model's fields as text, from which the same numbers are read again. */
static void set_model(em_again *again)
{
    em_config config = again->from->config;
    em_options_set(&again->call, "config", NULL); /* the file may be another by now */
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER)
            again->field[f] = em_text("%lld", (long long)*em_config_integer(&config, field));
        else if (field->type == EM_FIELD_REAL)
            again->field[f] = em_text("%.17g", *em_config_real(&config, field));
        else
            again->field[f] = em_text("%s", em_ffn_kind_name(config.ffn_kind));
        char *name = em_text("%s", field->name);
        for (char *c = name; *c; c++)
            if (*c == '_') *c = '-';
        em_options_set(&again->call, name, again->field[f]);
        free(name);
    }
}

/* All that the earlier run was told, where nothing else is said now. */
static bool take_over(const em_call *call, em_again *again, em_status *status)
{
    const em_checkpoint *from = again->from;
    char name[40];
    const char *value;
    int known = 0;
    for (int i = 0; em_option_at(call, i, name, &value); i++) {
        const char *before = em_checkpoint_told(from, name);
        if (!check_option(from, name, value, status)) return false;
        if (before && !value) em_options_set(&again->call, name, before);
        known += before != NULL;
    }
    if (known < from->num_told)
        return em_fail(status, EM_BAD_DATA, "%s: its run was told an option that this program does not have",
                       from->path);
    if (!em_checkpoint_told(from, "weights")) set_model(again);
    return true;
}

/* What checkpoints of this run say it was told. */
static void list_told(em_again *again)
{
    char name[40];
    const char *value;
    again->told = em_zeroed(EM_MAX_OPTIONS, sizeof *again->told);
    for (int i = 0; em_option_at(&again->call, i, name, &value); i++) {
        if (!value || may_change(name) || (again->from && !em_checkpoint_told(again->from, name))) continue;
        em_told *told = &again->told[again->num_told++];
        memcpy(told->name, name, sizeof name);
        told->value = em_text("%s", value);
    }
}

bool em_again_read(const em_call *call, em_again *again, em_status *status)
{
    const char *path = em_option_value(call, "resume");
    *again = (em_again){.call = *call};
    if (path && !(again->from = em_checkpoint_open(call->comm, path, status))) return false;
    if (path && !take_over(call, again, status)) return false;
    list_told(again);
    return true;
}

void em_again_free(em_again *again)
{
    for (int i = 0; i < again->num_told; i++) free(again->told[i].value);
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) free(again->field[f]);
    free(again->told);
    em_checkpoint_close(again->from);
}

/* ---- the same weights ---- */

bool em_again_check_source(const em_again *again, const em_source *source, em_status *status)
{
    if (!again->from) return true;
    const em_config_field *other = em_config_difference(&source->config, &again->from->config);
    if (other)
        return em_fail(status, EM_BAD_DATA, "%s: its %s is not that of the run of %s: these are other weights",
                       em_option_value(&again->call, "weights"), other->name, again->from->path);
    if (em_isa_fix(again->from->isa)) return true;
    return em_fail(
        status, EM_BAD_DATA,
        "%s: computed by the loops of %s, which this processor does not have, or EXPERTMESH_ISA forbids; others "
        "would give other bits",
        again->from->path, em_isa_name(again->from->isa));
}

bool em_again_check_weights(const em_again *again, const em_model *model, const em_source *source, int64_t *sum,
                            em_status *status)
{
    uint64_t bits = 0;
    if (source->store) bits = em_weights_sum(&model->weights, &model->config, &model->layout, model->rank);
    MPI_Allreduce(MPI_IN_PLACE, &bits, 1, MPI_UINT64_T, MPI_SUM, model->comm);
    memcpy(sum, &bits, sizeof bits);
    if (again->from && *sum != again->from->weights_sum)
        em_fail(status, EM_BAD_DATA, "%s: other weights than those of the run of %s",
                em_option_value(&again->call, "weights"), again->from->path);
    return em_agree(model->comm, status);
}

/* ---- writing checkpoints ---- */

/* "1000": tokens; "30min": time. */
static bool read_every(const em_call *call, em_keeping *keeping, em_status *status)
{
    const char *text = em_option_value(call, "checkpoint-every");
    char *end;
    if (!text) return true;
    errno = 0;
    double number = strtod(text, &end);
    bool good = end != text && *text != '-' && isfinite(number) && number > 0;
    if (good && strcmp(end, "min") == 0) {
        keeping->every_seconds = 60 * number;
        return true;
    }
    keeping->every_tokens = strtoll(text, &end, 10);
    if (good && *end == '\0' && errno == 0 && keeping->every_tokens > 0) return true;
    return em_fail(status, EM_USAGE,
                   "--checkpoint-every: \"%s\" is neither a number of tokens nor of minutes, like 30min", text);
}

static bool read_hours(const em_call *call, em_keeping *keeping, em_status *status)
{
    double hours;
    if (!em_option_real(call, "max-hours", 0, &hours, status)) return false;
    if (em_option_value(call, "max-hours") && hours <= 0)
        return em_fail(status, EM_USAGE, "--max-hours: %g is not above 0", hours);
    keeping->most_seconds = 3600 * hours;
    return true;
}

void em_again_keep_apart(const em_call *call, const char *option, const char *path, em_status *status)
{
    static const char *const inputs[] = {"weights", "prompt-file", "tokens-file", "config",
                                         "layout",  "tokenizer",   "routing",     "resume"};
    static const char *const outputs[] = {"trace", "checkpoint", "write-layout"};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        const char *input = em_option_value(call, inputs[i]);
        bool goes_on = strcmp(inputs[i], "resume") == 0 && strcmp(option, "checkpoint") == 0;
        if (em_outfile_over(path, input) && !(goes_on && em_outfile_same(path, input)))
            em_fail(status, EM_CANNOT_WRITE, "--%s %s would replace %s, the file of --%s; it must go elsewhere", option,
                    path, input, inputs[i]);
    }
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        const char *output = em_option_value(call, outputs[i]);
        if (!output || strcmp(outputs[i], option) == 0) continue;
        if (em_outfile_over(path, output) || em_outfile_over(output, path))
            em_fail(status, EM_USAGE, "--%s and --%s would write over each other: %s, %s", option, outputs[i], path,
                    output);
    }
}

/* Rank 0: may checkpoints be written there? */
static void check_path(const em_again *again, const char *path, em_status *status)
{
    bool force =
        em_option_value(&again->call, "force") || em_outfile_same(path, em_option_value(&again->call, "resume"));
    if (em_output_check(path, force, status)) em_again_keep_apart(&again->call, "checkpoint", path, status);
}

bool em_again_keeping(const em_again *again, em_keeping *keeping, em_status *status)
{
    static const char *const ways[] = {"checkpoint-every", "max-hours"};
    const em_call *call = &again->call;
    const char *path = em_option_value(call, "checkpoint");
    keeping->from = again->from;
    keeping->path = path ? path : em_option_value(call, "resume");
    for (int i = 0; i < 2 && !keeping->path; i++)
        if (em_option_value(call, ways[i]))
            return em_fail(status, EM_USAGE, "run: --%s is for checkpoints, but --checkpoint F is missing", ways[i]);
    if (!read_every(call, keeping, status) || !read_hours(call, keeping, status)) return false;
    if (call->rank == 0 && keeping->path) check_path(again, keeping->path, status);
    return em_agree(call->comm, status);
}
