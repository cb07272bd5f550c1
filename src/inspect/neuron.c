/* inspect W.h5 neuron: one neuron's weights in numbers; with a trace and a token its sum, term by term, and its output,
 * computed again in double precision from the weights and the recorded inputs, beside what was recorded. */
#include "neuron.h"

#include <string.h>

static const em_tensor matrices[] = {EM_FFN_UP,     EM_FFN_GATE, EM_FFN_DOWN,   EM_ROUTER,
                                     EM_ATTN_QUERY, EM_ATTN_KEY, EM_ATTN_VALUE, EM_ATTN_OUTPUT};
enum { NUM_MATRICES = sizeof matrices / sizeof *matrices };

const char *em_tensor_name(em_tensor tensor, em_tensor_path path)
{
    return strrchr(em_tensor_path_of(tensor, 0, path), '/') + 1;
}

/* ---- which neuron ---- */

static bool find_matrix(const em_inspect *in, em_tensor *tensor, em_status *status)
{
    const char *name = em_option_value(in->call, "matrix"), *names[NUM_MATRICES];
    em_tensor_path path[NUM_MATRICES];
    *tensor = EM_FFN_UP;
    for (int i = 0; i < NUM_MATRICES; i++) {
        names[i] = em_tensor_name(matrices[i], path[i]);
        if (!name || strcmp(name, names[i]) != 0) continue;
        *tensor = matrices[i];
        return true;
    }
    if (!name) return true;
    const char *nearest = em_nearest(name, names, NUM_MATRICES);
    return em_fail(status, EM_USAGE, "--matrix: there is no \"%s\"; %s%s", name,
                   nearest ? "the nearest is " : "expertmesh inspect --help lists them", nearest ? nearest : "");
}

/* A number from 0 to count - 1 of an option. needed: why it must be there; NULL: it need not, and is -1. */
static bool read_index(const em_inspect *in, const char *name, const char *what, int64_t count, const char *needed,
                       int64_t *index, em_status *status)
{
    if (!em_option_whole(in->call, name, 0, INT64_MAX, -1, index, status)) return false;
    if (*index < 0 && needed) return em_fail(status, EM_USAGE, "inspect neuron: add --%s N: %s", name, needed);
    if (*index < count) return true;
    return em_fail(status, EM_USAGE, "--%s: there is no %s %lld; %s has %s 0 to %lld", name, what, (long long)*index,
                   in->path, what, (long long)count - 1);
}

/* Rows of queries, keys and values may be named by head and element. */
static bool read_row(em_neuron *n, em_status *status)
{
    const em_config *c = &n->source.config;
    bool of_heads = n->tensor == EM_ATTN_QUERY || n->tensor == EM_ATTN_KEY || n->tensor == EM_ATTN_VALUE;
    int64_t heads = n->tensor == EM_ATTN_QUERY ? c->num_q_heads : c->num_kv_heads, head;
    em_tensor_shape shape = em_tensor_shape_of(c, n->tensor);
    if (of_heads && em_option_value(n->in->call, "head")) {
        if (!read_index(n->in, "head", "head", heads, "", &head, status) ||
            !read_index(n->in, "neuron", "element of a head", c->key_size, "its element of the head", &n->row, status))
            return false;
        n->row += head * c->key_size;
        return true;
    }
    if (em_option_value(n->in->call, "head"))
        return em_fail(status, EM_USAGE, "--head: only attn_query, attn_key and attn_value have heads of rows");
    return read_index(n->in, "neuron", "neuron", shape.rows, "which row of the matrix", &n->row, status);
}

static bool find_neuron(em_neuron *n, em_status *status)
{
    const em_config *c = &n->source.config;
    em_tensor_path path;
    if (!find_matrix(n->in, &n->tensor, status)) return false;
    em_tensor_shape shape = em_tensor_shape_of(c, n->tensor);
    if (!shape.present)
        return em_fail(status, EM_USAGE, "--matrix: %s has no %s: its ffn_kind is %s", n->in->path,
                       em_tensor_name(n->tensor, path), em_ffn_kind_name(c->ffn_kind));
    bool of_experts = shape.rank == 3;
    if (!of_experts && em_option_value(n->in->call, "expert"))
        return em_fail(status, EM_USAGE, "--expert: %s is not of an expert%s", em_tensor_name(n->tensor, path),
                       n->tensor == EM_ROUTER ? "; --neuron N is its row for expert N" : "");
    if (!read_index(n->in, "layer", "layer", c->num_layers, "its layer", &n->layer, status) ||
        (of_experts && !read_index(n->in, "expert", "expert", c->num_experts, "its expert", &n->expert, status)))
        return false;
    if (n->tensor == EM_FFN_GATE) n->tensor = EM_FFN_UP; /* the two are one neuron */
    return read_row(n, status);
}

