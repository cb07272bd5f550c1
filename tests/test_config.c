/* The shape of a model: presets, fields from text and JSON, what is refused, and the tensors that follow from it. */
#include "suite.h"

#include "draw.h"
#include "scratch.h"

#include "expertmesh/tensors.h"

#include <string.h>

static const em_config_field *field_of(const char *name)
{
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        if (strcmp(em_config_fields[f].name, name) == 0) return &em_config_fields[f];
    CU_FAIL("no such field");
    return em_config_fields;
}

static bool contains(const em_status *status, const char *word)
{
    return strstr(status->text, word) != NULL;
}

static bool begins(const em_status *status, const char *word)
{
    return strncmp(status->text, word, strlen(word)) == 0;
}

static double relative(double a, double b)
{
    return fabs(a - b) / fabs(b);
}

/* ---- presets ---- */

/* One line of the README's table: presets differ in these. A sequence of 0: any. */
static const struct {
    const char *name;
    int64_t D, L, H, K, C, F, V, sequence;
    em_ffn_kind kind;
} preset_table[EM_NUM_PRESETS] = {
    {"article", 6144, 64, 48, 8, 128, 24576, 131072, 8192, EM_FFN_MLP},
    {"grok1", 6144, 64, 48, 8, 128, 32768, 131072, 8192, EM_FFN_GLU},
    {"demo", 768, 4, 12, 4, 64, 3072, 256, 0, EM_FFN_MLP},
    {"tiny", 96, 2, 6, 2, 16, 256, 256, 2048, EM_FFN_GLU},
};

static void presets_have_their_shapes(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) {
        const em_preset *preset = em_preset_find(preset_table[i].name);
        CU_ASSERT_PTR_NOT_NULL(preset);
        if (!preset) continue;
        const em_config *c = &preset->config;
        CU_ASSERT_EQUAL(c->emb_size, preset_table[i].D);
        CU_ASSERT_EQUAL(c->num_layers, preset_table[i].L);
        CU_ASSERT_EQUAL(c->num_q_heads, preset_table[i].H);
        CU_ASSERT_EQUAL(c->num_kv_heads, preset_table[i].K);
        CU_ASSERT_EQUAL(c->key_size, preset_table[i].C);
        CU_ASSERT_EQUAL(c->num_experts, 8);
        CU_ASSERT_EQUAL(c->num_selected_experts, 2);
        CU_ASSERT_EQUAL(c->ffn_size, preset_table[i].F);
        CU_ASSERT_EQUAL(c->vocab_size, preset_table[i].V);
        CU_ASSERT(preset_table[i].sequence == 0 || c->sequence_len == preset_table[i].sequence);
        CU_ASSERT_EQUAL(c->ffn_kind, preset_table[i].kind);
    }
    CU_ASSERT_PTR_NULL(em_preset_find("grok"));
    CU_ASSERT_PTR_NULL(em_preset_find(""));
}

/* Grok-1's scales are rules of its widths, so narrower models can have the same. */
static void presets_have_the_scales_of_their_widths(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) {
        const em_config *c = &em_presets[i].config;
        CU_ASSERT_EQUAL(c->rms_norm_eps, 1e-5);
        CU_ASSERT_EQUAL(c->rope_base, 10000);
        CU_ASSERT_EQUAL(c->attn_logit_softcap, 30);
        CU_ASSERT(relative(c->attn_output_multiplier, 1 / sqrt((double)c->key_size)) < 1e-15);
        CU_ASSERT(relative(c->embedding_multiplier_scale, sqrt((double)c->emb_size)) < 1e-15);
        CU_ASSERT(relative(c->output_multiplier_scale, 1 / sqrt(3)) < 1e-15);
        CU_ASSERT_PTR_EQUAL(em_preset_find(em_presets[i].name), &em_presets[i]);
    }
}

/* ---- sizes ---- */

