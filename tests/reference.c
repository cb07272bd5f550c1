/* tests/reference.c: the model once more, as plainly as it can be written, to check a trace against.
 *
 *   reference WEIGHTS.h5 TRACE.h5 [--tolerance X] [--tokens 1,2,3;4,5] [--check-tokens 0,5,63]
 *
 * One process, double precision, one loop per formula, and no line in common with src/. It takes the shape and the
 * weights from WEIGHTS.h5 and the tokens from TRACE.h5, computes every quantity that TRACE.h5 holds, and prints a line
 * for each: the relative 2-norm of the difference, the largest difference and where it is, `same` or `differs`.
 * Exit code: 0 all the same, 1 something differs, 2 the comparison could not be made.
 *
 *   --tolerance X        largest relative 2-norm that counts as the same (2e-5); integers must be equal
 *   --tokens LIST        the whole input, prompts separated by `;`: needed where the trace keeps some tokens only
 *   --router-softcap X, --renormalise-floor X, --scale-attention, --gelu-erf: the differences of other programs
 *   --check-tokens LIST  compare these tokens only, numbered from 0 through all prompts. The last layer and the logits
 *                        are computed for them alone, which makes one layer of true width a matter of seconds.
 *
 * The model is the section "The formulas", best read from model_run upwards; all before it reads files and compares.
 * A weight matrix is never held whole: a few of its rows are read, converted and applied to every token that needs
 * them, and of the experts only the chosen ones are read. The cost is that nothing is kept for another run.
 *
 * Shapes are given in these letters: T tokens, L layers, D emb_size, H query heads, K key/value heads, C key_size,
 * V vocab_size, E experts, S selected experts, F ffn_size, G scale groups; n is the number of tokens in hand. The model
 * is Grok-1 as released, https://github.com/xai-org/grok-1 (model.py). */
#include <hdf5.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_SAME = 0, EXIT_DIFFERS = 1, EXIT_ERROR = 2 };
enum { BLOCK_ELEMENTS = 1 << 16 }; /* weights held at a time, unless one row is longer */
#define SKIPPED SIZE_MAX           /* no row of the trace to compare with */

/* ---- Errors and memory ---- */

_Noreturn static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("reference: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(EXIT_ERROR);
}

/* A zeroed array of count elements of so many bytes; the caller frees it. */
static void *new_array(size_t count, size_t bytes)
{
    void *array = calloc(count > 0 ? count : 1, bytes);
    if (!array) fail("no memory for %zu elements of %zu bytes", count, bytes);
    return array;
}

static double *new_doubles(size_t count)
{
    return new_array(count, sizeof(double));
}

/* ---- Reading HDF5 ---- */

/* An open file and its name, for messages. */
typedef struct source {
    hid_t file;
    const char *name;
} source;

static source source_open(const char *name)
{
    source s = {H5Fopen(name, H5F_ACC_RDONLY, H5P_DEFAULT), name};
    if (s.file < 0) fail("%s: cannot be opened as an HDF5 file", name);
    return s;
}

/* A dataset of exactly this shape, its size along an axis free where dims says 0; what it is goes back into dims. */
static hid_t dataset_open(const source *s, const char *path, int rank, hsize_t *dims)
{
    hid_t data = H5Dopen2(s->file, path, H5P_DEFAULT);
    if (data < 0) fail("%s: dataset %s is missing", s->name, path);
    hid_t space = H5Dget_space(data);
    hsize_t found[H5S_MAX_RANK] = {0};
    int found_rank = H5Sget_simple_extent_dims(space, found, NULL);
    H5Sclose(space);
    if (found_rank != rank) fail("%s: dataset %s has %d axes, wanted %d", s->name, path, found_rank, rank);
    for (int i = 0; i < rank; i++) {
        if (dims[i] != 0 && dims[i] != found[i])
            fail("%s: dataset %s is %llu long along axis %d, wanted %llu", s->name, path, (unsigned long long)found[i],
                 i, (unsigned long long)dims[i]);
        dims[i] = found[i];
    }
    return data;
}

/* The box start, count (one number per axis) of a dataset, packed, as numbers of the given type in memory. */
static void slab_read(hid_t data, int rank, const hsize_t *start, const hsize_t *count, hid_t type, void *out)
{
    hid_t file_space = H5Dget_space(data), memory_space = H5Screate_simple(rank, count, NULL);
    if (H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        H5Dread(data, type, memory_space, file_space, H5P_DEFAULT, out) < 0) {
        char path[256] = "?";
        H5Iget_name(data, path, sizeof path);
        fail("dataset %s cannot be read", path);
    }
    H5Sclose(memory_space);
    H5Sclose(file_space);
}

/* A whole small dataset of reals: norm scales [D], biases [E,F] and [E,D]. The caller frees it. */
static double *reals_read(const source *s, const char *path, int rank, hsize_t *dims)
{
    const hsize_t start[2] = {0};
    hid_t data = dataset_open(s, path, rank, dims);
    double *values = new_doubles(dims[0] * (rank > 1 ? dims[1] : 1));
    slab_read(data, rank, start, dims, H5T_NATIVE_DOUBLE, values);
    H5Dclose(data);
    return values;
}

/* A whole column of integers, or NULL where the file has none of that name. The caller frees it. */
static int64_t *column_read(const source *s, const char *path, size_t *length)
{
    const hsize_t start = 0;
    hsize_t count = 0;
    if (H5Lexists(s->file, path, H5P_DEFAULT) <= 0) return NULL;
    hid_t data = dataset_open(s, path, 1, &count);
    int64_t *values = new_array(count, sizeof(int64_t));
    slab_read(data, 1, &start, &count, H5T_NATIVE_INT64, values);
    H5Dclose(data);
    *length = count;
    return values;
}

/* ---- The shape of the model ---- */

typedef struct config {
    size_t L, D, H, K, C, V, E, S, F;
    bool glu;                                 /* the experts are gated (glu); otherwise two biased layers (mlp) */
    double router_softcap, renormalise_floor; /* 0: none; below 0: weights as they are */
    bool scale_attention, gelu_erf;
    double rms_norm_eps, rope_base, attn_output_multiplier, attn_logit_softcap;
    double embedding_multiplier_scale, output_multiplier_scale;
} config;

