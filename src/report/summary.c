/* The table of what the runs were. */
#include "sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a row of the table says of a trace: of its own, freed with free; NULL: nothing. */
typedef char *row_text(const em_figures *figures);

static char *say_file(const em_figures *f)
{
    return em_text("%s", f->path);
}

static char *say_state(const em_figures *f)
{
    const em_view *v = &f->view;
    if (v->complete) return em_text("complete");
    if (v->step_tokens == 0) return em_text("not complete: %lld tokens are whole", (long long)v->tokens_done);
    return em_text("not complete: %lld tokens are whole, and %lld more in the first %lld layers",
                   (long long)v->tokens_done, (long long)v->step_tokens, (long long)v->layers_done);
}

static char *say_command(const em_figures *f)
{
    return em_view_attribute(&f->view, "command_line");
}

static char *say_made(const em_figures *f)
{
    char *date = em_view_attribute(&f->view, "date_created"), *host = em_view_attribute(&f->view, "hostname");
    char *text = em_text("%s on %s", date ? date : "at an unknown time", host ? host : "an unknown host");
    free(date);
    free(host);
    return text;
}

static char *say_program(const em_figures *f)
{
    char *version = em_view_attribute(&f->view, "creator_version"),
         *revision = em_view_attribute(&f->view, "git_revision");
    char *text = em_text("expertmesh %s (%s)", version ? version : "?", revision ? revision : "?");
    free(version);
    free(revision);
    return text;
}

static char *say_mpi(const em_figures *f)
{
    return em_view_attribute(&f->view, "mpi_library");
}

static char *say_job(const em_figures *f)
{
    return em_view_attribute(&f->view, "slurm_job_id");
}

static char *say_weights(const em_figures *f)
{
    return em_view_attribute(&f->view, "weights");
}

static char *say_model(const em_figures *f)
{
    const em_config *c = &f->view.config;
    return em_text(
        "%lld layer%s, %lld wide; %lld query and %lld key/value heads of %lld; %lld experts of %lld neurons (%s), "
        "%lld selected; vocabulary %lld",
        (long long)c->num_layers, c->num_layers == 1 ? "" : "s", (long long)c->emb_size, (long long)c->num_q_heads,
        (long long)c->num_kv_heads, (long long)c->key_size, (long long)c->num_experts, (long long)c->ffn_size,
        em_ffn_kind_name(c->ffn_kind), (long long)c->num_selected_experts, (long long)c->vocab_size);
}

static char *say_recorded(const em_figures *f)
{
    return em_text("%lld of %lld layers, %lld tokens", (long long)f->L, (long long)f->view.config.num_layers,
                   (long long)f->num_text);
}

static char *say_ranks(const em_figures *f)
{
    return em_text("%lld", (long long)f->P);
}

static char *say_balance(const em_figures *f)
{
    double sum = 0, most = 0;
    int64_t at = 0, unused = 0;
    if (!f->balance || f->L == 0) return NULL;
    for (int64_t i = 0; i < f->L; i++) {
        double over = f->balance[i].over_mean;
        sum += over;
        unused += f->balance[i].unused;
        if (!(over > most)) continue;
        most = over;
        at = i;
    }
    return em_text("largest over mean load %.3g in the mean of layers, %.3g at most (layer %lld); experts without a "
                   "token, over all "
                   "layers: %lld",
                   sum / (double)f->L, most, (long long)f->view.layer[at], (long long)unused);
}

static char *say_exchange(const em_figures *f)
{
    double sent = 0, kept = 0;
    em_bytes_text sent_text, kept_text;
    if (!f->bytes) return NULL;
    for (int64_t i = 0; i < f->P * f->P; i++) *(i / f->P == i % f->P ? &kept : &sent) += f->bytes[i];
    return em_text("dispatch: %s between ranks, %s stayed on their rank", em_bytes(sent, sent_text),
                   em_bytes(kept, kept_text));
}

static char *say_time(const em_figures *f)
{
    if (!f->seconds) return NULL;
    double most = 0, all = 0, wait = 0;
    for (int64_t r = 0; r < f->P; r++) {
        double sum = 0;
        for (int64_t p = 0; p < f->view.num_phases; p++) {
            double seconds = f->seconds[r * f->view.num_phases + p];
            sum += seconds;
            wait += em_phase_kind_of(f->view.phase[p]) == EM_KIND_WAIT ? seconds : 0;
        }
        all += sum;
        most = fmax(most, sum);
    }
    return em_text("%.4g s on the rank that took most; %.3g %% of all ranks' time was waiting", most,
                   all > 0 ? 100 * wait / all : 0);
}

static char *say_memory(const em_figures *f)
{
    double most = 0, sum = 0;
    em_bytes_text most_text, sum_text;
    if (!f->memory) return NULL;
    for (int64_t r = 0; r < f->P; r++) {
        double peak = f->memory[2 * r] + f->memory[2 * r + 1];
        sum += peak;
        most = fmax(most, peak);
    }
    return em_text("%s at most on a rank, %s on all", em_bytes(most, most_text), em_bytes(sum, sum_text));
}

static const struct {
    const char *name;
    row_text *say;
} rows[] = {
    {"trace", say_file},        {"state", say_state},       {"command", say_command}, {"made", say_made},
    {"program", say_program},   {"MPI", say_mpi},           {"SLURM job", say_job},   {"weights", say_weights},
    {"model", say_model},       {"recorded", say_recorded}, {"ranks", say_ranks},     {"balance", say_balance},
    {"exchange", say_exchange}, {"time", say_time},         {"memory", say_memory},
};

static void put_row(em_page *page, const em_runs *runs, const char *name, row_text *say)
{
    char *text[EM_MOST_RUNS] = {NULL};
    bool any = false, differs = false;
    for (int i = 0; i < runs->count; i++) {
        text[i] = say(&runs->figures[i]);
        any = any || text[i];
        differs = differs || strcmp(text[i] ? text[i] : "", text[0] ? text[0] : "") != 0;
    }
    if (any) {
        em_page_put(page, "<tr%s><th>%s</th>", differs ? " class=\"differs\"" : "", name);
        for (int i = 0; i < runs->count; i++) {
            em_page_put(page, "<td>");
            em_page_text(page, text[i] ? text[i] : "–");
            em_page_put(page, "</td>");
        }
        em_page_put(page, "</tr>\n");
    }
    for (int i = 0; i < runs->count; i++) free(text[i]);
}

void em_summary_put(em_page *page, const em_runs *runs)
{
    em_page_put(page, "<section id=\"summary\" class=\"wide\"><h2>Summary</h2>\n<table class=\"summary\"><tbody>\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) put_row(page, runs, rows[i].name, rows[i].say);
    em_page_put(page, "</tbody></table></section>\n");
}
