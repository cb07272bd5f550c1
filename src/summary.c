#include "summary.h"

#include "table.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

void em_summary_model(const em_source *source, FILE *out)
{
    const em_config *c = &source->config;
    em_model_size size = em_model_size_of(c);
    em_count_text all, active;
    em_bytes_text bytes;
    fprintf(out,
            "model: %lld layer%s, %lld wide; %lld query and %lld key/value heads of %lld; %lld experts of %lld neurons "
            "(%s), %lld selected;\n       vocabulary %lld, sequence %lld\n",
            (long long)c->num_layers, c->num_layers == 1 ? "" : "s", (long long)c->emb_size, (long long)c->num_q_heads,
            (long long)c->num_kv_heads, (long long)c->key_size, (long long)c->num_experts, (long long)c->ffn_size,
            em_ffn_kind_name(c->ffn_kind), (long long)c->num_selected_experts, (long long)c->vocab_size,
            (long long)c->sequence_len);
    fprintf(out, "       %s parameters, %s of them active for a token; %s of weights\n", em_count(size.parameters, all),
            em_count(size.active, active), em_bytes((double)em_weights_model_bytes(source), bytes));
}

void em_summary_weights(const em_source *source, const em_layout *layout, FILE *out)
{
    em_bytes_text sum_text, model_text;
    em_count_text owned, repeated;
    static const char *const head[] = {"rank",    "owned bytes", "repeated bytes",  "heads", "kv heads",
                                       "experts", "slices",      "vocabulary rows", "idle"};
    int columns = 8; /* and one more where a rank is idle */
    for (int r = 0; r < layout->num_ranks; r++) columns = em_layout_idle(layout, r) ? 9 : columns;
    em_table *table = em_table_new(columns, "rrrrrrrrl");
    int64_t sum = 0;
    for (int i = 0; i < columns; i++) em_table_cell(table, "%s", head[i]);
    for (int r = 0; r < layout->num_ranks; r++) {
        em_held held = em_weights_held(source, layout, r);
        sum += held.owned;
        em_table_cell(table, "%d", r);
        em_table_cell(table, "%s", em_count(held.owned, owned));
        em_table_cell(table, "%s", em_count(held.repeated, repeated));
        em_table_cell(table, "%lld", (long long)em_layout_heads(layout, r).count);
        em_table_cell(table, "%lld", (long long)em_layout_kv_heads(layout, r).count);
        em_table_cell(table, "%lld", (long long)em_layout_num_experts(layout, r));
        em_table_cell(table, "%lld", (long long)em_layout_ffn_units(layout, r).count);
        em_table_cell(table, "%lld", (long long)em_layout_vocab_held(layout, r));
        if (columns == 9) em_table_cell(table, "%s", em_layout_idle(layout, r) ? "idle" : "");
    }
    fprintf(
        out,
        "\nweights held by each rank (repeated: norms, routers, split key/value heads, split int8 groups, replicas)\n");
    em_table_print(table, out);
    fprintf(out, "owned by all ranks: %s bytes (%s); the model: %s bytes (%s)\n", em_count(sum, owned),
            em_bytes((double)sum, sum_text), em_count(em_weights_model_bytes(source), repeated),
            em_bytes((double)em_weights_model_bytes(source), model_text));
    em_table_free(table);
}

/* ---- the table of a run ---- */

/* rows [L + 1, phases, reaches]: those of one layer. */
static int64_t rows_of_layer(const int64_t *rows, int64_t layer)
{
    int64_t width = EM_NUM_PHASES * EM_NUM_REACHES, sum = 0;
    for (int64_t i = 0; i < width; i++) sum += rows[layer * width + i];
    return sum;
}

static void print_reach(em_table *table, int64_t rows, int64_t row_bytes)
{
    em_bytes_text bytes;
    em_count_text count;
    em_table_cell(table, "%s", em_count(rows, count));
    em_table_cell(table, "%s", em_bytes((double)rows * (double)row_bytes, bytes));
}