/* ---- weights ---- */

bool em_neuron_weights(const em_neuron *n, em_tensor tensor, int64_t expert, int64_t row, int64_t rows, int64_t col,
                       int64_t cols, float *out, em_status *status)
{
    const em_form *form = em_source_form(&n->source, tensor, n->layer);
    em_tensor_shape shape = em_tensor_shape_of(&n->source.config, tensor);
    int64_t first = expert * shape.rows + row, group = shape.cols / form->groups;
    size_t bytes = em_type_bytes(form->data.type);
    char *raw = em_alloc(rows * cols, bytes);
    float *scale = em_alloc(rows * form->groups, sizeof *scale);
    bool good = em_store_read_block(n->source.store, &form->data, first, rows, col, cols, raw, status);
    if (good && form->storage == EM_INT8)
        good = em_store_read_block(n->source.store, &form->scale, first, rows, 0, form->groups, scale, status);
    for (int64_t i = 0; good && i < rows * cols; i++) {
        uint16_t half;
        if (form->storage == EM_INT8)
            out[i] = (float)(int8_t)raw[i] * scale[i / cols * form->groups + (col + i % cols) / group];
        else if (form->storage == EM_BF16)
            out[i] = em_bf16_to_f32(*(uint16_t *)memcpy(&half, raw + 2 * i, sizeof half));
        else
            memcpy(&out[i], raw + 4 * i, sizeof *out);
    }
    free(scale);
    free(raw);
    return good;
}

/* The matrices whose row the neuron is: one, or gate and up. Returns how many. */
static int matrices_of(const em_neuron *n, em_tensor matrix[2])
{
    bool gated = n->tensor == EM_FFN_UP && n->source.config.ffn_kind == EM_FFN_GLU;
    matrix[0] = gated ? EM_FFN_GATE : n->tensor;
    matrix[1] = EM_FFN_UP;
    return gated ? 2 : 1;
}

/* ---- the tables of weights ---- */

void em_neuron_vector(em_table *table, const char *name, const char *storage, const float *x, int64_t count,
                      double bias)
{
    double sum = 0, squares = 0, off = 0;
    int64_t least = 0, most = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        least = x[i] < x[least] ? i : least;
        most = x[i] > x[most] ? i : most;
    }
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) off += ((double)x[i] - mean) * ((double)x[i] - mean);
    em_table_cell(table, "%s", name);
    em_table_cell(table, "%s", storage);
    em_table_whole(table, count);
    em_table_real(table, 4, mean);
    em_table_real(table, 4, sqrt(off / (double)count));
    em_table_real(table, 5, sqrt(squares));
    em_table_real(table, 4, (double)x[least]);
    em_table_whole(table, least);
    em_table_real(table, 4, (double)x[most]);
    em_table_whole(table, most);
    em_table_real(table, 6, bias);
}

/* "ffn_up[2, 17, :]", "router[1, :]", "ffn_down[2, :, 17]". Freed with free. */
static char *name_of(const em_neuron *n, em_tensor tensor, bool column)
{
    em_tensor_path path;
    const char *name = em_tensor_name(tensor, path);
    long long expert = n->expert, row = n->row;
    if (em_tensor_shape_of(&n->source.config, tensor).rank < 3) return em_text("%s[%lld, :]", name, row);
    return column ? em_text("%s[%lld, :, %lld]", name, expert, row) : em_text("%s[%lld, %lld, :]", name, expert, row);
}

static const char *storage_of(const em_neuron *n, em_tensor tensor)
{
    return em_storage_name(em_source_form(&n->source, tensor, n->layer)->storage);
}

/* The neuron's own bias, where it has one. */
static double bias_of(const em_neuron *n, em_status *status)
{
    bool mlp = n->source.config.ffn_kind == EM_FFN_MLP;
    float bias = NAN;
    if (mlp && n->tensor == EM_FFN_UP) em_neuron_weights(n, EM_FFN_UP_BIAS, n->expert, 0, 1, n->row, 1, &bias, status);
    if (mlp && n->tensor == EM_FFN_DOWN)
        em_neuron_weights(n, EM_FFN_DOWN_BIAS, n->expert, 0, 1, n->row, 1, &bias, status);
    return (double)bias;
}

/* Where the output of a first-layer neuron goes: its column of the second layer. */
static void put_outgoing(const em_neuron *n, em_table *table, em_status *status)
{
    int64_t D = n->source.config.emb_size;
    float *w = em_alloc(D, sizeof *w);
    char *name = name_of(n, EM_FFN_DOWN, true);
    if (em_neuron_weights(n, EM_FFN_DOWN, n->expert, 0, D, n->row, 1, w, status))
        em_neuron_vector(table, name, storage_of(n, EM_FFN_DOWN), w, D, (double)NAN);
    free(name);
    free(w);
}