/* Numbers of one expert that may be stored narrowly, and of its biases. */
static int64_t expert_matrices(const em_config *c)
{
    return (c->ffn_kind == EM_FFN_GLU ? 3 : 2) * c->ffn_size * c->emb_size;
}

static int64_t expert_biases(const em_config *c)
{
    return c->ffn_kind == EM_FFN_GLU ? 0 : c->ffn_size + c->emb_size;
}

/* Numbers of one layer's attention; its norms and router. */
static int64_t attention_matrices(const em_config *c)
{
    return c->emb_size * c->key_size * (2 * c->num_q_heads + 2 * c->num_kv_heads);
}

static int64_t norms_and_router(const em_config *c)
{
    return 4 * c->emb_size + c->num_experts * c->emb_size;
}

static int64_t parameters(const em_config *c, int64_t experts)
{
    int64_t layer = attention_matrices(c) + norms_and_router(c) + experts * (expert_matrices(c) + expert_biases(c));
    return c->vocab_size * c->emb_size + c->emb_size + c->num_layers * layer;
}

/* Neurons of one layer that may be stored as int8: each has one scale. */
static int64_t scaled_neurons(const em_config *c)
{
    int64_t first = (c->ffn_kind == EM_FFN_GLU ? 2 : 1) * c->ffn_size;
    return (c->num_q_heads + 2 * c->num_kv_heads) * c->key_size + c->emb_size + c->num_experts * (first + c->emb_size);
}

static void check_size(const em_config *c)
{
    em_model_size size = em_model_size_of(c);
    int64_t all = parameters(c, c->num_experts);
    int64_t narrow = c->num_layers * (attention_matrices(c) + c->num_experts * expert_matrices(c));
    int64_t embedding = c->vocab_size * c->emb_size; /* bf16 in an int8 model */
    CU_ASSERT_EQUAL(size.parameters, all);
    CU_ASSERT_EQUAL(size.active, parameters(c, c->num_selected_experts));
    CU_ASSERT_EQUAL(size.bytes[EM_F32], 4 * all);
    CU_ASSERT_EQUAL(size.bytes[EM_BF16], 4 * all - 2 * (narrow + embedding));
    CU_ASSERT_EQUAL(size.bytes[EM_INT8], 4 * all - 3 * narrow - 2 * embedding + 4 * c->num_layers * scaled_neurons(c));
}

static em_config draw_config(void)
{
    em_config c = em_preset_find("tiny")->config;
    c.emb_size = draw_from(1, 300);
    c.num_layers = draw_from(1, 9);
    c.num_kv_heads = draw_from(1, 7);
    c.num_q_heads = c.num_kv_heads * draw_from(1, 5);
    c.key_size = 2 * draw_from(1, 20);
    c.num_experts = draw_from(1, 12);
    c.num_selected_experts = draw_from(1, c.num_experts);
    c.ffn_size = draw_from(1, 500);
    c.vocab_size = draw_from(1, 1000);
    c.ffn_kind = draw_below(2) ? EM_FFN_GLU : EM_FFN_MLP;
    return c;
}

static void parameters_follow_from_the_shape(void)
{
    CU_ASSERT_EQUAL(em_model_size_of(&em_preset_find("grok1")->config).parameters, INT64_C(315684820992));
    for (int i = 0; i < EM_NUM_PRESETS; i++) check_size(&em_presets[i].config);
    for (int i = 0; i < 200; i++) {
        em_config c = draw_config();
        check_size(&c);
    }
}

