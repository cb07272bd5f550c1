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
    bool complete;
    int64_t layers_done, step_tokens, tokens_done; /* what is whole, where it is not complete */
} side;

/* What one quantity's comparison found. */
typedef struct difference {
    bool integers;
    int rank;
    int64_t compared;
    int64_t first_layer; /* place in the first file of the first layer that differs; -1: none, or there are no layers */
    double largest, at_largest[EM_MAX_AXES]; /* absolute, and where (numbers of layers and tokens, then indices) */
    double relative, at_relative[EM_MAX_AXES];
    double difference_square, reference_square;
    int64_t signs; /* of zeros, that differ */
} difference;

static bool read_labels(side *s, int which, const char *name, em_status *status)
{
    em_dataset axis;
    if (!em_store_has(s->store, name)) return true;
    if (!em_store_find(s->store, name, &axis, status)) return false;
    if (axis.rank != 1) return em_fail(status, EM_BAD_DATA, "%s: %s is not an axis", em_store_path(s->store), name);
    s->labels[which] = axis.dims[0];
    s->label[which] = em_alloc(axis.dims[0], sizeof(double));
    if (!em_store_read_numbers(s->store, &axis, (int64_t[]){0}, axis.dims, s->label[which], status)) return false;
    for (int64_t i = 1; i < axis.dims[0]; i++)
        if (!(s->label[which][i - 1] < s->label[which][i]))
            return em_fail(status, EM_BAD_DATA, "%s: the numbers of %s do not ascend", em_store_path(s->store), name);
    return true;
}

static bool read_counter(const side *s, const char *name, int64_t *count, em_status *status)
{
    em_dataset data;
    double value = 0;
    *count = 0;
    if (!em_store_has(s->store, name)) return true;
    if (!em_store_find(s->store, name, &data, status)) return false;
    if (data.rank == 0 && !em_store_read_numbers(s->store, &data, NULL, NULL, &value, status)) return false;
    if (!(value >= 0 && value < 0x1p53))
        return em_fail(status, EM_BAD_DATA, "%s: %s is %g, which is no count", em_store_path(s->store), name, value);
    *count = (int64_t)value;
    return true;
}

/* Of a trace that is not complete, only what is whole is compared. */
static bool read_progress(side *s, em_status *status)
{
    int64_t complete = 1;
    if (em_store_has_attribute(s->store, "/", "complete") &&
        !em_store_get_int(s->store, "/", "complete", &complete, status))
        return false;
    s->complete = complete != 0;
    if (!read_counter(s, "/layers_done", &s->layers_done, status) ||
        !read_counter(s, "/step_tokens", &s->step_tokens, status) ||
        !read_counter(s, "/tokens_done", &s->tokens_done, status))
        return false;
    if (!s->complete)
        fprintf(stderr, "%s: not complete: of %lld tokens all is compared, of the next %lld the first %lld layers\n",
                em_store_path(s->store), (long long)s->tokens_done, (long long)s->step_tokens,
                (long long)s->layers_done);
    return true;
}