static void attribute_read(const source *s, const char *name, hid_t type, void *value)
{
    hid_t attribute = H5Aopen_by_name(s->file, "config", name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Aread(attribute, type, value) < 0)
        fail("%s: /config has no readable attribute %s", s->name, name);
    H5Aclose(attribute);
}

static size_t size_attribute(const source *s, const char *name)
{
    int64_t value = 0;
    attribute_read(s, name, H5T_NATIVE_INT64, &value);
    if (value < 1 || value > INT32_MAX) fail("%s: /config %s is %lld", s->name, name, (long long)value);
    return (size_t)value;
}

static double real_attribute(const source *s, const char *name)
{
    double value = 0;
    attribute_read(s, name, H5T_NATIVE_DOUBLE, &value);
    return value;
}

static bool ffn_is_glu(const source *s)
{
    char *kind = NULL;
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    attribute_read(s, "ffn_kind", type, &kind);
    H5Tclose(type);
    bool glu = kind && strcmp(kind, "glu") == 0;
    if (!glu && !(kind && strcmp(kind, "mlp") == 0))
        fail("%s: /config ffn_kind is \"%s\", wanted glu or mlp", s->name, kind ? kind : "");
    H5free_memory(kind);
    return glu;
}

static config config_read(const source *s)
{
    config c = {
        .L = size_attribute(s, "num_layers"),
        .D = size_attribute(s, "emb_size"),
        .H = size_attribute(s, "num_q_heads"),
        .K = size_attribute(s, "num_kv_heads"),
        .C = size_attribute(s, "key_size"),
        .V = size_attribute(s, "vocab_size"),
        .E = size_attribute(s, "num_experts"),
        .S = size_attribute(s, "num_selected_experts"),
        .F = size_attribute(s, "ffn_size"),
        .glu = ffn_is_glu(s),
        .renormalise_floor = -1,
        .rms_norm_eps = real_attribute(s, "rms_norm_eps"),
        .rope_base = real_attribute(s, "rope_base"),
        .attn_output_multiplier = real_attribute(s, "attn_output_multiplier"),
        .attn_logit_softcap = real_attribute(s, "attn_logit_softcap"),
        .embedding_multiplier_scale = real_attribute(s, "embedding_multiplier_scale"),
        .output_multiplier_scale = real_attribute(s, "output_multiplier_scale"),
    };
    if (c.H % c.K != 0 || c.C % 2 != 0 || c.S > c.E)
        fail("%s: %zu query heads on %zu key/value heads of width %zu, %zu of %zu experts: no such model", s->name, c.H,
             c.K, c.C, c.S, c.E);
    return c;
}

/* ---- Weight matrices, one neuron per row ---- */

typedef struct matrix {
    hid_t data, scale; /* [outputs, inputs] or [E, outputs, inputs]; int8 only: [outputs, G] or [E, outputs, G] */
    int rank;          /* 2, or 3 with an expert axis */
    size_t outputs, inputs;
    size_t groups; /* G, or 0 where the weights are no integers with scales */
    bool bfloat16;
} matrix;

/* bfloat16 in HDF5: 2 bytes, an 8-bit exponent from bit 7, a 7-bit mantissa from bit 0. */
static bool type_is_bfloat16(hid_t type)
{
    size_t sign = 0, exponent = 0, exponent_bits = 0, mantissa = 0, mantissa_bits = 0;
    H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits);
    return H5Tget_size(type) == 2 && sign == 15 && exponent == 7 && exponent_bits == 8 && mantissa == 0 &&
           mantissa_bits == 7;
}

/* Note what the numbers are stored as: float32, bfloat16 or int8 with scales beside them. */
static void matrix_storage(matrix *w, const source *s, const char *path, hsize_t *scale_dims)
{
    hid_t type = H5Dget_type(w->data);
    H5T_class_t class = H5Tget_class(type);
    bool float32 = class == H5T_FLOAT && H5Tget_size(type) == 4, int8 = H5Tequal(type, H5T_STD_I8LE) > 0;
    w->bfloat16 = class == H5T_FLOAT && type_is_bfloat16(type);
    H5Tclose(type);
    if (!float32 && !int8 && !w->bfloat16)
        fail("%s: dataset %s is stored neither as float32, nor as bfloat16, nor as int8", s->name, path);
    if (int8) {
        char scale_path[80];
        snprintf(scale_path, sizeof scale_path, "%s_scale", path);
        w->scale = dataset_open(s, scale_path, w->rank, scale_dims);
        w->groups = scale_dims[w->rank - 1];
        if (w->groups == 0 || w->inputs % w->groups != 0)
            fail("%s: dataset %s has %zu groups for %zu inputs", s->name, scale_path, w->groups, w->inputs);
    }
}

/* Experts is 0 for a matrix without an expert axis. */
static matrix matrix_open(const source *s, const char *path, size_t experts, size_t outputs, size_t inputs)
{
    int rank = experts > 0 ? 3 : 2;
    hsize_t dims[3] = {experts, outputs, inputs}, scale_dims[3] = {experts, outputs, 0};
    matrix w = {.rank = rank, .outputs = outputs, .inputs = inputs, .scale = H5I_INVALID_HID};
    w.data = dataset_open(s, path, rank, dims + 3 - rank);
    matrix_storage(&w, s, path, scale_dims + 3 - rank);
    return w;
}

static void matrix_close(matrix *w)
{
    H5Dclose(w->data);
    if (w->groups > 0) H5Dclose(w->scale);
}

/* Rows first to first+count-1 of a matrix or of its scales: [count, width] numbers of the given type. */
static void matrix_slab(const matrix *w, hid_t data, const size_t rows[3], size_t width, hid_t type, void *out)
{
    const hsize_t start[3] = {rows[0], rows[1], 0}, count[3] = {1, rows[2], width};
    slab_read(data, w->rank, start + 3 - w->rank, count + 3 - w->rank, type, out);
}

