/* compare: where two traces differ, quantity by quantity. */
#include "commands.h"

#include "../table.h"
#include "expertmesh/quantities.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const em_option options[] = {
    {"tolerance", "X", "same up to this relative 2-norm (0: the same bits)", 0},
    {NULL, NULL, NULL, 0},
};

/* One of the two files. */
typedef struct side {
    em_store *store;
    double *label[2]; /* numbers of the kept layers and tokens; NULL: 0, 1, 2, ... */
    int64_t labels[2];
} side;

/* What one quantity's comparison found. */
typedef struct difference {
    bool integers;
    int rank;
    int64_t compared;
    double largest, at_largest[EM_MAX_AXES]; /* absolute, and where (numbers of layers and tokens, then indices) */
    double relative, at_relative[EM_MAX_AXES];
    double difference_square, reference_square;
} difference;

static bool read_labels(side *s, int which, const char *name, em_status *status)
{
    em_dataset axis;
    if (!em_store_has(s->store, name)) return true;
    if (!em_store_find(s->store, name, &axis, status)) return false;
    if (axis.rank != 1) return em_fail(status, EM_BAD_DATA, "%s: %s is not an axis", em_store_path(s->store), name);
    s->labels[which] = axis.dims[0];
    s->label[which] = em_alloc(axis.dims[0], sizeof(double));
    return em_store_read_numbers(s->store, &axis, (int64_t[]){0}, axis.dims, s->label[which], status);
}

static bool open_side(side *s, const char *path, em_status *status)
{
    *s = (side){.store = em_store_open(path, status)};
    if (!s->store) return false;
    if (em_store_has_attribute(s->store, "/", "format")) {
        char *format;
        int64_t complete = 1;
        if (!em_store_get_text(s->store, "/", "format", &format, status)) return false;
        if (strcmp(format, "expertmesh-trace") != 0)
            em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", but compare reads traces", path, format);
        free(format);
        if (status->code) return false;
        if (em_store_has_attribute(s->store, "/", "complete"))
            em_store_get_int(s->store, "/", "complete", &complete, status);
        if (!complete)
            fprintf(stderr, "%s: the trace is not complete; places that were not reached may differ\n", path);
    }
    return read_labels(s, 0, "/layer", status) && read_labels(s, 1, "/token", status);
}

static void close_side(side *s)
{
    em_status ignored = {0};
    em_store_close(s->store, &ignored);
    free(s->label[0]);
    free(s->label[1]);
}

static double label_of(const side *s, int which, int64_t place)
{
    return s->label[which] && place < s->labels[which] ? s->label[which][place] : (double)place;
}

/* The place in b of what a calls by this number; -1: b does not have it. */
static int64_t place_in(const side *b, int which, int64_t size, double number)
{
    for (int64_t i = 0; i < size; i++)
        if (label_of(b, which, i) == number) return i;
    return -1;
}

static void note(difference *d, const em_dataset *shape, int first_axis, const double *lead, int64_t index, double x,
                 double y)
{
    double gap = x == y || (isnan(x) && isnan(y)) ? 0 : fabs(x - y);
    if (isnan(gap)) gap = INFINITY;
    double scale = fmax(fabs(x), fabs(y)), relative = gap == 0 ? 0 : isfinite(gap) ? gap / scale : INFINITY;
    d->compared++;
    d->difference_square += gap * gap;
    if (isfinite(y)) d->reference_square += y * y;
    double place[EM_MAX_AXES];
    if (gap <= d->largest && relative <= d->relative) return;
    memcpy(place, lead, sizeof place);
    for (int axis = shape->rank - 1; axis >= first_axis; axis--) {
        place[axis] = (double)(index % shape->dims[axis]);
        index /= shape->dims[axis];
    }
    if (gap > d->largest) {
        d->largest = gap;
        memcpy(d->at_largest, place, sizeof place);
    }
    if (relative > d->relative) {
        d->relative = relative;
        memcpy(d->at_relative, place, sizeof place);
    }
}