/* An expert of the article: 24,576 neurons of 6,144 weights widen the state, 6,144 of 24,576 bring it back, each biased. */
static void the_article_counts_neurons(void)
{
    em_config c = em_preset_find("article")->config;
    int64_t wide = 24576, narrow = 6144, expert = wide * (narrow + 1) + narrow * (wide + 1);
    int64_t eight = em_model_size_of(&c).parameters;
    c.num_experts = 7;
    CU_ASSERT_EQUAL(eight - em_model_size_of(&c).parameters,
                    64 * (expert + narrow)); /* narrow: its row of the router */
    CU_ASSERT_EQUAL(em_tensor_shape_of(&c, EM_FFN_UP).cols, narrow);
    CU_ASSERT_EQUAL(em_tensor_shape_of(&c, EM_FFN_UP).rows, wide);
    CU_ASSERT_EQUAL(em_tensor_shape_of(&c, EM_FFN_DOWN).cols, wide);
    CU_ASSERT_EQUAL(em_tensor_shape_of(&c, EM_FFN_DOWN).rows, narrow);
}

/* ---- fields from text ---- */

static void set_good(const char *name, const char *text, double expected)
{
    em_config config = {0};
    em_status status = {0};
    const em_config_field *field = field_of(name);
    CU_ASSERT(em_config_set(&config, field, text, "--option", &status));
    CU_ASSERT_EQUAL(status.code, EM_OK);
    if (field->type == EM_FIELD_INTEGER) CU_ASSERT_EQUAL((double)*em_config_integer(&config, field), expected);
    if (field->type == EM_FIELD_REAL) CU_ASSERT_EQUAL(*em_config_real(&config, field), expected);
    if (field->type == EM_FIELD_FFN_KIND) CU_ASSERT_EQUAL((double)config.ffn_kind, expected);
}

static void fields_are_set_from_text(void)
{
    set_good("emb_size", "6144", 6144);
    set_good("emb_size", "-3", -3); /* a number: em_config_check says what is wrong with it */
    set_good("emb_size", "007", 7);
    set_good("rms_norm_eps", "1e-5", 1e-5);
    set_good("rms_norm_eps", ".5", .5);
    set_good("rope_base", "10000", 10000);
    set_good("ffn_kind", "glu", EM_FFN_GLU);
    set_good("ffn_kind", "mlp", EM_FFN_MLP);
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        if (em_config_fields[f].type != EM_FIELD_FFN_KIND) set_good(em_config_fields[f].name, "17", 17);
}

static void text_that_is_no_number_is_refused(void)
{
    static const struct {
        const char *field, *text;
    } bad[] = {
        {"emb_size", ""},        {"emb_size", "x"},         {"emb_size", "1.5"},
        {"emb_size", "1e3"},     {"emb_size", "12x"},       {"emb_size", "0x10"},
        {"emb_size", "1 "},      {"emb_size", "nan"},       {"emb_size", "9223372036854775808"},
        {"emb_size", "1,000"},   {"emb_size", "--1"},       {"emb_size", "-9223372036854775809"},
        {"rope_base", ""},       {"rope_base", "x"},        {"rope_base", "nan"},
        {"rope_base", "NAN(7)"}, {"rope_base", "inf"},      {"rope_base", "-infinity"},
        {"rope_base", "1e999"},  {"rope_base", "-1e999"},   {"rope_base", "1.0x"},
        {"rope_base", "1,5"},    {"ffn_kind", ""},          {"ffn_kind", "GLU"},
        {"ffn_kind", "glu "},    {"ffn_kind", "something"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_config config = em_preset_find("tiny")->config, before = config;
        em_status status = {0};
        CU_ASSERT_FALSE(em_config_set(&config, field_of(bad[i].field), bad[i].text, "--the-option", &status));
        CU_ASSERT_EQUAL(status.code, EM_USAGE);
        CU_ASSERT(begins(&status, "--the-option: "));
        CU_ASSERT(contains(&status, bad[i].text));
        CU_ASSERT_EQUAL(memcmp(&config, &before, sizeof config), 0);
    }
}

/* ---- JSON ---- */

static bool read_text(const char *text, em_config *config, uint32_t *given, em_status *status)
{
    return em_config_read_json(scratch_write("config.json", text, strlen(text)), config, given, status);
}

/* To the last bit: a run must be the same again from what its trace says of it. */
static void check_same(em_config *a, em_config *b)
{
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const em_config_field *field = &em_config_fields[f];
        if (field->type == EM_FIELD_INTEGER)
            CU_ASSERT_EQUAL(*em_config_integer(a, field), *em_config_integer(b, field));
        if (field->type == EM_FIELD_REAL) CU_ASSERT_EQUAL(*em_config_real(a, field), *em_config_real(b, field));
    }
    CU_ASSERT_EQUAL(a->ffn_kind, b->ffn_kind);
}

