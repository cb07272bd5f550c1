#include "timeline.h"

#include "table.h"

#include "expertmesh/analysis.h"
#include "expertmesh/layout.h"
#include "expertmesh/profile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One timeline at work. Arrays of a step are made anew for each. */
typedef struct drawing {
    const em_view *view;
    const em_timeline_request *request;
    gzFile file;
    em_timeline_result *result;
    em_layout layout;
    bool flows;      /* can they be told? */
    char **phase;    /* [num_phases] their names as JSON, without quotes around */
    double *drift;   /* [P] how much a rank's clock gains in a second */
    double *events;  /* [P, num_events, EM_NUM_FIELDS] of the step at hand */
    int64_t *rows;   /* [P, P] dispatched in the step and layer at hand, from row to column */
    int64_t *load;   /* [E] */
    int32_t *chosen; /* [tokens of the step, S] */
    bool more;       /* something is written already */
    int64_t flow;    /* the last one's number */
} drawing;

/* ---- one event in the file ---- */

static void begin_entry(drawing *d, const char *kind, int process, const char *name)
{
    gzprintf(d->file, "%s\n{\"ph\":\"%s\",\"pid\":%d,\"tid\":0,\"name\":\"%s\"", d->more ? "," : "", kind, process,
             name);
    d->more = true;
}

static void name_process(drawing *d, int process, const char *name)
{
    begin_entry(d, "M", process, "process_name");
    gzprintf(d->file, ",\"args\":{\"name\":\"%s\"}}", name);
    begin_entry(d, "M", process, "process_sort_index");
    gzprintf(d->file, ",\"args\":{\"sort_index\":%d}}", process);
}

static void begin_slice(drawing *d, int rank, const char *name, double begin, double end)
{
    begin_entry(d, "X", rank, name);
    gzprintf(d->file, ",\"ts\":%.3f,\"dur\":%.3f", begin * 1e6, (end - begin) * 1e6);
    d->result->slices++;
}

/* ---- slices ---- */

static double *event_of(const drawing *d, int rank, int64_t i)
{
    return d->events + (rank * d->view->num_events + i) * EM_NUM_FIELDS;
}

static bool happened(const drawing *d, int rank, int64_t i)
{
    return i < d->view->num_events && event_of(d, rank, i)[EM_FIELD_END] > 0;
}

static int64_t layer_of(const drawing *d, int rank, int64_t i)
{
    return (int64_t)event_of(d, rank, i)[EM_FIELD_LAYER];
}

/* How many events after i are of its layer. */
static int64_t run_of_layer(const drawing *d, int rank, int64_t i)
{
    int64_t past = i + 1;
    while (happened(d, rank, past) && layer_of(d, rank, past) == layer_of(d, rank, i)) past++;
    return past - i;
}

static bool shows(const drawing *d, int64_t layer)
{
    return layer < 0 || d->request->layers[layer];
}

static void draw_phase(drawing *d, int rank, const double *event)
{
    int64_t layer = (int64_t)event[EM_FIELD_LAYER], rows = (int64_t)event[EM_FIELD_ROWS];
    begin_slice(d, rank, d->phase[(int)event[EM_FIELD_PHASE]], event[EM_FIELD_BEGIN], event[EM_FIELD_END]);
    gzprintf(d->file, ",\"args\":{\"layer\":%lld,\"rows\":%lld,\"bytes\":%lld}}", (long long)layer, (long long)rows,
             (long long)(rows * d->view->config.emb_size * (int64_t)sizeof(float)));
}

static void draw_rank(drawing *d, int rank, int64_t step, int64_t tokens)
{
    int64_t count = 0;
    char name[48];
    while (happened(d, rank, count)) count++;
    if (count == 0) return; /* a rank that took no place in the trace */
    begin_slice(d, rank, "step", event_of(d, rank, 0)[EM_FIELD_BEGIN], event_of(d, rank, count - 1)[EM_FIELD_END]);
    gzprintf(d->file, ",\"args\":{\"step\":%lld,\"tokens\":%lld}}", (long long)step, (long long)tokens);
    for (int64_t i = 0, run; i < count; i += run) {
        run = run_of_layer(d, rank, i);
        int64_t layer = layer_of(d, rank, i);
        if (!shows(d, layer)) continue;
        if (layer >= 0) {
            snprintf(name, sizeof name, "layer %lld", (long long)layer);
            begin_slice(d, rank, name, event_of(d, rank, i)[EM_FIELD_BEGIN],
                        event_of(d, rank, i + run - 1)[EM_FIELD_END]);
            gzprintf(d->file, "}");
        }
        for (int64_t k = i; k < i + run; k++) draw_phase(d, rank, event_of(d, rank, k));
    }
}