/* A bfloat16 is the upper half of a float32. */
static void bfloat16_rows(const matrix *w, const size_t which[3], double *rows)
{
    size_t num_weights = which[2] * w->inputs;
    uint16_t *raw = new_array(num_weights, sizeof *raw);
    hid_t as_stored = H5Dget_type(w->data);
    matrix_slab(w, w->data, which, w->inputs, as_stored, raw);
    H5Tclose(as_stored);
    for (size_t i = 0; i < num_weights; i++) {
        uint32_t bits = (uint32_t)raw[i] << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        rows[i] = value;
    }
    free(raw);
}

/* Rows first to first+count-1 as doubles [count, inputs]; expert counts only where there is an expert axis. Every
 * storage type is exact in double; int8: weight [o, g*(inputs/G) + r] = q * scale[o, g]. */
static void matrix_rows(const matrix *w, size_t expert, size_t first, size_t count, double *rows)
{
    const size_t which[3] = {expert, first, count};
    if (w->bfloat16) {
        bfloat16_rows(w, which, rows);
        return;
    }
    matrix_slab(w, w->data, which, w->inputs, H5T_NATIVE_DOUBLE, rows);
    if (w->groups > 0) {
        double *scale = new_doubles(count * w->groups);
        size_t width = w->inputs / w->groups;
        matrix_slab(w, w->scale, which, w->groups, H5T_NATIVE_DOUBLE, scale);
        for (size_t i = 0; i < count * w->inputs; i++) rows[i] *= scale[i / width];
        free(scale);
    }
}

/* Eight running sums, so that an addition need not wait for the one before. */
static double dot(size_t length, const double *a, const double *b)
{
    double sum[8] = {0};
    size_t i = 0;
    for (; i + 8 <= length; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] += a[i + k] * b[i + k];
    for (; i < length; i++) sum[0] += a[i] * b[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* y[i,o] = sum over j of w[o,j] x[i,j]; x [n, inputs], y [n, outputs]. Each row is read once. The caller frees y. */
static double *multiply(const matrix *w, size_t expert, size_t n, const double *x)
{
    size_t block = w->inputs < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / w->inputs : 1;
    double *rows = new_doubles(block * w->inputs), *y = new_doubles(n * w->outputs);
    for (size_t first = 0; first < w->outputs; first += block) {
        size_t count = w->outputs - first < block ? w->outputs - first : block;
        matrix_rows(w, expert, first, count, rows);
        for (size_t i = 0; i < n; i++)
            for (size_t o = 0; o < count; o++)
                y[i * w->outputs + first + o] = dot(w->inputs, rows + o * w->inputs, x + i * w->inputs);
    }
    free(rows);
    return y;
}

/* ---- The weights of one layer ---- */

typedef struct layer_weights {
    double *attn_norm_pre, *attn_norm_post, *ffn_norm_pre, *ffn_norm_post; /* [D] */
    matrix query, key, value, output;                                      /* [H*C,D] [K*C,D] [K*C,D] [D,H*C] */
    matrix router, gate, up, down;                                         /* [E,D] [E,F,D] [E,F,D] [E,D,F] */
    double *up_bias, *down_bias;                                           /* mlp only: [E,F] [E,D] */
} layer_weights;

static matrix layer_matrix(const source *s, size_t layer, const char *name, size_t experts, size_t outputs,
                           size_t inputs)
{
    char path[64];
    snprintf(path, sizeof path, "layers/%03zu/%s", layer, name);
    return matrix_open(s, path, experts, outputs, inputs);
}

/* A vector [width], or one for each expert [experts, width] where experts is not 0. */
static double *layer_vector(const source *s, size_t layer, const char *name, size_t experts, size_t width)
{
    char path[64];
    hsize_t dims[2] = {experts > 0 ? experts : width, width};
    snprintf(path, sizeof path, "layers/%03zu/%s", layer, name);
    return reals_read(s, path, experts > 0 ? 2 : 1, dims);
}

static layer_weights layer_open(const source *s, const config *c, size_t layer)
{
    layer_weights w = {
        .attn_norm_pre = layer_vector(s, layer, "attn_norm_pre", 0, c->D),
        .attn_norm_post = layer_vector(s, layer, "attn_norm_post", 0, c->D),
        .ffn_norm_pre = layer_vector(s, layer, "ffn_norm_pre", 0, c->D),
        .ffn_norm_post = layer_vector(s, layer, "ffn_norm_post", 0, c->D),
        .query = layer_matrix(s, layer, "attn_query", 0, c->H * c->C, c->D),
        .key = layer_matrix(s, layer, "attn_key", 0, c->K * c->C, c->D),
        .value = layer_matrix(s, layer, "attn_value", 0, c->K * c->C, c->D),
        .output = layer_matrix(s, layer, "attn_output", 0, c->D, c->H * c->C),
        .router = layer_matrix(s, layer, "router", 0, c->E, c->D),
        .up = layer_matrix(s, layer, "ffn_up", c->E, c->F, c->D),
        .down = layer_matrix(s, layer, "ffn_down", c->E, c->D, c->F),
    };
    if (c->glu) {
        w.gate = layer_matrix(s, layer, "ffn_gate", c->E, c->F, c->D);
    } else {
        w.up_bias = layer_vector(s, layer, "ffn_up_bias", c->E, c->F);
        w.down_bias = layer_vector(s, layer, "ffn_down_bias", c->E, c->D);
    }
    return w;
}

static void layer_close(layer_weights *w, const config *c)
{
    matrix *open[] = {&w->query, &w->key, &w->value, &w->output, &w->router, &w->up, &w->down};
    double *vectors[] = {w->attn_norm_pre, w->attn_norm_post, w->ffn_norm_pre,
                         w->ffn_norm_post, w->up_bias,        w->down_bias};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) matrix_close(open[i]);
    if (c->glu) matrix_close(&w->gate);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) free(vectors[i]);
}

/* ---- The input ---- */

/* Some of the tokens, ascending. Arrays [n, ...] have a row for each. */
typedef struct token_list {
    size_t n, *token;
} token_list;

typedef struct input {
    size_t T;
    int64_t *id, *sequence, *position; /* [T] */
    token_list all;
    token_list checked; /* those that are compared: all, or the ones of --check-tokens */
} input;