static void check_round_trip(em_config config)
{
    em_config back = {0};
    em_status status = {0};
    uint32_t given = 0;
    back.ffn_kind = config.ffn_kind == EM_FFN_GLU ? EM_FFN_MLP : EM_FFN_GLU;
    char *text = em_config_json(&config);
    CU_ASSERT_PTR_NULL(strchr(text, '\n'));
    CU_ASSERT(read_text(text, &back, &given, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    CU_ASSERT_EQUAL(given, (UINT32_C(1) << EM_NUM_CONFIG_FIELDS) - 1);
    check_same(&back, &config);
    free(text);
}

static void json_goes_out_and_comes_back(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) check_round_trip(em_presets[i].config);
    for (int i = 0; i < 50; i++) {
        em_config config = draw_config();
        config.rms_norm_eps = fabs((double)draw_wide(60) * 1.1);
        config.rope_base = fabs((double)draw_wide(30) / 3);
        config.sequence_len = draw_from(1, INT64_C(1) << 52);
        check_round_trip(config);
    }
}

static void json_overlays_what_it_names(void)
{
    em_config config = em_preset_find("tiny")->config, expected = config;
    em_status status = {0};
    uint32_t given = 4;
    CU_ASSERT(read_text(" { \"num_layers\" : 7.0,\n\t\"rope_base\":1e6, \"ffn_kind\":\"mlp\" }\r\n", &config, &given,
                        &status));
    expected.num_layers = 7;
    expected.rope_base = 1e6;
    expected.ffn_kind = EM_FFN_MLP;
    check_same(&config, &expected);
    uint32_t bits = 4;
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++) {
        const char *name = em_config_fields[f].name;
        if (!strcmp(name, "num_layers") || !strcmp(name, "rope_base") || !strcmp(name, "ffn_kind"))
            bits |= UINT32_C(1) << f;
    }
    CU_ASSERT_EQUAL(given, bits);
}

static void an_empty_object_sets_nothing(void)
{
    em_config config = em_preset_find("tiny")->config, expected = config;
    em_status status = {0};
    uint32_t given = 0;
    CU_ASSERT(read_text("{}", &config, &given, &status));
    CU_ASSERT_EQUAL(given, 0);
    check_same(&config, &expected);
}

/* Longer than any buffer that a reader may start with. */
static void long_json_is_read_whole(void)
{
    size_t blanks = 300000;
    char *text = malloc(blanks + 40);
    memset(text, ' ', blanks);
    strcpy(text + blanks, "{\"emb_size\": 77}");
    em_config config = {0};
    em_status status = {0};
    uint32_t given = 0;
    CU_ASSERT(read_text(text, &config, &given, &status));
    CU_ASSERT_EQUAL(config.emb_size, 77);
    free(text);
}

static void check_refused(const char *bytes, size_t length, const char *word)
{
    em_config config = {0};
    em_status status = {0};
    uint32_t given = 0;
    const char *path = scratch_write("bad.json", bytes, length);
    CU_ASSERT_FALSE(em_config_read_json(path, &config, &given, &status));
    CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
    CU_ASSERT(begins(&status, path));
    CU_ASSERT(contains(&status, word));
    CU_ASSERT_EQUAL(given, 0);
}