/* ---- what moved between ranks ---- */

static const double *find_event(const drawing *d, int rank, int64_t layer, em_phase phase)
{
    for (int64_t i = 0; happened(d, rank, i); i++) {
        const double *event = event_of(d, rank, i);
        if ((int64_t)event[EM_FIELD_LAYER] == layer && (int)event[EM_FIELD_PHASE] == (int)phase) return event;
    }
    return NULL;
}

/* The rows that one layer's choices brought from rank to rank, and to each expert. first: the run's number of the step's
 * first token. */
static void count_rows(drawing *d, int64_t first, int64_t tokens)
{
    const em_layout *layout = &d->layout;
    int64_t P = layout->num_ranks, S = d->view->config.num_selected_experts, slices = layout->slices_per_expert;
    memset(d->rows, 0, (size_t)(P * P) * sizeof *d->rows);
    memset(d->load, 0, (size_t)layout->num_experts * sizeof *d->load);
    int64_t *last = em_alloc(P, sizeof *last); /* the newest key that each rank got: a row goes to a rank once */
    for (int64_t r = 0; r < P; r++) last[r] = -1;
    for (int64_t key = 0; key < tokens * S; key++) {
        int64_t token = key / S, expert = d->chosen[key];
        int from = em_layout_token_owner(layout, tokens, token);
        d->load[expert]++;
        for (int64_t slice = 0; slice < slices; slice++) {
            int64_t turn = (first + token) % em_layout_turns(layout, expert);
            int to = em_ownership_owner(&layout->ffn, expert * slices + slice, turn);
            if (last[to] != key) d->rows[from * P + to]++;
            last[to] = key;
        }
    }
    free(last);
}

/* From where the sender had its rows ready, which is where it began to wait for all, to where the receiver has begun to take
 * them: that may be done before the sender itself stops waiting, as ranks of a host read each other's rows. */
static void draw_flow(drawing *d, const char *name, const double *from, int sender, const double *to, int receiver,
                      int64_t rows)
{
    bool waited = from > event_of(d, sender, 0) && (int)(from - EM_NUM_FIELDS)[EM_FIELD_PHASE] == EM_PHASE_WAIT;
    double leaves = waited ? (from - EM_NUM_FIELDS)[EM_FIELD_BEGIN] : from[EM_FIELD_BEGIN];
    double arrives = fmin(fmax(to[EM_FIELD_BEGIN], leaves), to[EM_FIELD_END]);
    leaves = fmin(leaves, arrives); /* clocks are off by clock_error */
    int64_t layer = (int64_t)from[EM_FIELD_LAYER];
    d->flow++;
    for (int end = 0; end < 2; end++) {
        begin_entry(d, end ? "f" : "s", end ? receiver : sender, name);
        gzprintf(d->file, ",\"cat\":\"rows\",\"id\":%lld%s,\"ts\":%.3f,\"args\":{\"layer\":%lld,\"rows\":%lld}}",
                 (long long)d->flow, end ? ",\"bp\":\"e\"" : "", (end ? arrives : leaves) * 1e6, (long long)layer,
                 (long long)rows);
    }
    d->result->flows++;
}

/* Rows go from a token's owner to the experts' by dispatch, and what became of them the same way back by combine. */
static void draw_flows(drawing *d, int64_t layer)
{
    int P = d->layout.num_ranks;
    for (int from = 0; from < P; from++)
        for (int to = 0; to < P; to++) {
            int64_t rows = d->rows[from * P + to];
            const double *out = find_event(d, from, layer, EM_PHASE_DISPATCH);
            const double *in = find_event(d, to, layer, EM_PHASE_DISPATCH);
            const double *back = find_event(d, to, layer, EM_PHASE_COMBINE);
            const double *home = find_event(d, from, layer, EM_PHASE_COMBINE);
            if (rows == 0 || from == to || !out || !in || !back || !home) continue;
            draw_flow(d, "dispatch", out, from, in, to, rows);
            draw_flow(d, "combine", back, to, home, from, rows);
        }
}