/* One layer and token (or one token) of both: all that the quantity holds there. */
static bool compare_row(const side *a, const side *b, const em_dataset *x, const em_dataset *y, const int64_t *from_a,
                        const int64_t *from_b, const double *lead, int axes, double *buffer, difference *d,
                        em_status *status)
{
    int64_t count[EM_MAX_AXES], size = 1;
    for (int i = 0; i < x->rank; i++) {
        count[i] = i < axes ? 1 : x->dims[i];
        size *= count[i];
    }
    if (!em_store_read_numbers(a->store, x, from_a, count, buffer, status) ||
        !em_store_read_numbers(b->store, y, from_b, count, buffer + size, status))
        return false;
    for (int64_t i = 0; i < size; i++) note(d, x, axes, lead, i, buffer[i], buffer[size + i]);
    return true;
}

/* All layers and tokens that both have. */
static bool compare_common(const side *a, const side *b, em_quantity quantity, const em_dataset *x, const em_dataset *y,
                           difference *d, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    int axes = 0, which[2] = {0, 0};
    while (axes < 2 && axes < info->num_axes && info->axis[axes] <= EM_AXIS_TOKEN) {
        which[axes] = info->axis[axes] == EM_AXIS_TOKEN;
        axes++;
    }
    int64_t size = 1, outer = axes > 0 ? x->dims[0] : 1, inner = axes > 1 ? x->dims[1] : 1;
    for (int i = axes; i < x->rank; i++) size *= x->dims[i];
    double *buffer = em_alloc(2 * size, sizeof *buffer);
    bool good = true;
    for (int64_t i = 0; good && i < outer; i++) {
        double lead[EM_MAX_AXES] = {label_of(a, which[0], i), 0, 0, 0};
        int64_t other = axes > 0 ? place_in(b, which[0], y->dims[0], lead[0]) : 0;
        for (int64_t j = 0; good && other >= 0 && j < inner; j++) {
            lead[1] = label_of(a, which[1], j);
            int64_t other_inner = axes > 1 ? place_in(b, which[1], y->dims[1], lead[1]) : 0;
            if (other_inner < 0) continue;
            int64_t from_a[EM_MAX_AXES] = {i, j, 0, 0}, from_b[EM_MAX_AXES] = {other, other_inner, 0, 0};
            good = compare_row(a, b, x, y, from_a, from_b, lead, axes, buffer, d, status);
        }
    }
    free(buffer);
    return good;
}

static bool same_shape(const em_quantity_info *info, const em_dataset *x, const em_dataset *y)
{
    bool same = x->rank == y->rank && x->rank == info->num_axes;
    for (int i = 0; same && i < x->rank; i++) same = info->axis[i] <= EM_AXIS_TOKEN || x->dims[i] == y->dims[i];
    return same;
}

static void print_place(em_table *table, bool there, const difference *d, const double *at)
{
    char text[96];
    int length = snprintf(text, sizeof text, "[");
    for (int i = 0; i < d->rank; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "%s%.0f", i > 0 ? ", " : "", at[i]);
    em_table_cell(table, there ? "%s]" : "", text);
}

static bool print_difference(em_table *table, const char *name, const difference *d, double tolerance)
{
    double norm = d->difference_square == 0 ? 0
                  : d->reference_square > 0 ? sqrt(d->difference_square / d->reference_square)
                                            : INFINITY;
    bool same = d->largest == 0 || (!d->integers && norm <= tolerance);
    em_table_cell(table, "%s", name);
    em_table_cell(table, "%lld", (long long)d->compared);
    em_table_cell(table, "%.3g", d->largest);
    print_place(table, d->largest > 0, d, d->at_largest);
    em_table_cell(table, "%.3g", d->relative);
    print_place(table, d->relative > 0, d, d->at_relative);
    em_table_cell(table, "%.3g", norm);
    em_table_cell(table, "%s", d->compared == 0 ? "nothing in common" : same ? "same" : "DIFFERS");
    return same;
}

static void print_remark(em_table *table, const char *name, const char *remark)
{
    em_table_cell(table, "%s", name);
    for (int i = 0; i < 6; i++) em_table_cell(table, "%s", "");
    em_table_cell(table, "%s", remark);
}

