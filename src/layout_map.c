/* Layouts as maps in JSON; declared in layout.h, described in the README. */
#include "expertmesh/layout.h"

#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

typedef struct reading {
    const char *source;
    em_layout *layout;
    em_status *status;
    int64_t *first_owner; /* of FFN units; NULL: of each unit one owner */
    int *owner;
    int64_t owners, room; /* owners so far */
} reading;

typedef char place_text[96]; /* where in the map: "experts[3][1]" */

static bool read_rank(const reading *r, const cJSON *item, const char *place, int *rank)
{
    int last = r->layout->num_ranks - 1;
    if (cJSON_IsNull(item))
        return em_fail(r->status, EM_BAD_DATA, "%s: %s is null, so what it stands for would have no owner", r->source,
                       place);
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble))
        return em_fail(r->status, EM_BAD_DATA, "%s: %s must be the number of a rank", r->source, place);
    if (item->valuedouble < 0 || item->valuedouble > last)
        return em_fail(r->status, EM_BAD_DATA, "%s: %s names rank %.0f, but there are only ranks 0 to %d", r->source,
                       place, item->valuedouble, last);
    *rank = (int)item->valuedouble;
    return true;
}

/* A list whose entries each stand for as many of `units` neighbours. */
static bool check_list(const reading *r, const cJSON *list, const char *place, int64_t units, const char *of)
{
    if (!cJSON_IsArray(list))
        return em_fail(r->status, EM_BAD_DATA, "%s: %s must be a list of ranks", r->source, place);
    int count = cJSON_GetArraySize(list);
    if (count > 0 && units % count == 0) return true;
    return em_fail(r->status, EM_BAD_DATA,
                   "%s: %s has %d entries, but must have %lld, one for each %s, or a divisor of it", r->source, place,
                   count, (long long)units, of);
}

/* One owner for each unit: of heads, of blocks of the vocabulary. */
static bool read_owners(reading *r, const cJSON *list, int64_t units, const char *of, em_ownership *ownership)
{
    if (!check_list(r, list, list->string, units, of)) return false;
    int64_t each = units / cJSON_GetArraySize(list), u = 0;
    int *owner = em_alloc(units, sizeof *owner);
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        place_text place;
        snprintf(place, sizeof place, "%s[%lld]", list->string, (long long)(u / each));
        if (!read_rank(r, item, place, &owner[u])) {
            free(owner);
            return false;
        }
        for (int64_t i = 1; i < each; i++) owner[u + i] = owner[u];
        u += each;
    }
    *ownership = em_ownership_make(units, r->layout->num_ranks, NULL, owner);
    return true;
}

static void add_owner(reading *r, int rank)
{
    if (r->owners == r->room) {
        r->owner = em_grow(r->owner, r->owners, 2 * r->room + 64, sizeof *r->owner);
        r->room = 2 * r->room + 64;
    }
    r->owner[r->owners++] = rank;
}

/* A slice's owner, or the list of them. */
static bool read_replicas(reading *r, const cJSON *item, const char *place)
{
    int rank;
    int64_t begin = r->owners;
    if (!cJSON_IsArray(item)) {
        if (!read_rank(r, item, place, &rank)) return false;
        add_owner(r, rank);
        return true;
    }
    if (!item->child)
        return em_fail(r->status, EM_BAD_DATA, "%s: %s is an empty list, so what it stands for would have no owner",
                       r->source, place);
    for (const cJSON *one = item->child; one; one = one->next) {
        char where[sizeof(place_text) + 32];
        snprintf(where, sizeof where, "%s[%lld]", place, (long long)(r->owners - begin));
        if (!read_rank(r, one, where, &rank)) return false;
        for (int64_t i = begin; i < r->owners; i++)
            if (r->owner[i] == rank)
                return em_fail(r->status, EM_BAD_DATA, "%s: %s names rank %d twice", r->source, place, rank);
        add_owner(r, rank);
    }
    return true;
}

/* One entry of "experts": a rank for all of it, or a list with an entry for each slice or run of slices. */
static bool read_expert(reading *r, const cJSON *item, int64_t expert)
{
    int64_t slices = r->layout->slices_per_expert, unit = expert * slices;
    place_text place;
    snprintf(place, sizeof place, "experts[%lld]", (long long)expert);
    bool whole = !cJSON_IsArray(item);
    if (!whole && !check_list(r, item, place, slices, "slice of an expert")) return false;
    const cJSON *part = whole ? item : item->child;
    int64_t parts = whole ? 1 : cJSON_GetArraySize(item);
    for (int64_t p = 0; p < parts; p++, part = part->next) {
        if (!whole) snprintf(place, sizeof place, "experts[%lld][%lld]", (long long)expert, (long long)p);
        for (int64_t i = 0; i < slices / parts; i++) {
            if (!read_replicas(r, part, place)) return false;
            r->first_owner[++unit] = r->owners;
        }
    }
    return true;
}

static bool read_experts(reading *r, const cJSON *list)
{
    int64_t E = r->layout->num_experts, units = E * r->layout->slices_per_expert, expert = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != E)
        return em_fail(r->status, EM_BAD_DATA, "%s: experts must be a list of %lld entries, one for each expert%s",
                       r->source, (long long)E, cJSON_IsArray(list) ? "" : ", but is none");
    bool good = true;
    r->first_owner = em_zeroed(units + 1, sizeof *r->first_owner);
    const cJSON *item;
    cJSON_ArrayForEach(item, list) good = good && read_expert(r, item, expert++);
    if (!good) {
        free(r->first_owner);
        free(r->owner);
        return false;
    }
    r->layout->ffn = em_ownership_make(units, r->layout->num_ranks, r->first_owner, r->owner);
    return true;
}