static void draw_load(drawing *d, int64_t layer)
{
    const double *dispatch = find_event(d, 0, layer, EM_PHASE_DISPATCH);
    if (!dispatch) return;
    begin_entry(d, "C", d->view->num_ranks, "rows");
    gzprintf(d->file, ",\"ts\":%.3f,\"args\":{", dispatch[EM_FIELD_END] * 1e6);
    for (int64_t e = 0; e < d->view->config.num_experts; e++)
        gzprintf(d->file, "%s\"expert %lld\":%lld", e > 0 ? "," : "", (long long)e, (long long)d->load[e]);
    gzprintf(d->file, "}}");
}

/* The recorded layers of a step whose tokens are [first, first + tokens). */
static bool draw_exchanges(drawing *d, int64_t first, int64_t tokens, em_status *status)
{
    int64_t S = d->view->config.num_selected_experts;
    bool good = true;
    d->chosen = em_alloc(tokens * S, sizeof *d->chosen);
    for (int64_t place = 0; good && place < d->view->num_layers; place++) {
        int64_t layer = d->view->layer[place];
        if (!shows(d, layer)) continue;
        good = em_view_read(d->view, EM_EXPERT_INDICES, place, first, tokens, d->chosen, status) &&
               em_analysis_check_choices(d->view, place, d->chosen, tokens * S, status);
        if (!good) break;
        count_rows(d, first, tokens);
        draw_flows(d, layer);
        draw_load(d, layer);
    }
    free(d->chosen);
    return good;
}

/* ---- the whole ---- */

/* Events are what this program wrote, or the file is damaged; their times are put on rank 0's clock. */
static bool check_events(drawing *d, int64_t step, em_status *status)
{
    for (int rank = 0; rank < d->view->num_ranks; rank++)
        for (int64_t i = 0; happened(d, rank, i); i++) {
            double *e = event_of(d, rank, i), before = i > 0 ? event_of(d, rank, i - 1)[EM_FIELD_END] : 0;
            e[EM_FIELD_BEGIN] -= e[EM_FIELD_BEGIN] * d->drift[rank];
            e[EM_FIELD_END] -= e[EM_FIELD_END] * d->drift[rank];
            bool good = e[EM_FIELD_END] >= e[EM_FIELD_BEGIN] && (i == 0 || e[EM_FIELD_BEGIN] > before - 1e-6) &&
                        e[EM_FIELD_PHASE] >= 0 && e[EM_FIELD_PHASE] < (double)d->view->num_phases &&
                        e[EM_FIELD_LAYER] >= -1 && e[EM_FIELD_LAYER] < (double)d->view->config.num_layers &&
                        e[EM_FIELD_ROWS] >= 0 && e[EM_FIELD_ROWS] < 1e18;
            if (!good)
                return em_fail(status, EM_BAD_DATA, "%s: events[%d, %lld, %lld] is no event of a run",
                               em_view_path(d->view), rank, (long long)step, (long long)i);
        }
    return true;
}

static bool draw_step(drawing *d, int64_t step, int64_t first, int64_t tokens, em_status *status)
{
    if (!em_view_read_events(d->view, step, d->events, status) || !check_events(d, step, status)) return false;
    for (int rank = 0; rank < d->view->num_ranks; rank++) draw_rank(d, rank, step, tokens);
    d->result->steps++;
    bool whole = d->flows && first + tokens <= em_view_tokens(d->view, d->view->num_layers);
    return !whole || draw_exchanges(d, first, tokens, status);
}

/* When rank 0's last event ended; 0 where there is none. */
static bool read_length(drawing *d, const int64_t *step_rows, double *seconds, em_status *status)
{
    int64_t last = d->view->num_steps - 1;
    *seconds = 0;
    while (last > 0 && step_rows[last] == 0) last--;
    if (!em_view_read_events(d->view, last, d->events, status)) return false;
    for (int64_t i = 0; happened(d, 0, i); i++) *seconds = event_of(d, 0, i)[EM_FIELD_END];
    return true;
}

/* The clocks' error, and how much each gains in a second: its drift spread evenly over the run. */
static bool read_clocks(drawing *d, const int64_t *step_rows, em_status *status)
{
    int P = d->view->num_ranks;
    double length, *error = em_zeroed(P, sizeof *error);
    d->result->error = -1;
    bool good = !d->view->complete || (em_view_read_list(d->view, EM_CLOCK_ERROR, error, status) &&
                                       em_view_read_list(d->view, EM_CLOCK_DRIFT, d->drift, status) &&
                                       read_length(d, step_rows, &length, status));
    for (int r = 0; good && d->view->complete && r < P; r++) {
        d->drift[r] = length > 0 ? d->drift[r] / length : 0;
        d->result->error = fmax(d->result->error, 2 * error[r]); /* each within its own of rank 0's */
    }
    free(error);
    return good;
}