static void bad_json_is_refused(void)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"", "not JSON"},
        {" \n", "not JSON"},
        {"emb_size = 3", "not JSON"},
        {"{\"emb_size\":96", "not JSON"},
        {"{\"emb_size\":96} x", "not JSON"},
        {"{'emb_size':96}", "not JSON"},
        {"{\"emb_size\":96,}", "not JSON"},
        {"[]", "object"},
        {"3", "object"},
        {"null", "object"},
        {"\"emb_size\"", "object"},
        {"[{\"emb_size\":96}]", "object"},
        {"{\"nope\":1}", "nope"},
        {"{\"\":1}", "no field"},
        {"{\"EMB_SIZE\":1}", "EMB_SIZE"},
        {"{\"emb_size\":\"96\"}", "must be a number"},
        {"{\"emb_size\":true}", "must be a number"},
        {"{\"emb_size\":null}", "must be a number"},
        {"{\"emb_size\":[96]}", "must be a number"},
        {"{\"emb_size\":{\"emb_size\":96}}", "must be a number"},
        {"{\"emb_size\":1.5}", "whole number"},
        {"{\"emb_size\":1e300}", "whole number"},
        {"{\"emb_size\":1e999}", "whole number"},
        {"{\"rope_base\":\"1\"}", "rope_base"},
        {"{\"ffn_kind\":1}", "ffn_kind"},
        {"{\"ffn_kind\":\"relu\"}", "ffn_kind"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_refused(bad[i].text, strlen(bad[i].text), bad[i].word);
}

/* What follows a NUL byte is part of the file too. */
static void json_with_a_nul_byte_is_refused(void)
{
    static const char text[] = "{}\0 or anything else";
    check_refused(text, sizeof text - 1, "");
}

/* A reader that recurses must stop before its stack does. */
static void deep_nesting_is_refused(void)
{
    enum { DEEP = 1 << 20 };
    char *text = malloc(DEEP);
    memset(text, '[', DEEP);
    check_refused(text, DEEP, "not JSON");
    for (int i = 0; i + 5 <= DEEP; i += 5) memcpy(text + i, "{\"a\":", 5);
    check_refused(text, DEEP, "not JSON");
    free(text);
}

static void files_that_cannot_be_read_are_missing_input(void)
{
    em_config config = {0};
    uint32_t given = 0;
    em_status missing = {0}, folder = {0};
    CU_ASSERT_FALSE(em_config_read_json(scratch_path("none.json"), &config, &given, &missing));
    CU_ASSERT_EQUAL(missing.code, EM_NO_INPUT);
    CU_ASSERT(begins(&missing, scratch_path("none.json")));
    CU_ASSERT_FALSE(em_config_read_json(scratch_folder, &config, &given, &folder));
    CU_ASSERT_EQUAL(folder.code, EM_NO_INPUT);
    CU_ASSERT(begins(&folder, scratch_folder));
}

/* JSON knows no infinity, but 1e999 reads as one. */
static void an_infinite_real_does_not_become_a_model(void)
{
    em_config config = em_preset_find("tiny")->config;
    em_status status = {0};
    uint32_t given = 0;
    bool good = read_text("{\"rope_base\": 1e999}", &config, &given, &status) &&
                em_config_check(&config, "config.json", EM_BAD_DATA, &status);
    CU_ASSERT_FALSE(good);
    CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
    CU_ASSERT(contains(&status, "rope_base"));
}

/* ---- what is a model ---- */

/* Is the config refused, with a message that names the source and both words? */
static void check_no_model(const em_config *config, const char *word, const char *other)
{
    static const int codes[] = {EM_USAGE, EM_BAD_DATA};
    for (int i = 0; i < 2; i++) {
        em_status status = {0};
        CU_ASSERT_FALSE(em_config_check(config, "the source", codes[i], &status));
        CU_ASSERT_EQUAL(status.code, codes[i]);
        CU_ASSERT(begins(&status, "the source: "));
        CU_ASSERT(contains(&status, word));
        CU_ASSERT(contains(&status, other));
    }
}

