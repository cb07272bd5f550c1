/* report: one or two traces as one HTML page. */
#include "commands.h"

#include "../outfile.h"
#include "../report/report.h"

static const em_option options[] = {
    {"output", "PAGE.html", "the page to write", 'o'},
    {"layer", "N",
     "colour the text by the experts of this layer; the page lets one choose another (default: the first)", 0},
    {"force", NULL, "replace it if it is there", 0},
    {NULL, NULL, NULL, 0},
};

static bool fill_page(FILE *out, void *what, em_status *status)
{
    (void)status;
    em_report_write(what, out);
    return true;
}

static void make_page(const em_call *call, const char *path, em_status *status)
{
    em_figures figures[EM_MOST_RUNS];
    em_runs runs = {.figures = figures};
    int64_t layer;
    if (!em_option_whole(call, "layer", 0, INT64_MAX, -1, &layer, status)) return;
    while (status->code == EM_OK && runs.count < call->num_arguments) {
        em_figures *one = &figures[runs.count];
        int64_t room = em_report_room(call->num_arguments);
        if (!em_figures_open(one, call->argument[runs.count], room, status)) break;
        runs.count++;
        if (layer >= 0) em_view_find_layer(&one->view, layer, "--layer", &one->text_layer, status);
    }
    if (status->code == EM_OK) em_outfile_write(path, fill_page, &runs, status);
    for (int i = 0; i < runs.count; i++) em_figures_close(&figures[i]);
}

static void report(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    if (!path) em_fail(status, EM_USAGE, "report: say where to write: -o report.html");
    if (status->code == EM_OK && call->rank == 0 && em_outfile_check(call, path, status)) make_page(call, path, status);
    if (em_agree(call->comm, status) && call->rank == 0) printf("%s: open it in any browser\n", path);
}

const em_command em_command_report = {
    .name = "report",
    .usage = "T.h5 [OTHER.h5] -o report.html",
    .meaning = "Draw a trace, or two side by side, as one HTML page that any browser opens.",
    .more =
        "Loads, router, text by expert, bytes between ranks, time and memory by rank, neurons, residual state; each\n"
        "picture with its numbers below. The page needs no network, and scripts only for comfort. Of a trace with\n"
        "more than 1 GB of ffn_hidden, or of the residual state, it reads some tokens, evenly apart, and says so.",
    .options = options,
    .num_arguments = 1,
    .most_arguments = EM_MOST_RUNS,
    .run = report,
};