static bool open_side(side *s, const char *path, em_status *status)
{
    *s = (side){.store = em_store_open(path, status), .complete = true};
    if (!s->store) return false;
    if (em_store_has_attribute(s->store, "/", "format")) {
        char *format;
        if (!em_store_get_text(s->store, "/", "format", &format, status)) return false;
        if (strcmp(format, "expertmesh-trace") != 0)
            em_fail(status, EM_BAD_DATA, "%s: a file of format \"%s\", but compare reads traces", path, format);
        free(format);
        if (status->code || !read_progress(s, status)) return false;
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
    return s->label[which] ? s->label[which][place] : (double)place;
}

/* The place in b of what a calls by this number; -1: b does not have it. */
static int64_t place_in(const side *b, int which, int64_t size, double number)
{
    int64_t first = 0, past = size;
    while (first < past) {
        int64_t middle = first + (past - first) / 2;
        if (label_of(b, which, middle) < number)
            first = middle + 1;
        else
            past = middle;
    }
    return first < size && label_of(b, which, first) == number ? first : -1;
}

/* How many rows of a quantity are whole: in one layer (-1: it has none), or, with tokens false, layers. */
static int64_t whole_rows(const side *s, em_quantity quantity, bool tokens, int64_t layer, int64_t rows)
{
    if (s->complete) return rows;
    int64_t whole = s->tokens_done + (layer >= 0 && layer < s->layers_done ? s->step_tokens : 0);
    if (!tokens) whole = s->layers_done;
    if (quantity <= EM_POSITION) whole = s->tokens_done + s->step_tokens;
    return whole < rows ? whole : rows;
}

/* Neighbouring rows of one quantity in both files. Rows are tokens, or layers where there are no tokens. */
typedef struct row_run {
    const side *a, *b;
    const em_dataset *x, *y;
    em_quantity quantity;
    int axes;                                         /* of layers and tokens: 1 or 2 */
    int which;                                        /* what rows are: 0 layers, 1 tokens */
    int64_t from_a[EM_MAX_AXES], from_b[EM_MAX_AXES]; /* where they begin */
    int64_t rows, row_size;                           /* how many; numbers in one */
} row_run;

/* Where a number is: numbers of layer and token, then indices. */
static void place_of(const row_run *run, int64_t index, double *place)
{
    int last = run->axes - 1;
    for (int axis = run->x->rank - 1; axis >= run->axes; axis--) {
        place[axis] = (double)(index % run->x->dims[axis]);
        index /= run->x->dims[axis];
    }
    place[last] = label_of(run->a, run->which, run->from_a[last] + index);
    if (last > 0) place[0] = label_of(run->a, 0, run->from_a[0]);
}

static void note(difference *d, const row_run *run, int64_t index, double x, double y)
{
    double gap = x == y || (isnan(x) && isnan(y)) ? 0 : fabs(x - y);
    if (isnan(gap)) gap = INFINITY;
    double scale = fmax(fabs(x), fabs(y)), relative = gap == 0 ? 0 : isfinite(gap) ? gap / scale : INFINITY;
    d->compared++;
    d->signs += x == 0 && y == 0 && signbit(x) != signbit(y);
    d->difference_square += gap * gap;
    if (isfinite(y)) d->reference_square += y * y;
    if (gap > d->largest) {
        d->largest = gap;
        place_of(run, index, d->at_largest);
    }
    if (relative > d->relative) {
        d->relative = relative;
        place_of(run, index, d->at_relative);
    }
}

static bool compare_run(const row_run *run, double *buffer, difference *d, em_status *status)
{
    int64_t count[EM_MAX_AXES], size = run->rows * run->row_size;
    for (int i = 0; i < run->x->rank; i++)
        count[i] = i < run->axes - 1 ? 1 : i == run->axes - 1 ? run->rows : run->x->dims[i];
    if (!em_store_read_numbers(run->a->store, run->x, run->from_a, count, buffer, status) ||
        !em_store_read_numbers(run->b->store, run->y, run->from_b, count, buffer + size, status))
        return false;
    for (int64_t i = 0; i < size; i++) note(d, run, i, buffer[i], buffer[size + i]);
    return true;
}

/* All rows that both have of one layer (or of all), in runs of neighbours. */
static bool compare_rows(row_run *run, int64_t most, double *buffer, difference *d, em_status *status)
{
    int last = run->axes - 1;
    bool tokens = run->which == 1;
    int64_t rows_a = whole_rows(run->a, run->quantity, tokens, last > 0 ? run->from_a[0] : -1, run->x->dims[last]);
    int64_t rows_b = whole_rows(run->b, run->quantity, tokens, last > 0 ? run->from_b[0] : -1, run->y->dims[last]);
    bool good = true;
    for (int64_t row = 0; good && row < rows_a; row += run->rows) {
        int64_t place = place_in(run->b, run->which, rows_b, label_of(run->a, run->which, row));
        for (run->rows = 1;
             place >= 0 && run->rows < most && row + run->rows < rows_a && place + run->rows < rows_b &&
             label_of(run->a, run->which, row + run->rows) == label_of(run->b, run->which, place + run->rows);)
            run->rows++;
        run->from_a[last] = row;
        run->from_b[last] = place;
        good = place < 0 || compare_run(run, buffer, d, status);
    }
    return good;
}

/* The 2-norm of the difference over that of the second file. */
static double norm_of(const difference *d)
{
    if (d->difference_square == 0) return 0;
    return d->reference_square > 0 ? sqrt(d->difference_square / d->reference_square) : INFINITY;
}

static bool differs(const difference *d, double tolerance)
{
    if (d->difference_square == 0) return d->signs > 0 && tolerance == 0;
    return d->integers || norm_of(d) > tolerance;
}

/* Of what was compared, that which came after `before`. */
static difference since(const difference *d, const difference *before)
{
    difference rest = *d;
    rest.difference_square -= before->difference_square;
    rest.reference_square -= before->reference_square;
    rest.signs -= before->signs;
    return rest;
}

/* All layers and tokens that both have. */
static bool compare_common(const side *a, const side *b, em_quantity quantity, const em_dataset *x, const em_dataset *y,
                           double tolerance, difference *d, em_status *status)
{
    enum { TOGETHER = 1 << 18 }; /* numbers read at a time, about */
    const em_quantity_info *info = &em_quantities[quantity];
    row_run run = {.a = a, .b = b, .x = x, .y = y, .quantity = quantity, .row_size = 1};
    while (run.axes < info->num_axes && info->axis[run.axes] <= EM_AXIS_TOKEN)
        run.which = info->axis[run.axes++] == EM_AXIS_TOKEN;
    for (int i = run.axes; i < x->rank; i++) run.row_size *= x->dims[i];
    int64_t most = TOGETHER / run.row_size > 0 ? TOGETHER / run.row_size : 1;
    double *buffer = em_alloc(2 * most * run.row_size, sizeof *buffer);
    bool good = true;
    for (int64_t layer = 0; good && layer < (run.axes == 2 ? x->dims[0] : 1); layer++) {
        run.from_a[0] = layer;
        run.from_b[0] = run.axes == 2 ? place_in(b, 0, y->dims[0], label_of(a, 0, layer)) : 0;
        const difference before = *d;
        if (run.from_b[0] >= 0) good = compare_rows(&run, most, buffer, d, status);
        const difference here = since(d, &before);
        if (run.axes == 2 && d->first_layer < 0 && differs(&here, tolerance)) d->first_layer = layer;
    }
    free(buffer);
    return good;
}

static bool same_shape(const em_quantity_info *info, const em_dataset *x, const em_dataset *y)
{
    bool same = x->rank == y->rank && x->rank == info->num_axes && em_dataset_count(x) > 0 && em_dataset_count(y) > 0;
    for (int i = 0; same && i < x->rank; i++) same = info->axis[i] <= EM_AXIS_TOKEN || x->dims[i] == y->dims[i];
    return same;
}

static void print_place(em_table *table, bool there, const difference *d, const double *at)
{
    char text[96];
    int length = snprintf(text, sizeof text, "[");
    for (int i = 0; i < d->rank; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "%s%.0f", i > 0 ? ", " : "", at[i]);
    em_table_cell(table, "%s%s", there ? text : "", there ? "]" : "");
}

static bool print_difference(em_table *table, const char *name, const difference *d, double tolerance)
{
    bool same = !differs(d, tolerance);
    em_table_cell(table, "%s", name);
    em_table_cell(table, "%lld", (long long)d->compared);
    em_table_cell(table, "%.3g", d->largest);
    print_place(table, d->largest > 0, d, d->at_largest);
    em_table_cell(table, "%.3g", d->relative);
    print_place(table, d->relative > 0, d, d->at_relative);
    em_table_cell(table, "%.3g", norm_of(d));
    em_table_cell(table, "%s",
                  d->compared == 0 ? "nothing in common"
                  : same           ? "same"
                  : d->largest > 0 ? "DIFFERS"
                                   : "DIFFERS: signs of zeros");
    return same;
}

static void print_remark(em_table *table, const char *name, const char *remark)
{
    em_table_cell(table, "%s", name);
    for (int i = 0; i < 6; i++) em_table_cell(table, "%s", "");
    em_table_cell(table, "%s", remark);
}

/* What all lines say together. */
typedef struct findings {
    em_table *table;
    double tolerance;
    int64_t numbers;     /* compared, of the quantities that a run may record */
    int same, different; /* quantities */
    int64_t part_layer;  /* where the runs part: the first layer that differs, and its first quantity; -1: nowhere */
    em_quantity part;
    bool other_tokens; /* of prompts, or chosen */
} findings;

/* Its place in the flow of a layer: what others are made of comes before them. */
static int place_in_layer(em_quantity quantity)
{
    if (quantity == EM_RESID_MID) return 2 * EM_ATTN_OUT + 1;
    if (quantity == EM_RESID_POST) return 2 * EM_FFN_OUT + 1;
    return 2 * (int)quantity;
}

static void note_part(findings *f, int64_t layer, em_quantity quantity)
{
    bool earlier = f->part_layer < 0 || layer < f->part_layer;
    if (!earlier && (layer > f->part_layer || place_in_layer(quantity) >= place_in_layer(f->part))) return;
    f->part_layer = layer;
    f->part = quantity;
}

static bool find_data(const side *s, em_quantity quantity, const char *name, em_dataset *data, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    if (!em_store_find(s->store, name, data, status)) return false;
    for (int i = 0; i < info->num_axes && i < data->rank && info->axis[i] <= EM_AXIS_TOKEN; i++) {
        int which = info->axis[i] == EM_AXIS_TOKEN;
        if (s->label[which] && s->labels[which] != data->dims[i])
            return em_fail(status, EM_BAD_DATA, "%s: %s has %lld %ss, but there are numbers of %lld",
                           em_store_path(s->store), name, (long long)data->dims[i], em_axes[info->axis[i]].name,
                           (long long)s->labels[which]);
    }
    return !data->composed || /* where a part is missing it reads as 0, with no error */
           em_fail(status, EM_BAD_DATA, "%s: %s is a virtual dataset, but must be contiguous or chunked",
                   em_store_path(s->store), name);
}

/* One line. */
static bool compare_quantity(const side *a, const side *b, em_quantity quantity, findings *f, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    char name[64];
    em_dataset x, y;
    snprintf(name, sizeof name, "/%s", info->name);
    bool in_a = em_store_has(a->store, name), in_b = em_store_has(b->store, name);
    if (!in_a && !in_b) return true;
    if (in_a != in_b) {
        print_remark(f->table, info->name, in_a ? "only in the first" : "only in the second");
        return true;
    }
    if (em_quantity_of_machine(quantity)) {
        print_remark(f->table, info->name, "not compared: depends on the ranks");
        return true;
    }
    if (!find_data(a, quantity, name, &x, status) || !find_data(b, quantity, name, &y, status)) return false;
    difference d = {
        .integers = info->type == EM_TYPE_INT32 || info->type == EM_TYPE_INT64, .rank = x.rank, .first_layer = -1};
    if (!same_shape(info, &x, &y)) {
        em_dims_text have, other;
        char remark[256];
        snprintf(remark, sizeof remark, "DIFFERS: shapes %s and %s", em_dims(&x, have), em_dims(&y, other));
        print_remark(f->table, info->name, remark);
        f->different++;
        f->numbers++;
        return true;
    }
    if (!compare_common(a, b, quantity, &x, &y, f->tolerance, &d, status)) return false;
    if (d.first_layer >= 0 && em_quantity_optional(quantity)) note_part(f, d.first_layer, quantity);
    bool same = print_difference(f->table, info->name, &d, f->tolerance);
    f->same += same && d.compared > 0;
    f->different += !same;
    f->other_tokens |= !same && quantity == EM_TOKEN_IDS;
    if (em_quantity_optional(quantity)) f->numbers += d.compared;
    return true;
}

static void print_verdict(const findings *f, const side *a)
{
    em_count_text count;
    em_table_print(f->table, stdout);
    if (f->different > 0)
        printf("\ndifferent: %d of %d quantities\n", f->different, f->same + f->different);
    else
        printf("\nthe same: %d quantities, %s numbers%s\n", f->same, em_count(f->numbers, count),
               f->tolerance > 0 ? " within the tolerance" : "");
    if (f->part_layer >= 0)
        printf("they part in layer %.0f, at %s%s\n", label_of(a, 0, f->part_layer), em_quantities[f->part].name,
               f->other_tokens ? "; their tokens differ, too (token_ids)" : "");
}

static void compare_sides(const em_call *call, const side *a, const side *b, double tolerance, em_status *status)
{
    static const char *const head[] = {"quantity",    "numbers", "largest abs", "at",
                                       "largest rel", "at",      "rel 2-norm",  "verdict"};
    findings f = {.table = em_table_new(8, "lrrlrlrl"), .tolerance = tolerance, .part_layer = -1};
    bool good = true;
    for (int i = 0; i < 8; i++) em_table_cell(f.table, "%s", head[i]);
    for (em_quantity q = 0; good && q < EM_NUM_QUANTITIES; q++) good = compare_quantity(a, b, q, &f, status);
    if (good && f.numbers == 0)
        good = em_fail(status, EM_BAD_DATA, "%s and %s have no recorded number in common: no quantity, layer and token",
                       call->argument[0], call->argument[1]);
    if (good) print_verdict(&f, a);
    if (good && f.different > 0) em_fail(status, EM_DIFFERENT, "%s", "");
    em_table_free(f.table);
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
    .meaning = "Compare two traces, quantity by quantity.",
    .more =
        "One line a quantity: the largest absolute and relative difference and where they are (layer, token, ...),\n"
        "and the 2-norm of the difference over that of the second file. Layers and tokens that only one of them\n"
        "recorded are passed over. The last line says where the runs part: in the first layer that differs, at the "
        "first\n"
        "quantity that does. Times and rows by rank are not compared. Exit code 1 when any quantity differs:\n"
        "by a single bit, or, with --tolerance X, by a relative 2-norm above X (integers: at all).",
    .options = options,
    .num_arguments = 2,
    .run = compare,
};