static void check_model(const em_config *config)
{
    em_status status = {0};
    CU_ASSERT(em_config_check(config, "the source", EM_USAGE, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
}

static void presets_are_models(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) check_model(&em_presets[i].config);
    for (int i = 0; i < 100; i++) {
        em_config config = draw_config();
        check_model(&config);
    }
}

static void counts_are_at_least_one(void)
{
    static const int64_t bad[] = {0, -1, INT64_MIN, INT64_C(1) << 31, INT64_MAX};
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        for (size_t i = 0; em_config_fields[f].type == EM_FIELD_INTEGER && i < sizeof bad / sizeof *bad; i++) {
            em_config config = em_preset_find("tiny")->config;
            char number[32];
            *em_config_integer(&config, &em_config_fields[f]) = bad[i];
            snprintf(number, sizeof number, "%lld", (long long)bad[i]);
            check_no_model(&config, em_config_fields[f].name, number);
        }
}

static void reals_are_finite_and_above_zero(void)
{
    static const double bad[] = {0, -0.0, -1, NAN, INFINITY, -INFINITY, 1e39, 1e-60}; /* as float32, too */
    for (int f = 0; f < EM_NUM_CONFIG_FIELDS; f++)
        for (size_t i = 0; em_config_fields[f].type == EM_FIELD_REAL && i < sizeof bad / sizeof *bad; i++) {
            em_config config = em_preset_find("tiny")->config;
            *em_config_real(&config, &em_config_fields[f]) = bad[i];
            check_no_model(&config, em_config_fields[f].name, "above 0");
        }
}

static void fields_fit_each_other(void)
{
    em_config c = em_preset_find("tiny")->config;
    c.num_q_heads = 7;
    check_no_model(&c, "num_q_heads is 7", "num_kv_heads, 2");
    c.num_q_heads = 2, c.num_kv_heads = 6;
    check_no_model(&c, "num_q_heads is 2", "num_kv_heads, 6");
    c.num_q_heads = 6;
    check_model(&c);
    c.key_size = 15;
    check_no_model(&c, "key_size is 15", "even");
    c.key_size = 2, c.num_selected_experts = 9;
    check_no_model(&c, "num_selected_experts is 9", "8 experts");
    c.num_selected_experts = 8;
    check_model(&c);
}

/* A layer's name in a file has three digits. */
static void layers_have_names(void)
{
    em_config c = em_preset_find("tiny")->config;
    c.num_layers = 1000;
    check_model(&c);
    c.num_layers = 1001;
    check_no_model(&c, "num_layers", "1001");
}

/* Either refused, or counted without overflow, and every row and column count an int, as MPI takes them. */
static void check_countable(const em_config *c)
{
    em_status status = {0};
    if (!em_config_check(c, "the source", EM_USAGE, &status)) return;
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++) {
        em_tensor_shape shape = em_tensor_shape_of(c, t);
        int64_t bytes = 4;
        bool fits = true;
        for (int i = 0; i < shape.rank; i++) fits &= !__builtin_mul_overflow(bytes, shape.dims[i], &bytes);
        CU_ASSERT(fits && !__builtin_mul_overflow(bytes, c->num_layers, &bytes));
        CU_ASSERT(shape.rows <= INT32_MAX && shape.cols <= INT32_MAX);
    }
}

static void what_passes_can_be_counted(void)
{
    em_config wide = em_preset_find("tiny")->config, heads = wide, experts = wide, long_heads = wide;
    wide.emb_size = wide.ffn_size = wide.num_experts = 1 << 30;
    heads.num_q_heads = heads.num_kv_heads = heads.key_size = 1 << 30;
    experts.num_experts = experts.ffn_size = 1 << 30;
    check_countable(&wide);
    check_countable(&heads);
    long_heads.emb_size = 1, long_heads.key_size = 1 << 30; /* few numbers, but more rows than an int counts */
    check_countable(&experts);
    check_countable(&long_heads);
    for (int i = 0; i < EM_NUM_PRESETS; i++) check_countable(&em_presets[i].config);
}