static void put_largest(const em_neuron *n, em_table *table, em_tensor tensor, const float *w, int64_t count)
{
    int64_t top = n->in->top < count ? n->in->top : count;
    float *size = em_alloc(count, sizeof *size);
    int32_t *index = em_alloc(top, sizeof *index);
    em_tensor_path path;
    for (int64_t i = 0; i < count; i++) size[i] = fabsf(w[i]);
    em_top(count, size, top, index);
    for (int64_t i = 0; i < top; i++) {
        em_table_cell(table, "%s", em_tensor_name(tensor, path));
        em_table_whole(table, index[i]);
        em_table_real(table, 6, (double)w[index[i]]);
    }
    free(index);
    free(size);
}

/* vectors and largest may be NULL. */
static void put_weights(em_neuron *n, em_table *vectors, em_table *largest, em_status *status)
{
    em_tensor tensor[2];
    int count = matrices_of(n, tensor);
    double bias = bias_of(n, status);
    for (int i = 0; i < count && !status->code; i++) {
        int64_t K = em_tensor_shape_of(&n->source.config, tensor[i]).cols;
        float *w = em_alloc(K, sizeof *w);
        char *name = name_of(n, tensor[i], false);
        if (em_neuron_weights(n, tensor[i], n->expert, n->row, 1, 0, K, w, status)) {
            if (vectors) em_neuron_vector(vectors, name, storage_of(n, tensor[i]), w, K, bias);
            if (largest) put_largest(n, largest, tensor[i], w, K);
        }
        free(name);
        free(w);
    }
    if (vectors && n->tensor == EM_FFN_UP && !status->code) put_outgoing(n, vectors, status);
}

/* ---- the trace ---- */

static bool check_same_model(const em_neuron *n, em_status *status)
{
    char *of_weights = em_config_json(&n->source.config), *of_trace = em_config_json(&n->trace.config);
    if (strcmp(of_weights, of_trace) != 0)
        em_fail(status, EM_BAD_DATA, "%s and %s are of different models: %s and %s", n->in->path,
                em_view_path(&n->trace), of_weights, of_trace);
    free(of_weights);
    free(of_trace);
    return status->code == EM_OK;
}

static bool open_trace(em_neuron *n, em_status *status)
{
    const char *path = em_option_value(n->in->call, "trace");
    if (!path && em_option_value(n->in->call, "token"))
        return em_fail(status, EM_USAGE, "inspect neuron: --token is one of a trace, but --trace T.h5 is missing");
    if (!path) return true;
    if (!em_option_whole(n->in->call, "token", 0, INT64_MAX, -1, &n->token, status)) return false;
    if (n->token < 0)
        return em_fail(status, EM_USAGE, "inspect neuron: --trace is given: add --token N: which token's value?");
    if (!em_view_open(&n->trace, path, status) || !check_same_model(n, status) ||
        !em_view_find_layer(&n->trace, n->layer, "--layer", &n->layer_place, status) ||
        !em_view_find_token(&n->trace, n->token, "--token", &n->token_place, status))
        return false;
    if (n->token_place < em_view_tokens(&n->trace, n->layer_place)) return true;
    return em_fail(status, EM_BAD_DATA, "%s: layer %lld of token %lld is not written: the trace is not complete", path,
                   (long long)n->layer, (long long)n->token);
}

static void inspect(em_neuron *n, em_status *status)
{
    em_book *book = n->in->book;
    em_table *vectors = NULL, *largest = NULL;
    if (em_book_wants(book, "vectors"))
        vectors = em_book_add(book, "vectors", "llrrrrrrrrr",
                              "vector,storage,length,mean,spread,norm,smallest,at,largest,largest at,bias",
                              "the neuron's weights in numbers%s%s; spread: standard deviation; norm: 2-norm",
                              n->tensor == EM_FFN_UP ? ", and its column of the second layer" : "",
                              n->trace.store ? ", and its inputs" : "");
    if (em_book_wants(book, "largest"))
        largest = em_book_add(book, "largest", "lrr", "matrix,input,weight",
                              "its weights of largest size and the inputs that they weigh, %lld of each matrix (--top)",
                              (long long)n->in->top);
    if (vectors || largest) put_weights(n, vectors, largest, status);
    if (!status->code && n->trace.store) em_neuron_output(n, vectors, status);
}

void em_inspect_neuron(em_inspect *in, em_status *status)
{
    em_neuron n = {.in = in};
    if (em_source_open(&n.source, in->path, status)) {
        if (find_neuron(&n, status) && open_trace(&n, status)) inspect(&n, status);
        em_view_close(&n.trace);
        em_source_close(&n.source);
    }
}
