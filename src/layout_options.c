#include "layout_options.h"

#include "json.h"

#include "expertmesh/shared.h"

#include <stdlib.h>
#include <string.h>

/* ---- hosts ---- */

bool em_places_find(MPI_Comm comm, em_places *places, em_status *status)
{
    em_shared *s = em_shared_open(comm, status); /* knows what a host is */
    *places = (em_places){0};
    if (!s) return false;
    places->num_ranks = s->num_ranks;
    places->host = em_alloc(s->num_ranks, sizeof(int));
    memcpy(places->host, s->host_of, (size_t)s->num_ranks * sizeof(int));
    em_shared_close(s);
    return true;
}

em_places em_places_make(int num_ranks, int ranks_per_host)
{
    em_places places = {num_ranks, em_alloc(num_ranks, sizeof(int))};
    for (int r = 0; r < num_ranks; r++) places.host[r] = r / ranks_per_host * ranks_per_host;
    return places;
}

void em_places_free(em_places *places)
{
    free(places->host);
    *places = (em_places){0};
}

/* ---- layouts ---- */

/* Which ranks a list names. NULL where the option is not given, or with a status. */
static bool *read_ranks(const em_call *call, const char *name, int num_ranks, em_status *status)
{
    const char *text = em_option_value(call, name);
    if (!text) return NULL;
    char source[40];
    snprintf(source, sizeof source, "--%s", name);
    int64_t count, *list = em_parse_list(text, num_ranks, source, &count, status);
    if (!list) return NULL;
    bool *may = em_zeroed(num_ranks, sizeof *may);
    for (int64_t i = 0; i < count; i++) may[list[i]] = true;
    free(list);
    return may;
}

/* A file's text, read by rank 0 for all. NULL with a status. Collective. */
static char *share_text(const em_call *call, const char *path, em_status *status)
{
    char *text = call->rank == 0 ? em_json_load(path, status) : NULL;
    if (!em_agree(call->comm, status)) return NULL;
    int64_t bytes = text ? (int64_t)strlen(text) + 1 : 0;
    MPI_Bcast(&bytes, 1, MPI_INT64_T, 0, call->comm);
    if (!text) text = em_alloc(bytes, 1);
    MPI_Bcast(text, (int)bytes, MPI_CHAR, 0, call->comm);
    return text;
}

static bool find_kind(const char *name, em_layout_kind *kind)
{
    for (em_layout_kind k = 0; k < EM_NUM_LAYOUTS; k++)
        if (strcmp(name, em_layout_names[k]) == 0) {
            *kind = k;
            return true;
        }
    return false;
}

/* A path has a point or a slash in it; else a name is mistyped. */
static bool is_path(const char *name)
{
    return strpbrk(name, "./") != NULL;
}

bool em_options_layout_kind(const char *name, em_layout_kind *kind, em_status *status)
{
    *kind = EM_LAYOUT_DEFAULT;
    if (!name || find_kind(name, kind)) return true;
    const char *nearest = em_nearest(name, em_layout_names, EM_NUM_LAYOUTS);
    return em_fail(status, EM_USAGE, "--layout: there is no layout \"%s\"; %s%s", name,
                   nearest ? "the nearest is " : "they are contiguous, sliced, spread, or a map in a file",
                   nearest ? nearest : "");
}

static bool make_layout(const em_call *call, const em_source *source, em_layout_plan *plan, em_layout *layout,
                        em_status *status)
{
    const char *name = em_option_value(call, "layout");
    plan->kind = EM_LAYOUT_DEFAULT;
    if (!name || find_kind(name, &plan->kind) || !is_path(name)) {
        if (!em_options_layout_kind(name, &plan->kind, status)) return false;
        *layout = em_layout_plan_make(&source->config, plan);
        return true;
    }
    char *text = share_text(call, name, status);
    bool good = text && em_layout_read(&source->config, plan, text, name, layout, status);
    free(text);
    return good;
}

bool em_options_layout(const em_call *call, const em_source *source, const em_places *places, em_layout *layout,
                       em_status *status)
{
    bool *attention = read_ranks(call, "attention-ranks", places->num_ranks, status);
    bool *experts = status->code ? NULL : read_ranks(call, "expert-ranks", places->num_ranks, status);
    em_layout_plan plan = {.num_ranks = places->num_ranks,
                           .host = places->host,
                           .attention = attention,
                           .experts = experts,
                           .bytes = em_weights_unit_bytes(source)};
    bool good = !status->code && make_layout(call, source, &plan, layout, status);
    free(attention);
    free(experts);
    return good;
}

em_layout em_layout_named(em_layout_kind kind, const em_source *source, const em_places *places)
{
    em_layout_plan plan = {kind, places->num_ranks, places->host, NULL, NULL, em_weights_unit_bytes(source)};
    return em_layout_plan_make(&source->config, &plan);
}
