/* report: one or two traces as one HTML page. */
#include "commands.h"

#include "../report/report.h"
#include "expertmesh/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const em_option options[] = {
    {"output", "PAGE.html", "the page to write", 'o'},
    {"force", NULL, "replace it if it is there", 0},
    {NULL, NULL, NULL, 0},
};

/* Written beside its name, and renamed when it is whole. */
static void write_page(const em_runs *runs, const char *path, em_status *status)
{
    char *partial = em_text("%s.partial", path);
    FILE *out = fopen(partial, "we");
    if (!out)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be created: %s", partial, strerror(errno));
    else {
        errno = 0;
        em_report_write(runs, out);
        bool good = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
        int why = errno;
        if (fclose(out) != 0 || !good)
            em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", partial, strerror(good ? errno : why));
        else if (rename(partial, path) != 0)
            em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", partial, path, strerror(errno));
        if (status->code != EM_OK) unlink(partial);
    }
    free(partial);
}

/* --force must not cost the trace. */
static bool check_output(const em_call *call, const char *path, em_status *status)
{
    struct stat page, trace;
    for (int i = 0; i < call->num_arguments; i++)
        if (stat(path, &page) == 0 && stat(call->argument[i], &trace) == 0 && page.st_dev == trace.st_dev &&
            page.st_ino == trace.st_ino)
            return em_fail(status, EM_CANNOT_WRITE, "%s: is the trace itself; name another file for the page", path);
    return em_output_check(path, em_option_value(call, "force") != NULL, status);
}

static void make_page(const em_call *call, const char *path, em_status *status)
{
    em_figures figures[EM_MOST_RUNS];
    em_runs runs = {.figures = figures};
    for (; runs.count < call->num_arguments; runs.count++)
        if (!em_figures_open(&figures[runs.count], call->argument[runs.count], em_report_room(call->num_arguments),
                             status))
            break;
    if (status->code == EM_OK) write_page(&runs, path, status);
    for (int i = 0; i < runs.count; i++) em_figures_close(&figures[i]);
}

static void report(const em_call *call, em_status *status)
{
    const char *path = em_option_value(call, "output");
    if (!path) em_fail(status, EM_USAGE, "report: say where to write: -o report.html");
    if (status->code == EM_OK && call->rank == 0 && check_output(call, path, status)) make_page(call, path, status);
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