/* Loads of a layer: each expert's, or what they spread over where there are many. */
static void print_loads(const em_model *model, const em_profile *profile, const int64_t *rows, FILE *out)
{
    enum { MOST = 16 };
    int64_t E = model->config.num_experts, L = model->config.num_layers;
    int columns = E <= MOST ? (int)E + 3 : 7;
    em_table *table = em_table_new(columns, "rrrrrrrrrrrrrrrrrrrr");
    em_table_cell(table, "layer");
    for (int64_t e = 0; E <= MOST && e < E; e++) em_table_cell(table, "expert %lld", (long long)e);
    if (E > MOST) {
        em_table_cell(table, "experts");
        em_table_cell(table, "unused");
        em_table_cell(table, "mean load");
        em_table_cell(table, "largest");
    }
    em_table_cell(table, "rows sent");
    em_table_cell(table, "bytes sent");
    for (int64_t layer = 0; layer < L; layer++) {
        const int64_t *load = profile->load + layer * E;
        int64_t largest = 0, unused = 0, sum = 0;
        em_table_cell(table, "%lld", (long long)layer);
        for (int64_t e = 0; e < E; e++) {
            if (E <= MOST) em_table_cell(table, "%lld", (long long)load[e]);
            largest = load[e] > largest ? load[e] : largest;
            unused += load[e] == 0;
            sum += load[e];
        }
        if (E > MOST) {
            em_table_cell(table, "%lld", (long long)E);
            em_table_cell(table, "%lld", (long long)unused);
            em_table_cell(table, "%.1f", (double)sum / (double)E);
            em_table_cell(table, "%lld", (long long)largest);
        }
        print_reach(table, rows_of_layer(rows, layer), model->config.emb_size * (int64_t)sizeof(float));
    }
    fprintf(out, "\nper layer: rows each expert worked on; rows and bytes sent between ranks\n");
    em_table_print(table, out);
    em_table_free(table);
}

void em_summary_rows(em_table *table, double rows, bool exact)
{
    em_count_text text;
    if (exact)
        em_table_cell(table, "%s", em_count((int64_t)(rows + 0.5), text));
    else
        em_table_cell(table, "%.1f", rows);
}

void em_summary_exchanges(const em_config *config, int num_ranks, const int *host, bool flat, const double *rows,
                          bool exact, FILE *out)
{
    static const char *const head[] = {"exchange", "rows inside hosts", "bytes", "rows between hosts", "bytes"};
    int num_hosts = 0;
    em_bytes_text bytes;
    em_table *table = em_table_new(5, "lrrrr");
    for (int r = 0; r < num_ranks; r++) num_hosts += host[r] == r;
    for (int i = 0; i < 5; i++) em_table_cell(table, "%s", head[i]);
    for (int phase = 0; phase < EM_NUM_PHASES; phase++) {
        if (!em_phase_exchanges((em_phase)phase)) continue;
        em_table_cell(table, "%s", em_phase_names[phase]);
        for (int reach = 0; reach < EM_NUM_REACHES; reach++) {
            double sum = 0;
            for (int64_t layer = 0; layer <= config->num_layers; layer++)
                sum += rows[(layer * EM_NUM_PHASES + phase) * EM_NUM_REACHES + reach];
            em_summary_rows(table, sum, exact);
            em_table_cell(table, "%s", em_bytes(sum * (double)config->emb_size * sizeof(float), bytes));
        }
    }
    fprintf(out, "\nrows between ranks, in all layers: %d rank%s on %d host%s%s\n", num_ranks,
            num_ranks == 1 ? "" : "s", num_hosts, num_hosts == 1 ? "" : "s",
            num_hosts == 1 ? ""
            : flat         ? ", a row to each rank that needs it"
                           : ", a row once to each host that needs it");
    em_table_print(table, out);
    em_table_free(table);
}

static void print_exchanges(const em_model *model, const int64_t *rows, FILE *out)
{
    int64_t count = (model->config.num_layers + 1) * EM_NUM_PHASES * EM_NUM_REACHES;
    double *all = em_alloc(count, sizeof *all);
    for (int64_t i = 0; i < count; i++) all[i] = (double)rows[i];
    em_summary_exchanges(&model->config, model->num_ranks, model->x->host_of, model->arrival.flat, all, true, out);
    free(all);
}

/* seconds [P, L + 1, phases]: one line each for the least, mean and most over ranks. */
static void print_seconds(const em_model *model, const double *seconds, FILE *out)
{
    static const char *const statistic[] = {"min", "mean", "max"};
    int64_t L = model->config.num_layers, width = (L + 1) * EM_NUM_PHASES;
    int P = model->num_ranks;
    em_table *table = em_table_new(2 + EM_NUM_PHASES, "rlrrrrrrrrrrrrrrrr");
    em_table_cell(table, "layer");
    em_table_cell(table, "%s", "");
    for (int phase = 0; phase < EM_NUM_PHASES; phase++) em_table_cell(table, "%s", em_phase_names[phase]);
    for (int64_t layer = 0; layer <= L; layer++)
        for (int s = 0; s < 3; s++) {
            if (s > 0)
                em_table_cell(table, "%s", "");
            else if (layer == L)
                em_table_cell(table, "outside");
            else
                em_table_cell(table, "%lld", (long long)layer);
            em_table_cell(table, "%s", statistic[s]);
            for (int phase = 0; phase < EM_NUM_PHASES; phase++) {
                double least = HUGE_VAL, sum = 0, most = 0;
                for (int r = 0; r < P; r++) {
                    double value = seconds[r * width + layer * EM_NUM_PHASES + phase];
                    least = value < least ? value : least;
                    most = value > most ? value : most;
                    sum += value;
                }
                double shown = s == 0 ? least : s == 1 ? sum / P : most;
                if (most > 0)
                    em_table_cell(table, "%.3f", 1e3 * shown);
                else
                    em_table_cell(table, "-");
            }
        }
    fprintf(out, "\nmilliseconds by phase: least, mean and most over ranks\n");
    em_table_print(table, out);
    em_table_free(table);
}