typedef struct options {
    const char *weights, *trace, *tokens, *check_tokens; /* the last two may be NULL */
    double tolerance, router_softcap, renormalise_floor; /* below 0: weights as they are */
    bool scale_attention, gelu_erf;
} options;

/* Numbers separated by `,`, and if sequence is wanted also by `;`, which starts the next one. The caller frees both. */
static size_t numbers_parse(const char *option, const char *text, int64_t **numbers, int64_t **sequence)
{
    size_t count = 0;
    int64_t current = 0;
    *numbers = new_array(strlen(text) + 1, sizeof(int64_t));
    if (sequence) *sequence = new_array(strlen(text) + 1, sizeof(int64_t));
    for (const char *at = text;; at++) {
        char *end;
        (*numbers)[count] = strtoll(at, &end, 10);
        if (sequence) (*sequence)[count] = current;
        if (end == at || (*numbers)[count] < 0 || !(*end == ',' || *end == '\0' || (*end == ';' && sequence)))
            fail("%s: no list of numbers: %s", option, text);
        count++;
        if (*end == '\0') return count;
        current += *end == ';';
        at = end;
    }
}

/* Tokens and sequences from the trace. Its tokens are the whole input if they are the first ones: none looks ahead. */
static void input_from_trace(const source *s, input *in)
{
    size_t kept = 0, num_sequence = 0;
    in->id = column_read(s, "token_ids", &in->T);
    if (!in->id) fail("%s: dataset token_ids is missing: give the whole input with --tokens", s->name);
    int64_t *token = column_read(s, "token", &kept);
    for (size_t t = 0; token && t < kept; t++)
        if (token[t] != (int64_t)t)
            fail("%s: holds only some tokens (token %lld, not %zu): give the whole input with --tokens", s->name,
                 (long long)token[t], t);
    free(token);
    in->sequence = column_read(s, "sequence", &num_sequence);
    if (!in->sequence)
        in->sequence = new_array(in->T, sizeof(int64_t)); /* all in sequence 0 */
    else if (num_sequence != in->T)
        fail("%s: %zu entries in sequence for %zu in token_ids", s->name, num_sequence, in->T);
}

/* A token's position is the number of tokens of its sequence that come before it; the trace must say the same. */
static void input_positions(const source *s, input *in, bool from_trace)
{
    size_t length = 0;
    int64_t *recorded = from_trace ? column_read(s, "position", &length) : NULL;
    if (recorded && length != in->T) fail("%s: %zu entries in position for %zu in token_ids", s->name, length, in->T);
    in->position = new_array(in->T, sizeof(int64_t));
    for (size_t t = 0; t < in->T; t++) {
        for (size_t before = 0; before < t; before++) in->position[t] += in->sequence[before] == in->sequence[t];
        if (recorded && recorded[t] != in->position[t])
            fail("%s: token %zu has position %lld where its sequence has %lld tokens before it", s->name, t,
                 (long long)recorded[t], (long long)in->position[t]);
    }
    free(recorded);
}

/* The tokens marked in a table [T], or all where there is none. */
static token_list token_list_make(size_t T, const bool *marked)
{
    token_list list = {0, new_array(T, sizeof(size_t))};
    for (size_t t = 0; t < T; t++)
        if (!marked || marked[t]) list.token[list.n++] = t;
    return list;
}

static token_list checked_tokens(size_t T, const char *text)
{
    if (!text) return token_list_make(T, NULL);
    int64_t *numbers;
    size_t count = numbers_parse("--check-tokens", text, &numbers, NULL);
    bool *marked = new_array(T, sizeof *marked);
    for (size_t i = 0; i < count; i++) {
        if (numbers[i] >= (int64_t)T) fail("--check-tokens: no token %lld among %zu", (long long)numbers[i], T);
        marked[numbers[i]] = true;
    }
    token_list list = token_list_make(T, marked);
    free(marked);
    free(numbers);
    return list;
}

static input input_read(const options *opt, const source *s, const config *c)
{
    input in = {0};
    if (opt->tokens)
        in.T = numbers_parse("--tokens", opt->tokens, &in.id, &in.sequence);
    else
        input_from_trace(s, &in);
    if (in.T == 0) fail("%s: no tokens", s->name);
    for (size_t t = 0; t < in.T; t++)
        if (in.id[t] < 0 || in.id[t] >= (int64_t)c->V)
            fail("token %zu is %lld, outside the vocabulary of %zu", t, (long long)in.id[t], c->V);
    input_positions(s, &in, !opt->tokens);
    in.all = token_list_make(in.T, NULL);
    in.checked = checked_tokens(in.T, opt->check_tokens);
    return in;
}

static void input_free(input *in)
{
    void *arrays[] = {in->id, in->sequence, in->position, in->all.token, in->checked.token};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) free(arrays[i]);
}

/* ---- The trace, and what the comparison has found ---- */

/* What is compared, in the order of the report. */
static const struct {
    const char *name, *axes; /* one letter per axis */
    bool exact;              /* integers: no tolerance */
} kinds[] = {
    {"token_ids", "T", true},       {"sequence", "T", true},         {"position", "T", true},
    {"resid_pre", "LTD", false},    {"attn_q", "LTHC", false},       {"attn_k", "LTKC", false},
    {"attn_v", "LTKC", false},      {"attn_z", "LTHC", false},       {"attn_out", "LTD", false},
    {"resid_mid", "LTD", false},    {"ffn_in", "LTD", false},        {"router_logits", "LTE", false},
    {"router_probs", "LTE", false}, {"expert_indices", "LTS", true}, {"expert_weights", "LTS", false},
    {"ffn_hidden", "LTSF", false},  {"ffn_out", "LTD", false},       {"resid_post", "LTD", false},
    {"final_hidden", "TD", false},  {"logits", "TV", false},
};
enum { NUM_QUANTITIES = sizeof kinds / sizeof kinds[0] };