static bool read_part(reading *r, const em_layout_plan *plan, const cJSON *item)
{
    em_layout *layout = r->layout;
    const char *name = item->string;
    bool attention = strcmp(name, "attention") == 0, experts = strcmp(name, "experts") == 0;
    if (strcmp(name, "ranks") == 0) {
        if (cJSON_IsNumber(item) && item->valuedouble == (double)plan->num_ranks) return true;
        char *found = cJSON_PrintUnformatted(item);
        em_fail(r->status, EM_BAD_DATA, "%s: a map for %.40s ranks, but there are %d", r->source, found ? found : "?",
                plan->num_ranks);
        cJSON_free(found);
        return false;
    }
    if ((attention && plan->attention) || (experts && plan->experts))
        return em_fail(r->status, EM_USAGE, "--%s-ranks and \"%s\" in %s both say who owns what; leave one out",
                       attention ? "attention" : "expert", name, r->source);
    bool again = (attention && layout->heads.owner) || (experts && layout->ffn.owner) ||
                 (strcmp(name, "vocabulary") == 0 && layout->vocabulary.owner);
    if (again) return em_fail(r->status, EM_BAD_DATA, "%s: \"%s\" is there twice", r->source, name);
    if (attention) return read_owners(r, item, layout->num_q_heads, "query head", &layout->heads);
    if (experts) return read_experts(r, item);
    if (strcmp(name, "vocabulary") == 0)
        return read_owners(r, item, layout->vocab_blocks, "block of the vocabulary", &layout->vocabulary);
    return em_fail(r->status, EM_BAD_DATA,
                   "%s: \"%.60s\" is no part of a map; they are ranks, attention, experts and vocabulary", r->source,
                   name);
}

bool em_layout_read(const em_config *config, const em_layout_plan *plan, const char *json, const char *source,
                    em_layout *layout, em_status *status)
{
    *layout = em_layout_cut(config, plan->num_ranks);
    reading r = {.source = source, .layout = layout, .status = status};
    cJSON *map = em_json_parse(json, source, status);
    bool good = map != NULL;
    if (good && !cJSON_IsObject(map))
        good = em_fail(status, EM_BAD_DATA, "%s: not a JSON object with attention, experts and vocabulary", source);
    for (const cJSON *item = good ? map->child : NULL; good && item; item = item->next)
        good = read_part(&r, plan, item);
    cJSON_Delete(map);
    if (good)
        em_layout_complete(layout, plan);
    else
        em_layout_free(layout);
    return good;
}

/* ---- writing ---- */

static cJSON *owners_of(const em_ownership *ownership, int64_t unit)
{
    int64_t count = em_ownership_owners(ownership, unit);
    if (count == 1) return cJSON_CreateNumber(em_ownership_owner(ownership, unit, 0));
    return cJSON_CreateIntArray(ownership->owner + ownership->first_owner[unit], (int)count);
}

static bool same_owners(const em_ownership *o, int64_t a, int64_t b)
{
    int64_t count = em_ownership_owners(o, a);
    return count == em_ownership_owners(o, b) &&
           memcmp(o->owner + o->first_owner[a], o->owner + o->first_owner[b], (size_t)count * sizeof(int)) == 0;
}

/* How many of `count` units from the first on are owned alike at least, all through: the largest such divisor. */
static int64_t owned_alike(const em_ownership *o, int64_t first, int64_t count)
{
    for (int64_t each = count; each > 1; each--) {
        bool alike = count % each == 0;
        for (int64_t u = 0; alike && u < count; u++) alike = same_owners(o, first + u / each * each, first + u);
        if (alike) return each;
    }
    return 1;
}

/* Some units as a list, in which neighbours owned alike are one entry. */
static cJSON *list_owners(const em_ownership *o, int64_t first, int64_t count)
{
    cJSON *list = cJSON_CreateArray();
    int64_t each = owned_alike(o, first, count);
    for (int64_t u = 0; u < count; u += each) cJSON_AddItemToArray(list, owners_of(o, first + u));
    return list;
}

static cJSON *list_experts(const em_layout *layout)
{
    int64_t slices = layout->slices_per_expert;
    cJSON *list = cJSON_CreateArray();
    for (int64_t e = 0; e < layout->num_experts; e++) {
        int64_t first = e * slices;
        bool plain =
            em_ownership_owners(&layout->ffn, first) == 1 && owned_alike(&layout->ffn, first, slices) == slices;
        cJSON_AddItemToArray(list, plain ? owners_of(&layout->ffn, first) : list_owners(&layout->ffn, first, slices));
    }
    return list;
}

char *em_layout_json(const em_layout *layout)
{
    cJSON *map = cJSON_CreateObject();
    cJSON_AddNumberToObject(map, "ranks", layout->num_ranks);
    cJSON_AddItemToObject(map, "attention", list_owners(&layout->heads, 0, layout->num_q_heads));
    cJSON_AddItemToObject(map, "experts", list_experts(layout));
    cJSON_AddItemToObject(map, "vocabulary", list_owners(&layout->vocabulary, 0, layout->vocab_blocks));
    char *printed = cJSON_PrintUnformatted(map), *text = em_text("%s", printed ? printed : "{}");
    cJSON_free(printed);
    cJSON_Delete(map);
    return text;
}