static void print_totals(const em_model *model, const int64_t *peak, int64_t num_tokens, double seconds, FILE *out)
{
    em_bytes_text bytes;
    fprintf(out, "\n%lld tokens in %.3f s: %.1f tokens/s\n", (long long)num_tokens, seconds,
            (double)num_tokens / seconds);
    fprintf(out, "peak memory by rank:");
    for (int r = 0; r < model->num_ranks; r++)
        fprintf(out, "%s %s", r > 0 ? "," : "", em_bytes((double)peak[r], bytes));
    fprintf(out, "\n");
}

void em_summary_run(const em_model *model, const em_profile *profile, int64_t num_tokens, double seconds, FILE *out)
{
    int64_t L = model->config.num_layers, width = (L + 1) * EM_NUM_PHASES, memory = em_memory_peak();
    int P = model->num_ranks;
    double *all = em_alloc(P * width, sizeof *all);
    int64_t *peak = em_alloc(P, sizeof *peak), *rows = em_alloc(width * EM_NUM_REACHES, sizeof *rows);
    MPI_Gather(profile->seconds, (int)width, MPI_DOUBLE, all, (int)width, MPI_DOUBLE, 0, model->comm);
    MPI_Gather(&memory, 1, MPI_INT64_T, peak, 1, MPI_INT64_T, 0, model->comm);
    MPI_Reduce(profile->rows, rows, (int)(width * EM_NUM_REACHES), MPI_INT64_T, MPI_SUM, 0, model->comm);
    if (model->rank == 0) {
        print_loads(model, profile, rows, out);
        print_exchanges(model, rows, out);
        print_seconds(model, all, out);
        print_totals(model, peak, num_tokens, seconds, out);
    }
    free(all);
    free(peak);
    free(rows);
}

void em_summary_outcome(const em_outcome *outcome, bool bytes, const em_tokenizer *tokenizer, FILE *out)
{
    em_table *table = em_table_new(1 + outcome->num_best, "rllllll");
    em_table_cell(table, "prompt");
    for (int i = 0; i < outcome->num_best; i++) em_table_cell(table, "%d: token, score", i + 1);
    for (int64_t s = 0; s < outcome->num_sequences; s++) {
        em_table_cell(table, "%lld", (long long)s);
        for (int i = 0; i < outcome->num_best; i++) {
            int token = outcome->token[s * EM_NUM_BEST + i];
            double logit = (double)outcome->logit[s * EM_NUM_BEST + i];
            if (tokenizer)
                em_table_cell(table, "%d '%s': %.4f", token, em_tokenizer_piece(tokenizer, token), logit);
            else if (bytes && token < 128 && isprint(token))
                em_table_cell(table, "%d '%c': %.4f", token, token, logit);
            else
                em_table_cell(table, "%d: %.4f", token, logit);
        }
    }
    fprintf(out, "\nlikeliest next tokens after each prompt\n");
    em_table_print(table, out);
    em_table_free(table);
    bool finite = true;
    for (int64_t i = 0; i < outcome->num_sequences; i++) finite &= isfinite(outcome->logit[i * EM_NUM_BEST]) != 0;
    if (!finite)
        fprintf(stderr,
                "the scores are not finite numbers: somewhere the model passes what float32 holds; the first NaN or "
                "infinity of the trace shows where\n");
}

/* ", 512.34 MB/s a rank, 12 s left" */
static void tell_speed(double done, double all, double seconds, char *text, size_t room)
{
    em_bytes_text rate;
    if (done <= 0 || seconds <= 0) return;
    snprintf(text, room, ", %s/s a rank, %.0f s left", em_bytes(done / seconds, rate), seconds * (all - done) / done);
}

void em_bar_update(void *context, double done, double all)
{
    enum { WIDTH = 40 };
    em_bar *bar = context;
    if (!bar->shown) return;
    double now = MPI_Wtime();
    bool terminal = isatty(STDERR_FILENO), last = done >= all * (1 - 1e-9);
    if (!last && now - bar->last < (terminal ? 0.1 : 5)) return;
    bar->last = now;
    char speed[64] = "";
    if (bar->bytes && !last) tell_speed(done, all, now - bar->start, speed, sizeof speed);
    if (!terminal) {
        fprintf(stderr, "%s: %.0f%% after %.1f s%s\n", bar->what, 100 * done / all, now - bar->start, speed);
        return;
    }
    int full = (int)(WIDTH * done / all);
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f%% %.1f s%s%s", bar->what, full, "########################################",
            WIDTH - full, "", 100 * done / all, now - bar->start, speed, last ? "\033[K\n" : "\033[K");
    fflush(stderr);
}