typedef struct quantity {
    hid_t data; /* H5I_INVALID_HID where the trace has none */
    int rank;
    bool layered; /* its first axis is the layer */
    hsize_t dims[4];
    size_t compared;                /* numbers so far */
    double difference2, reference2; /* sums of squares: of the differences, and of what they should be */
    double worst;                   /* largest difference, infinite for NaN */
    size_t worst_at[4];             /* layer and token by their own numbers, then the element */
} quantity;

typedef struct trace {
    source source;
    size_t *layer_row, *token_row; /* [L], [T]: place along the trace's axis, or SKIPPED */
    size_t num_layers, num_tokens; /* length of these axes */
    quantity quantity[NUM_QUANTITIES];
} trace;

/* The rows of the trace that hold 0..count-1: the dataset `scale` has the number of each row; without it, all. */
static size_t *recorded_rows(const source *s, const char *scale, size_t count, size_t *num_rows)
{
    size_t *row = new_array(count, sizeof *row);
    int64_t *number = column_read(s, scale, num_rows);
    for (size_t i = 0; i < count; i++) row[i] = number ? SKIPPED : i;
    if (!number) *num_rows = count;
    for (size_t r = 0; number && r < *num_rows; r++) {
        if (number[r] < 0 || number[r] >= (int64_t)count || (r > 0 && number[r] <= number[r - 1]))
            fail("%s: %s %zu is %lld: not ascending below %zu", s->name, scale, r, (long long)number[r], count);
        row[number[r]] = r;
    }
    free(number);
    return row;
}

static size_t axis_size(const trace *t, const config *c, char axis)
{
    static const char letters[] = "LTDHKCVESF";
    const size_t sizes[] = {t->num_layers, t->num_tokens, c->D, c->H, c->K, c->C, c->V, c->E, c->S, c->F};
    return sizes[strchr(letters, axis) - letters];
}

static void quantity_open(trace *t, const config *c, int q)
{
    quantity *at = &t->quantity[q];
    at->data = H5I_INVALID_HID;
    if (H5Lexists(t->source.file, kinds[q].name, H5P_DEFAULT) <= 0) return;
    at->rank = (int)strlen(kinds[q].axes);
    at->layered = kinds[q].axes[0] == 'L';
    for (int i = 0; i < at->rank; i++) at->dims[i] = axis_size(t, c, kinds[q].axes[i]);
    at->data = dataset_open(&t->source, kinds[q].name, at->rank, at->dims);
}

/* Of the recorded tokens only the checked ones are compared, and each that --check-tokens names must be there. */
static void skip_unchecked(trace *t, const input *in)
{
    size_t *recorded = t->token_row;
    t->token_row = new_array(in->T, sizeof(size_t));
    for (size_t token = 0; token < in->T; token++) t->token_row[token] = SKIPPED;
    for (size_t i = 0; i < in->checked.n; i++) {
        size_t token = in->checked.token[i];
        t->token_row[token] = recorded[token];
        if (recorded[token] == SKIPPED && in->checked.n < in->T)
            fail("%s: token %zu of --check-tokens was not recorded", t->source.name, token);
    }
    free(recorded);
}

static trace trace_open(const source *s, const config *c, const input *in)
{
    trace t = {.source = *s};
    t.layer_row = recorded_rows(s, "layer", c->L, &t.num_layers);
    t.token_row = recorded_rows(s, "token", in->T, &t.num_tokens);
    skip_unchecked(&t, in);
    for (int q = 0; q < NUM_QUANTITIES; q++) quantity_open(&t, c, q);
    return t;
}

static quantity *quantity_find(trace *t, const char *name)
{
    int q = 0;
    while (strcmp(kinds[q].name, name) != 0) q++;
    return &t->quantity[q];
}

static void trace_close(trace *t)
{
    for (int q = 0; q < NUM_QUANTITIES; q++)
        if (t->quantity[q].data >= 0) H5Dclose(t->quantity[q].data);
    free(t->layer_row);
    free(t->token_row);
}

/* Count one number; at is its place: layer where there is one, token, element. */
static void quantity_count(quantity *q, double found, double wanted, const size_t *at)
{
    double difference = fabs(found - wanted);
    if (isnan(difference)) difference = INFINITY;
    if (difference > q->worst) {
        q->worst = difference;
        memcpy(q->worst_at, at, sizeof q->worst_at);
    }
    q->difference2 += difference * difference;
    q->reference2 += wanted * wanted;
    q->compared++;
}

/* Compare a quantity in one layer (0 for those without layers): wanted [n, elements], a row for each token listed. */
static void compare(trace *t, const char *name, size_t layer, const token_list *tokens, const double *wanted)
{
    quantity *q = quantity_find(t, name);
    size_t layer_row = q->layered ? t->layer_row[layer] : 0;
    if (q->data < 0 || layer_row == SKIPPED) return;
    int inner = q->layered ? 2 : 1; /* first axis after the token axis */
    hsize_t start[4] = {layer_row}, count[4] = {1, 1, 1, 1};
    size_t width = 1, last = inner < q->rank ? q->dims[q->rank - 1] : 1;
    for (int axis = inner; axis < q->rank; axis++) width *= count[axis] = q->dims[axis];
    double *found = new_doubles(width);
    for (size_t i = 0; i < tokens->n; i++) {
        size_t token = tokens->token[i];
        if (t->token_row[token] == SKIPPED) continue;
        start[inner - 1] = t->token_row[token];
        slab_read(q->data, q->rank, start, count, H5T_NATIVE_DOUBLE, found);
        for (size_t j = 0; j < width; j++)
            quantity_count(q, found[j], wanted[i * width + j], (const size_t[4]){layer, token, j / last, j % last});
    }
    free(found);
}

static void place_print(const quantity *q)
{
    int inner_axes = q->rank - (q->layered ? 2 : 1);
    printf(" at");
    if (q->layered) printf(" layer %zu", q->worst_at[0]);
    printf(" token %zu", q->worst_at[1]);
    if (inner_axes == 1) printf(" [%zu]", q->worst_at[3]);
    if (inner_axes == 2) printf(" [%zu,%zu]", q->worst_at[2], q->worst_at[3]);
}