/* ---- tensors ---- */

/* The table of the weights file: a name and up to three axes, in the letters of the shapes. */
static const struct {
    em_tensor tensor;
    const char *path, *axes; /* path of layer 7; q: H * C, k: K * C */
    char kind;               /* g: glu only, m: mlp only, b: both */
    bool quantised;
} tensor_table[EM_NUM_TENSORS] = {
    {EM_EMBEDDING, "/embedding", "VD", 'b', true},
    {EM_FINAL_NORM, "/final_norm", "D", 'b', false},
    {EM_ATTN_NORM_PRE, "/layers/007/attn_norm_pre", "D", 'b', false},
    {EM_ATTN_NORM_POST, "/layers/007/attn_norm_post", "D", 'b', false},
    {EM_FFN_NORM_PRE, "/layers/007/ffn_norm_pre", "D", 'b', false},
    {EM_FFN_NORM_POST, "/layers/007/ffn_norm_post", "D", 'b', false},
    {EM_ATTN_QUERY, "/layers/007/attn_query", "qD", 'b', true},
    {EM_ATTN_KEY, "/layers/007/attn_key", "kD", 'b', true},
    {EM_ATTN_VALUE, "/layers/007/attn_value", "kD", 'b', true},
    {EM_ATTN_OUTPUT, "/layers/007/attn_output", "Dq", 'b', true},
    {EM_ROUTER, "/layers/007/router", "ED", 'b', false},
    {EM_FFN_GATE, "/layers/007/ffn_gate", "EFD", 'g', true},
    {EM_FFN_UP, "/layers/007/ffn_up", "EFD", 'b', true},
    {EM_FFN_DOWN, "/layers/007/ffn_down", "EDF", 'b', true},
    {EM_FFN_UP_BIAS, "/layers/007/ffn_up_bias", "EF", 'm', false},
    {EM_FFN_DOWN_BIAS, "/layers/007/ffn_down_bias", "ED", 'm', false},
};

static int64_t axis_length(const em_config *c, char axis)
{
    switch (axis) {
    case 'V': return c->vocab_size;
    case 'D': return c->emb_size;
    case 'E': return c->num_experts;
    case 'F': return c->ffn_size;
    case 'q': return c->num_q_heads * c->key_size;
    case 'k': return c->num_kv_heads * c->key_size;
    default: return -1;
    }
}

static void check_shapes(const em_config *c)
{
    int64_t all = 0;
    for (int i = 0; i < EM_NUM_TENSORS; i++) {
        em_tensor_shape shape = em_tensor_shape_of(c, tensor_table[i].tensor);
        const char *axes = tensor_table[i].axes;
        char kind = tensor_table[i].kind;
        bool present = kind == 'b' || (kind == 'g') == (c->ffn_kind == EM_FFN_GLU);
        int64_t layers = !present ? 0 : tensor_table[i].tensor < EM_FIRST_LAYER_TENSOR ? 1 : c->num_layers, count = 1;
        CU_ASSERT_EQUAL(shape.present, present);
        CU_ASSERT_EQUAL(shape.quantised, tensor_table[i].quantised);
        CU_ASSERT_EQUAL(shape.rank, (int)strlen(axes));
        for (int a = 0; axes[a]; a++) {
            CU_ASSERT_EQUAL(shape.dims[a], axis_length(c, axes[a]));
            count *= shape.dims[a];
        }
        CU_ASSERT_EQUAL(shape.experts * shape.rows * shape.cols, count);
        CU_ASSERT_EQUAL(shape.cols, shape.dims[shape.rank - 1]);
        CU_ASSERT_EQUAL(em_tensor_layers(c, tensor_table[i].tensor), layers);
        all += layers * count;
    }
    CU_ASSERT_EQUAL(all, em_model_size_of(c).parameters);
}