/* Who owned what. Flows are told where it is known, and where all that was chosen is. */
static bool read_layout(drawing *d, em_status *status)
{
    char *map = em_view_attribute(d->view, "layout");
    const em_layout_plan plan = {.num_ranks = d->view->num_ranks};
    if (!d->view->recorded[EM_EXPERT_INDICES])
        d->result->lacks = "expert_indices was not recorded";
    else if (d->view->token[d->view->num_tokens - 1] != d->view->num_tokens - 1)
        d->result->lacks = "not all tokens were recorded";
    else if (!map)
        d->result->lacks = "the trace does not say who owned what";
    else if (d->view->resumes > 0)
        d->result->lacks = "the run was stopped and resumed, perhaps on other ranks";
    else
        d->flows = em_layout_read(&d->view->config, &plan, map, em_view_path(d->view), &d->layout, status);
    free(map);
    return status->code == EM_OK;
}

static bool read_steps(const drawing *d, int64_t *step_rows, em_status *status)
{
    if (!em_view_read_list(d->view, EM_STEP_ROWS, step_rows, status)) return false;
    for (int64_t step = 0; step < d->view->num_steps; step++)
        if (step_rows[step] < 0 || step_rows[step] > INT32_MAX)
            return em_fail(status, EM_BAD_DATA, "%s: step_rows[%lld] is %lld, which no run counts: the file is damaged",
                           em_view_path(d->view), (long long)step, (long long)step_rows[step]);
    return true;
}

static bool draw(drawing *d, em_status *status)
{
    int64_t first = 0, *step_rows = em_alloc(d->view->num_steps, sizeof *step_rows);
    bool good = read_steps(d, step_rows, status) && read_clocks(d, step_rows, status) && read_layout(d, status);
    gzprintf(d->file, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"times_of_two_ranks_agree_within_us\":");
    if (d->result->error >= 0)
        gzprintf(d->file, "\"%.3f\"},\"traceEvents\":[", d->result->error * 1e6);
    else
        gzprintf(d->file, "\"unknown: the run is not complete\"},\"traceEvents\":[");
    for (int r = 0; good && r < d->view->num_ranks; r++) {
        char name[32];
        snprintf(name, sizeof name, "rank %d", r);
        name_process(d, r, name);
    }
    if (d->flows) name_process(d, d->view->num_ranks, "experts");
    for (int64_t step = 0; good && step < d->view->num_steps; step++) {
        if (step_rows[step] > 0 && d->request->steps[step]) good = draw_step(d, step, first, step_rows[step], status);
        first += step_rows[step];
    }
    gzprintf(d->file, "\n]}\n");
    free(step_rows);
    return good;
}

/* A name from the file as JSON, without its quotes. Freed with free. */
static char *escaped(const char *name)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) em_die("no memory for the name of a phase");
    em_json_text(name, out);
    fclose(out);
    memmove(text, text + 1, size - 2);
    text[size - 2] = '\0';
    return text;
}

bool em_timeline_write(const em_view *view, const em_timeline_request *request, gzFile file, em_timeline_result *result,
                       em_status *status)
{
    *result = (em_timeline_result){0};
    if (!em_view_need(view, EM_EVENTS, status)) return false;
    int64_t P = view->num_ranks;
    drawing d = {.view = view, .request = request, .file = file, .result = result};
    d.phase = em_alloc(view->num_phases, sizeof *d.phase);
    for (int64_t p = 0; p < view->num_phases; p++) d.phase[p] = escaped(view->phase[p]);
    d.drift = em_zeroed(P, sizeof *d.drift);
    d.events = em_alloc(P * view->num_events * EM_NUM_FIELDS, sizeof *d.events);
    d.rows = em_alloc(P * P, sizeof *d.rows);
    d.load = em_alloc(view->config.num_experts, sizeof *d.load);
    bool good = draw(&d, status);
    for (int64_t p = 0; p < view->num_phases; p++) free(d.phase[p]);
    free(d.phase);
    free(d.drift);
    free(d.events);
    free(d.rows);
    free(d.load);
    if (d.flows) em_layout_free(&d.layout);
    return good;
}