/* One line per quantity that was compared; true if all are the same. */
static bool trace_report(const trace *t, double tolerance)
{
    bool all_same = true, any = false;
    for (int i = 0; i < NUM_QUANTITIES; i++) {
        const quantity *q = &t->quantity[i];
        if (q->compared == 0) continue;
        double relative = q->difference2 == 0 ? 0 : sqrt(q->difference2) / sqrt(q->reference2);
        bool same = kinds[i].exact ? q->difference2 == 0 : relative <= tolerance;
        printf("%-15s relative 2-norm %.3e  largest difference %.3e", kinds[i].name, relative, q->worst);
        if (q->worst > 0) place_print(q);
        printf("  %s\n", same ? "same" : "differs");
        all_same = all_same && same;
        any = true;
    }
    if (!any) fail("%s: holds none of the quantities", t->source.name);
    return all_same;
}

/* ---- The formulas ---- */

/* What a layer works with. */
typedef struct model {
    source weights;
    config c;
    input in;
    trace trace;
} model;

/* RMSNorm of each row of x [n, D]: x / sqrt(mean(x^2) + eps) * scale. The caller frees the result [n, D]. */
static double *rms_norm(const config *c, size_t n, const double *x, const double *scale)
{
    double *y = new_doubles(n * c->D);
    for (size_t i = 0; i < n; i++) {
        double factor = 1 / sqrt(dot(c->D, x + i * c->D, x + i * c->D) / (double)c->D + c->rms_norm_eps);
        for (size_t d = 0; d < c->D; d++) y[i * c->D + d] = x[i * c->D + d] * factor * scale[d];
    }
    return y;
}

static void softmax(size_t length, double *x)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < length; i++) largest = fmax(largest, x[i]);
    for (size_t i = 0; i < length; i++) sum += x[i] = exp(x[i] - largest);
    for (size_t i = 0; i < length; i++) x[i] /= sum;
}

