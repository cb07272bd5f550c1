/* timeline: what each rank did when, for Perfetto. */
#include "../outfile.h"
#include "../timeline.h"
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const em_option options[] = {
    {"output", "FILE", "the timeline, .json or .json.gz", 'o'},
    {"steps", "LIST", "only these steps, as 0,4-7 (all)", 0},
    {"layers", "LIST", "only these layers (all)", 0},
    {"force", NULL, "replace the output if it is there", 0},
    {NULL, NULL, NULL, 0},
};

/* Which of `count` things an option names; all without it. NULL with a status. Freed with free. */
static bool *chosen(const em_call *call, const char *name, int64_t count, em_status *status)
{
    char source[32];
    snprintf(source, sizeof source, "--%s", name);
    const char *text = em_option_value(call, name);
    int64_t n = 0, *list = text ? em_parse_list(text, count, source, &n, status) : NULL;
    if (text && !list) return NULL;
    bool *set = em_zeroed(count, sizeof *set);
    for (int64_t i = 0; i < count; i++) set[i] = !text;
    for (int64_t i = 0; i < n; i++) set[list[i]] = true;
    free(list);
    return set;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

/* What is to be written into a file. */
typedef struct drawn {
    const em_view *view;
    em_timeline_request request;
    em_timeline_result result;
    bool compressed;
} drawn;

static bool fill_file(FILE *out, void *what, em_status *status)
{
    drawn *d = what;
    gzFile file = gzdopen(dup(fileno(out)), d->compressed ? "wb6" : "wbT"); /* T: plain text */
    if (!file) return em_fail(status, EM_CANNOT_WRITE, "the timeline: %s", strerror(errno));
    bool good = em_timeline_write(d->view, &d->request, file, &d->result, status);
    if (gzclose(file) != Z_OK && good)
        good = em_fail(status, EM_CANNOT_WRITE, "the timeline cannot be written: %s", strerror(errno));
    return good;
}

static void tell(const char *path, const em_timeline_result *result)
{
    printf("%s: %lld steps, %lld slices, %lld flows; open it in https://ui.perfetto.dev\n", path,
           (long long)result->steps, (long long)result->slices, (long long)result->flows);
    if (result->lacks) printf("no flows and no counters: %s\n", result->lacks);
    if (result->error >= 0)
        printf("times of two ranks may be off by %.1f microseconds\n", result->error * 1e6);
    else
        printf("the run is not complete: how far its clocks agree is not written yet\n");
}

static void make_timeline(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    em_view view = {0};
    if (!path) em_fail(status, EM_USAGE, "timeline: where to? add -o FILE.json.gz");
    if (path && !ends_with(path, ".json") && !ends_with(path, ".json.gz"))
        em_fail(status, EM_USAGE, "timeline: %s: the name must end in .json or .json.gz", path);
    if (status->code == EM_OK && em_view_open(&view, call->argument[0], status) &&
        em_view_need(&view, EM_EVENTS, status) && em_outfile_check(call, path, status)) {
        bool *steps = chosen(call, "steps", view.num_steps, status), *layers = NULL;
        if (steps) layers = chosen(call, "layers", view.config.num_layers, status);
        drawn d = {.view = &view, .request = {steps, layers}, .compressed = ends_with(path, ".gz")};
        if (layers && em_outfile_write(path, fill_file, &d, status)) tell(path, &d.result);
        free(steps);
        free(layers);
    }
    em_view_close(&view);
}

static void timeline(const em_call *call, em_status *status)
{
    if (call->rank == 0) make_timeline(call, status);
    em_agree(call->comm, status);
}

const em_command em_command_timeline = {
    .name = "timeline",
    .usage = "T.h5 -o FILE.json.gz [--steps LIST] [--layers LIST]",
    .meaning = "Write what each rank of a trace did when, as a timeline that Perfetto opens.",
    .more =
        "A process a rank: steps, in them layers, in them phases, with their rows and bytes. Flows lead from a rank's\n"
        "dispatch and combine to those that got its rows; counters tell the rows of each expert.",
    .options = options,
    .num_arguments = 1,
    .run = timeline,
};