/* One line. all_same is cleared where they differ; compared counts numbers. */
static bool compare_quantity(const side *a, const side *b, em_quantity quantity, double tolerance, em_table *table,
                             bool *all_same, int64_t *compared, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    char name[64];
    em_dataset x, y;
    snprintf(name, sizeof name, "/%s", info->name);
    bool in_a = em_store_has(a->store, name), in_b = em_store_has(b->store, name);
    if (!in_a && !in_b) return true;
    if (in_a != in_b) {
        print_remark(table, info->name, in_a ? "only in the first" : "only in the second");
        return true;
    }
    if (em_quantity_of_machine(quantity)) {
        print_remark(table, info->name, "not compared: depends on the ranks");
        return true;
    }
    if (!em_store_find(a->store, name, &x, status) || !em_store_find(b->store, name, &y, status)) return false;
    difference d = {.integers = info->type == EM_TYPE_INT32 || info->type == EM_TYPE_INT64, .rank = x.rank};
    if (!same_shape(info, &x, &y)) {
        em_dims_text have, other;
        char remark[256];
        snprintf(remark, sizeof remark, "DIFFERS: shapes %s and %s", em_dims(&x, have), em_dims(&y, other));
        print_remark(table, info->name, remark);
        *all_same = false;
        *compared += 1;
        return true;
    }
    if (!compare_common(a, b, quantity, &x, &y, &d, status)) return false;
    *all_same &= print_difference(table, info->name, &d, tolerance);
    *compared += d.compared;
    return true;
}

static void compare_sides(const em_call *call, const side *a, const side *b, double tolerance, em_status *status)
{
    static const char *const head[] = {"quantity",    "numbers", "largest abs", "at",
                                       "largest rel", "at",      "rel 2-norm",  ""};
    em_table *table = em_table_new(8, "lrrlrlrl");
    bool all_same = true, good = true;
    int64_t compared = 0;
    for (int i = 0; i < 8; i++) em_table_cell(table, "%s", head[i]);
    for (em_quantity q = 0; good && q < EM_NUM_QUANTITIES; q++)
        good = compare_quantity(a, b, q, tolerance, table, &all_same, &compared, status);
    if (good && compared == 0)
        good =
            em_fail(status, EM_BAD_DATA, "%s and %s have no quantity in common", call->argument[0], call->argument[1]);
    if (good) {
        em_table_print(table, stdout);
        if (!all_same) em_fail(status, EM_DIFFERENT, "%s", "");
    }
    em_table_free(table);
}

static bool read_tolerance(const em_call *call, double *tolerance, em_status *status)
{
    const char *text = em_option_value(call, "tolerance");
    char *end;
    *tolerance = 0;
    if (!text) return true;
    *tolerance = strtod(text, &end);
    if (end != text && *end == '\0' && *tolerance >= 0 && isfinite(*tolerance)) return true;
    return em_fail(status, EM_USAGE, "--tolerance: \"%s\" is not a number of 0 or more", text);
}

static void compare(const em_call *call, em_status *status)
{
    double tolerance;
    if (!read_tolerance(call, &tolerance, status)) return;
    if (call->rank == 0) {
        side a = {0}, b = {0};
        if (open_side(&a, call->argument[0], status) && open_side(&b, call->argument[1], status))
            compare_sides(call, &a, &b, tolerance, status);
        close_side(&a);
        close_side(&b);
    }
    em_agree(call->comm, status);
}

const em_command em_command_compare = {
    .name = "compare",
    .usage = "A.h5 B.h5 [--tolerance X]",
    .meaning = "Compare two traces, or a trace and an expected file, quantity by quantity.",
    .more =
        "One line a quantity: the largest absolute and relative difference and where they are (layer, token, ...),\n"
        "and the 2-norm of the difference over that of the second file. Layers and tokens that only one of them\n"
        "recorded are passed over. Times and rows by rank are not compared. Exit code 1 when any quantity differs:\n"
        "by a single bit, or, with --tolerance X, by a relative 2-norm above X (integers: at all).",
    .options = options,
    .num_arguments = 2,
    .run = compare,
};