/* GELU in its tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel, arXiv:1606.08415. */
static double gelu(double x, bool erf_form)
{
    if (erf_form) return 0.5 * x * (1 + erf(x / sqrt(2)));
    const double sqrt_2_over_pi = 0.79788456080286535588;
    return 0.5 * x * (1 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

/* Rotate x [n, heads, C] by position, Su et al., arXiv:2104.09864, with the halves of a head as pairs:
 * (x_i, x_{i+C/2}) turns by position * rope_base^(-2i/C) radians. */
static void rope(const config *c, const input *in, const token_list *tokens, size_t heads, double *x)
{
    size_t half = c->C / 2;
    for (size_t i = 0; i < tokens->n; i++)
        for (size_t pair = 0; pair < half; pair++) {
            double frequency = pow(c->rope_base, -2.0 * (double)pair / (double)c->C);
            double angle = (double)in->position[tokens->token[i]] * frequency;
            for (size_t head = 0; head < heads; head++) {
                double *a = x + (i * heads + head) * c->C + pair, *b = a + half;
                double a_turned = *a * cos(angle) - *b * sin(angle);
                *b = *b * cos(angle) + *a * sin(angle);
                *a = a_turned;
            }
        }
}

/* The rows of x [T, width] that are listed. The caller frees the result [n, width]. */
static double *gather(const token_list *tokens, size_t width, const double *x)
{
    double *y = new_doubles(tokens->n * width);
    for (size_t i = 0; i < tokens->n; i++) memcpy(y + i * width, x + tokens->token[i] * width, width * sizeof(double));
    return y;
}

/* One query head q [C] of one token, over the tokens of its sequence up to itself. k, v [T, K, C]; z [C]. */
static void attend(const model *m, size_t token, size_t kv_head, const double *q, const double *k, const double *v,
                   double *z)
{
    const config *c = &m->c;
    size_t *seen = new_array(token + 1, sizeof *seen), num_seen = 0;
    double *score = new_doubles(token + 1);
    for (size_t other = 0; other <= token; other++)
        if (m->in.sequence[other] == m->in.sequence[token]) {
            double logit = c->attn_output_multiplier * dot(c->C, q, k + (other * c->K + kv_head) * c->C);
            score[num_seen] = c->attn_logit_softcap * tanh(logit / c->attn_logit_softcap);
            seen[num_seen++] = other;
        }
    softmax(num_seen, score);
    for (size_t i = 0; i < num_seen; i++)
        for (size_t d = 0; d < c->C; d++) z[d] += score[i] * v[(seen[i] * c->K + kv_head) * c->C + d];
    free(score);
    free(seen);
}

/* From a [T, D], the normed residual stream, to z [n, H, C] of the tokens in `out`. The caller frees it. */
static double *attention(model *m, const layer_weights *w, size_t layer, const double *a, const token_list *out)
{
    const config *c = &m->c;
    double *k = multiply(&w->key, 0, m->in.T, a), *v = multiply(&w->value, 0, m->in.T, a);
    double *a_out = gather(out, c->D, a), *q = multiply(&w->query, 0, out->n, a_out);
    rope(c, &m->in, &m->in.all, c->K, k);
    rope(c, &m->in, out, c->H, q);

    double *z = new_doubles(out->n * c->H * c->C);
    for (size_t i = 0; i < out->n; i++)
        for (size_t head = 0; head < c->H; head++) {
            size_t at = (i * c->H + head) * c->C;
            attend(m, out->token[i], head / (c->H / c->K), q + at, k, v, z + at);
        }
    compare(&m->trace, "attn_q", layer, out, q);
    compare(&m->trace, "attn_k", layer, &m->in.all, k);
    compare(&m->trace, "attn_v", layer, &m->in.all, v);
    compare(&m->trace, "attn_z", layer, out, z);
    free(k);
    free(v);
    free(a_out);
    free(q);
    return z;
}

/* From resid_pre [T, D] to resid_mid [n, D] of the tokens in `out`. The caller frees it. */
static double *attention_block(model *m, const layer_weights *w, size_t layer, const double *h, const token_list *out)
{
    const config *c = &m->c;
    double *a = rms_norm(c, m->in.T, h, w->attn_norm_pre);
    double *z = attention(m, w, layer, a, out);
    double *sum = multiply(&w->output, 0, out->n, z);
    for (size_t i = 0; c->scale_attention && i < out->n * c->D; i++) sum[i] *= c->attn_output_multiplier;
    double *attn_out = rms_norm(c, out->n, sum, w->attn_norm_post);
    double *mid = gather(out, c->D, h);
    for (size_t i = 0; i < out->n * c->D; i++) mid[i] += attn_out[i];
    compare(&m->trace, "resid_pre", layer, &m->in.all, h);
    compare(&m->trace, "attn_out", layer, out, attn_out);
    compare(&m->trace, "resid_mid", layer, out, mid);
    free(a);
    free(z);
    free(sum);
    free(attn_out);
    return mid;
}

/* The S likeliest of E experts, likeliest first, the lower of two equals: choice [S]. */
static void choose(const config *c, const double *probability, size_t *choice)
{
    bool *taken = new_array(c->E, sizeof *taken);
    for (size_t s = 0; s < c->S; s++) {
        size_t best = c->E;
        for (size_t e = 0; e < c->E; e++)
            if (!taken[e] && (best == c->E || probability[e] > probability[best])) best = e;
        taken[best] = true;
        choice[s] = best;
    }
    free(taken);
}

/* Experts of x [n, D]: choice [n, S] and their probabilities among all experts as they are, weight [n, S]. */
static void route(model *m, const layer_weights *w, size_t layer, const token_list *tokens, const double *x,
                  size_t *choice, double *weight)
{
    const config *c = &m->c;
    double *p = multiply(&w->router, 0, tokens->n, x); /* [n, E] */
    double *index = new_doubles(tokens->n * c->S);
    for (size_t i = 0; c->router_softcap > 0 && i < tokens->n * c->E; i++)
        p[i] = c->router_softcap * tanh(p[i] / c->router_softcap);
    compare(&m->trace, "router_logits", layer, tokens, p);
    for (size_t i = 0; i < tokens->n; i++) {
        softmax(c->E, p + i * c->E);
        choose(c, p + i * c->E, choice + i * c->S);
        for (size_t s = 0; s < c->S; s++) {
            weight[i * c->S + s] = p[i * c->E + choice[i * c->S + s]];
            index[i * c->S + s] = (double)choice[i * c->S + s];
        }
        double total = 0;
        for (size_t s = 0; s < c->S; s++) total += weight[i * c->S + s];
        for (size_t s = 0; c->renormalise_floor >= 0 && s < c->S; s++)
            weight[i * c->S + s] /= fmax(total, c->renormalise_floor);
    }
    compare(&m->trace, "router_probs", layer, tokens, p);
    compare(&m->trace, "expert_indices", layer, tokens, index);
    compare(&m->trace, "expert_weights", layer, tokens, weight);
    free(index);
    free(p);
}

/* The first layer of an expert's neurons: x [n, D] to hidden [n, F]. The caller frees it. */
static double *first_layer(const config *c, const layer_weights *w, size_t expert, size_t n, const double *x)
{
    double *hidden = multiply(&w->up, expert, n, x);
    if (c->glu) {
        double *gate = multiply(&w->gate, expert, n, x);
        for (size_t i = 0; i < n * c->F; i++) hidden[i] *= gelu(gate[i], c->gelu_erf);
        free(gate);
    } else {
        for (size_t i = 0; i < n * c->F; i++)
            hidden[i] = gelu(hidden[i] + w->up_bias[expert * c->F + i % c->F], c->gelu_erf);
    }
    return hidden;
}

/* The second layer: hidden [n, F] to y [n, D]. The caller frees it. */
static double *second_layer(const config *c, const layer_weights *w, size_t expert, size_t n, const double *hidden)
{
    double *y = multiply(&w->down, expert, n, hidden);
    if (!c->glu)
        for (size_t i = 0; i < n * c->D; i++) y[i] += w->down_bias[expert * c->D + i % c->D];
    return y;
}

/* One expert, for those of n tokens that chose it: from x [n, D] to its places in hidden [n, S, F] and y [n, S, D]. */
static void expert_run(const config *c, const layer_weights *w, size_t expert, size_t n, const double *x,
                       const size_t *choice, double *hidden, double *y)
{
    size_t *place = new_array(n, sizeof *place), num_places = 0; /* token * S + choice; a token takes an expert once */
    double *x_here = new_doubles(n * c->D);
    for (size_t i = 0; i < n * c->S; i++)
        if (choice[i] == expert) {
            memcpy(x_here + num_places * c->D, x + i / c->S * c->D, c->D * sizeof(double));
            place[num_places++] = i;
        }
    if (num_places > 0) {
        double *hidden_here = first_layer(c, w, expert, num_places, x_here);
        double *y_here = second_layer(c, w, expert, num_places, hidden_here);
        for (size_t i = 0; i < num_places; i++) {
            memcpy(hidden + place[i] * c->F, hidden_here + i * c->F, c->F * sizeof(double));
            memcpy(y + place[i] * c->D, y_here + i * c->D, c->D * sizeof(double));
        }
        free(hidden_here);
        free(y_here);
    }
    free(x_here);
    free(place);
}

/* The chosen experts of x [n, D], each times its weight, added in order of choice: [n, D]. The caller frees it. */
static double *experts(model *m, const layer_weights *w, size_t layer, const token_list *tokens, const double *x)
{
    const config *c = &m->c;
    size_t n = tokens->n, *choice = new_array(n * c->S, sizeof *choice);
    double *weight = new_doubles(n * c->S), *hidden = new_doubles(n * c->S * c->F);
    double *y = new_doubles(n * c->S * c->D), *sum = new_doubles(n * c->D);
    route(m, w, layer, tokens, x, choice, weight);
    for (size_t expert = 0; expert < c->E; expert++) expert_run(c, w, expert, n, x, choice, hidden, y);
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < c->S; s++)
            for (size_t d = 0; d < c->D; d++) sum[i * c->D + d] += weight[i * c->S + s] * y[(i * c->S + s) * c->D + d];
    compare(&m->trace, "ffn_hidden", layer, tokens, hidden);
    free(choice);
    free(weight);
    free(hidden);
    free(y);
    return sum;
}

/* From resid_mid to resid_post, in place: h [n, D]. */
static void ffn_block(model *m, const layer_weights *w, size_t layer, const token_list *tokens, double *h)
{
    const config *c = &m->c;
    double *ffn_in = rms_norm(c, tokens->n, h, w->ffn_norm_pre);
    double *sum = experts(m, w, layer, tokens, ffn_in);
    double *ffn_out = rms_norm(c, tokens->n, sum, w->ffn_norm_post);
    for (size_t i = 0; i < tokens->n * c->D; i++) h[i] += ffn_out[i];
    compare(&m->trace, "ffn_in", layer, tokens, ffn_in);
    compare(&m->trace, "ffn_out", layer, tokens, ffn_out);
    compare(&m->trace, "resid_post", layer, tokens, h);
    free(ffn_in);
    free(sum);
    free(ffn_out);
}

/* The rows of the embedding [V, D] that the tokens name, times the multiplier: [T, D]. The caller frees it. */
static double *embed(const model *m, const matrix *embedding)
{
    const config *c = &m->c;
    double *h = new_doubles(m->in.T * c->D);
    for (size_t t = 0; t < m->in.T; t++) matrix_rows(embedding, 0, (size_t)m->in.id[t], 1, h + t * c->D);
    for (size_t i = 0; i < m->in.T * c->D; i++) h[i] *= c->embedding_multiplier_scale;
    return h;
}

/* The last norm, and the embedding once more as the output matrix: h [n, D] to logits [n, V]. */
static void unembed(model *m, const matrix *embedding, const token_list *tokens, const double *h)
{
    const config *c = &m->c;
    hsize_t width = c->D;
    double *scale = reals_read(&m->weights, "final_norm", 1, &width);
    double *final_hidden = rms_norm(c, tokens->n, h, scale);
    compare(&m->trace, "final_hidden", 0, tokens, final_hidden);
    if (quantity_find(&m->trace, "logits")->data >= 0) {
        double *logits = multiply(embedding, 0, tokens->n, final_hidden);
        for (size_t i = 0; i < tokens->n * c->V; i++) logits[i] *= c->output_multiplier_scale;
        compare(&m->trace, "logits", 0, tokens, logits);
        free(logits);
    }
    free(scale);
    free(final_hidden);
}

/* All tokens through all layers but the last, where only the checked ones go on past attention's keys and values. */
static void model_run(model *m)
{
    const config *c = &m->c;
    matrix embedding = matrix_open(&m->weights, "embedding", 0, c->V, c->D);
    double *h = embed(m, &embedding);
    for (size_t layer = 0; layer < c->L; layer++) {
        const token_list *out = layer + 1 < c->L ? &m->in.all : &m->in.checked;
        layer_weights w = layer_open(&m->weights, c, layer);
        double *next = attention_block(m, &w, layer, h, out);
        ffn_block(m, &w, layer, out, next);
        layer_close(&w, c);
        free(h);
        h = next;
    }
    unembed(m, &embedding, &m->in.checked, h);
    matrix_close(&embedding);
    free(h);
}

/* ---- The program ---- */

/* With --tokens, the trace's own account of its input is compared as well. */
static void compare_input(model *m)
{
    static const char *const names[] = {"token_ids", "sequence", "position"};
    const int64_t *columns[] = {m->in.id, m->in.sequence, m->in.position};
    double *value = new_doubles(m->in.T);
    for (int i = 0; i < 3; i++) {
        for (size_t t = 0; t < m->in.T; t++) value[t] = (double)columns[i][t];
        compare(&m->trace, names[i], 0, &m->in.all, value);
    }
    free(value);
}

static double number_parse(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0)) fail("%s: no number from 0 up: %s", option, text);
    return value;
}