static void tensors_have_the_shapes_of_the_format(void)
{
    for (int i = 0; i < EM_NUM_PRESETS; i++) check_shapes(&em_presets[i].config);
    for (int i = 0; i < 100; i++) {
        em_config c = draw_config();
        check_shapes(&c);
    }
}

static void tensors_have_their_paths(void)
{
    em_tensor_path path;
    for (int i = 0; i < EM_NUM_TENSORS; i++) {
        CU_ASSERT_EQUAL(tensor_table[i].tensor, (em_tensor)i);
        CU_ASSERT_STRING_EQUAL(em_tensor_path_of(tensor_table[i].tensor, 7, path), tensor_table[i].path);
    }
    CU_ASSERT_STRING_EQUAL(em_tensor_path_of(EM_ROUTER, 0, path), "/layers/000/router");
    CU_ASSERT_STRING_EQUAL(em_tensor_path_of(EM_ROUTER, 999, path), "/layers/999/router");
}

static void storages_have_names_and_sizes(void)
{
    static const char *const names[] = {"f32", "bf16", "int8"};
    static const size_t bytes[] = {4, 2, 1};
    for (em_storage s = 0; s < EM_NUM_STORAGES; s++) {
        em_storage parsed = EM_NUM_STORAGES;
        CU_ASSERT_STRING_EQUAL(em_storage_name(s), names[s]);
        CU_ASSERT(em_storage_parse(names[s], &parsed));
        CU_ASSERT_EQUAL(parsed, s);
        CU_ASSERT_EQUAL(em_storage_bytes(s), bytes[s]);
        for (int i = 0; i < EM_NUM_TENSORS; i++) {
            em_tensor tensor = tensor_table[i].tensor;
            em_storage narrow = tensor == EM_EMBEDDING && s == EM_INT8 ? EM_BF16 : s;
            CU_ASSERT_EQUAL(em_tensor_storage(tensor, s), tensor_table[i].quantised ? narrow : EM_F32);
        }
    }
    em_storage none;
    CU_ASSERT_FALSE(em_storage_parse("", &none));
    CU_ASSERT_FALSE(em_storage_parse("F32", &none));
    CU_ASSERT_FALSE(em_storage_parse("int88", &none));
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"presets have their shapes", presets_have_their_shapes},
        {"presets have the scales of their widths", presets_have_the_scales_of_their_widths},
        {"parameters follow from the shape", parameters_follow_from_the_shape},
        {"the article counts neurons", the_article_counts_neurons},
        {"fields are set from text", fields_are_set_from_text},
        {"text that is no number is refused", text_that_is_no_number_is_refused},
        {"JSON goes out and comes back", json_goes_out_and_comes_back},
        {"JSON overlays what it names", json_overlays_what_it_names},
        {"an empty object sets nothing", an_empty_object_sets_nothing},
        {"long JSON is read whole", long_json_is_read_whole},
        {"bad JSON is refused", bad_json_is_refused},
        {"JSON with a NUL byte is refused", json_with_a_nul_byte_is_refused},
        {"deep nesting is refused", deep_nesting_is_refused},
        {"files that cannot be read are missing input", files_that_cannot_be_read_are_missing_input},
        {"an infinite real does not become a model", an_infinite_real_does_not_become_a_model},
        {"presets are models", presets_are_models},
        {"counts are at least one", counts_are_at_least_one},
        {"reals are finite and above zero", reals_are_finite_and_above_zero},
        {"fields fit each other", fields_fit_each_other},
        {"layers have names", layers_have_names},
        {"what passes can be counted", what_passes_can_be_counted},
        {"tensors have the shapes of the format", tensors_have_the_shapes_of_the_format},
        {"tensors have their paths", tensors_have_their_paths},
        {"storages have names and sizes", storages_have_names_and_sizes},
        {NULL, NULL},
    };
    int code = suite_main(argc, argv, "config", tests);
    scratch_remove();
    return code;
}