static options options_parse(int argc, char **argv)
{
    static const char usage[] =
        "usage: reference WEIGHTS.h5 TRACE.h5 [--tolerance X] [--tokens 1,2,3;4,5] [--check-tokens 0,5,63]\n"
        "       [--router-softcap X] [--renormalise-floor X] [--scale-attention] [--gelu-erf]";
    options opt = {.tolerance = 2e-5, .renormalise_floor = -1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--tolerance") == 0 && value)
            opt.tolerance = number_parse("--tolerance", argv[++i]);
        else if (strcmp(argv[i], "--router-softcap") == 0 && value)
            opt.router_softcap = number_parse("--router-softcap", argv[++i]);
        else if (strcmp(argv[i], "--renormalise-floor") == 0 && value)
            opt.renormalise_floor = number_parse("--renormalise-floor", argv[++i]);
        else if (strcmp(argv[i], "--scale-attention") == 0)
            opt.scale_attention = true;
        else if (strcmp(argv[i], "--gelu-erf") == 0)
            opt.gelu_erf = true;
        else if (strcmp(argv[i], "--tokens") == 0 && value)
            opt.tokens = argv[++i];
        else if (strcmp(argv[i], "--check-tokens") == 0 && value)
            opt.check_tokens = argv[++i];
        else if (argv[i][0] == '-' || opt.trace)
            fail("%s: not understood\n%s", argv[i], usage);
        else if (!opt.weights)
            opt.weights = argv[i];
        else
            opt.trace = argv[i];
    }
    if (!opt.trace) fail("two files are needed\n%s", usage);
    return opt;
}

int main(int argc, char **argv)
{
    options opt = options_parse(argc, argv);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* messages are given here, not by the library */
    model m = {.weights = source_open(opt.weights)};
    source recorded = source_open(opt.trace);
    m.c = config_read(&m.weights);
    m.c.router_softcap = opt.router_softcap;
    m.c.renormalise_floor = opt.renormalise_floor;
    m.c.scale_attention = opt.scale_attention;
    m.c.gelu_erf = opt.gelu_erf;
    m.in = input_read(&opt, &recorded, &m.c);
    m.trace = trace_open(&recorded, &m.c, &m.in);

    if (opt.tokens) compare_input(&m);
    model_run(&m);
    bool same = trace_report(&m.trace, opt.tolerance);

    trace_close(&m.trace);
    input_free(&m.in);
    H5Fclose(recorded.file);
    H5Fclose(m.weights.file);
    return same ? EXIT_SAME : EXIT_DIFFERS;
}
