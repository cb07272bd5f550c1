/* Readers of foreign files: the pickles of the official checkpoint, as Python writes them and as large as they were published;
 * names; half precision. What the program makes of whole checkpoints is in import.sh. */
#include "pickles.h"
#include "scratch.h"
#include "suite.h"

#include "import/foreign.h"
#include "import/official.h"
#include "import/rows.h"

#include <math.h>
#include <unistd.h>

#ifndef PICKLES
#define PICKLES "pickles"
#define CORPUS  "fuzz/corpus"
#endif

static char *read_whole(const char *path, long *length)
{
    FILE *file = fopen(path, "rb");
    *length = -1;
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *length = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)*length + 1);
    if (fread(bytes, 1, (size_t)*length, file) != (size_t)*length) *length = -1;
    fclose(file);
    return bytes;
}

/* Do two files hold the same? */
static int same_files(const char *a, const char *b)
{
    long x, y;
    char *first = read_whole(a, &x), *second = read_whole(b, &y);
    int same = x >= 0 && x == y && memcmp(first, second, (size_t)x) == 0;
    free(first);
    free(second);
    return same;
}

/* The writer of these tests is as good as Python's. */
static void we_write_what_python_writes(void)
{
    unsigned char count[256];
    for (int i = 0; i < 256; i++) count[i] = (unsigned char)(i % 251);
    pickled_array norm = {PICKLED_F4, 1, {7}, count}, embedding = {PICKLED_F4, 2, {5, 3}, count};
    pickled_array weight = {PICKLED_I1, 3, {2, 3, 5}, count}, scales = {PICKLED_BF16, 3, {2, 1, 5}, count};
    pickled_array large = {PICKLED_I1, 2, {257, 300}, NULL}, large_scales = {PICKLED_BF16, 2, {1, 300}, NULL};
    pickled_array larger = {PICKLED_I1, 3, {2, 130, 300}, NULL}, larger_scales = {PICKLED_BF16, 3, {2, 65, 300}, NULL};
    const char *path = scratch_path("written.pickle");
    pickle_write(path, &norm, NULL);
    CU_ASSERT(same_files(path, PICKLES "/norm.pickle"));
    pickle_write(path, &embedding, NULL);
    CU_ASSERT(same_files(path, PICKLES "/embedding.pickle"));
    pickle_write(path, &weight, &scales);
    CU_ASSERT(same_files(path, PICKLES "/pair.pickle"));
    pickle_write(path, &large, &large_scales);
    CU_ASSERT(same_files(path, PICKLES "/large.pickle"));
    pickle_write(path, &larger, &larger_scales);
    CU_ASSERT(same_files(path, PICKLES "/larger.pickle"));
}

static int read_pickle(const char *path, em_pickle *pickle, em_status *status)
{
    em_input input;
    *status = (em_status){0};
    if (!em_input_open(&input, path, status)) return 0;
    int good = em_pickle_read(&input, pickle, status);
    em_input_close(&input);
    return good;
}

/* What Python wrote, read in place. */
static void pickles_are_read(void)
{
    em_pickle pickle;
    em_status status;
    em_input input;
    unsigned char byte;
    CU_ASSERT(read_pickle(PICKLES "/pair.pickle", &pickle, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    CU_ASSERT_EQUAL(pickle.num_arrays, 2);
    CU_ASSERT_EQUAL(pickle.array[0].number, EM_NUMBER_INT8);
    CU_ASSERT_EQUAL(pickle.array[0].rank, 3);
    CU_ASSERT(pickle.array[0].dims[0] == 2 && pickle.array[0].dims[1] == 3 && pickle.array[0].dims[2] == 5);
    CU_ASSERT_EQUAL(pickle.array[1].number, EM_NUMBER_BF16);
    CU_ASSERT(pickle.array[1].dims[0] == 2 && pickle.array[1].dims[1] == 1 && pickle.array[1].dims[2] == 5);
    CU_ASSERT(em_input_open(&input, PICKLES "/pair.pickle", &status));
    for (int i = 0; i < 30; i++) {
        CU_ASSERT(em_input_read(&input, pickle.array[0].offset + i, 1, &byte, &status));
        CU_ASSERT_EQUAL(byte, i);
    }
    for (int i = 0; i < 20; i++) {
        CU_ASSERT(em_input_read(&input, pickle.array[1].offset + i, 1, &byte, &status));
        CU_ASSERT_EQUAL(byte, i);
    }
    em_input_close(&input);
    CU_ASSERT(read_pickle(PICKLES "/norm.pickle", &pickle, &status));
    CU_ASSERT(pickle.num_arrays == 1 && pickle.array[0].number == EM_NUMBER_F32 && pickle.array[0].dims[0] == 7);
}

/* Bytes behind BINBYTES and behind BINBYTES8; bfloat16 of jax and of ml_dtypes (tests/fuzz/corpus.py). */
static void either_opcode_has_bytes(void)
{
    static const char *const paths[] = {CORPUS "/pickle/binbytes.pickle", CORPUS "/pickle/binbytes8.pickle"};
    for (int i = 0; i < 2; i++) {
        em_pickle pickle;
        em_status status;
        CU_ASSERT(read_pickle(paths[i], &pickle, &status));
        CU_ASSERT_STRING_EQUAL(status.text, "");
        CU_ASSERT(pickle.num_arrays == 2 && pickle.array[1].number == EM_NUMBER_BF16);
        CU_ASSERT(pickle.array[0].dims[0] == 2 && pickle.array[0].dims[1] == 3 && pickle.array[1].dims[0] == 1);
    }
}

/* A pickle cut off anywhere, or with any byte changed to any of a few others, is read or refused; nothing else happens. */
static void damaged_pickles_are_refused(void)
{
    long length;
    char *bytes = read_whole(PICKLES "/pair.pickle", &length);
    em_pickle pickle;
    em_status status;
    for (long cut = 0; cut < length; cut++) {
        const char *path = scratch_write("cut.pickle", bytes, (size_t)cut);
        CU_ASSERT_FALSE(read_pickle(path, &pickle, &status));
        CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
    }
    for (long at = 0; at < length; at++)
        for (int to = 0; to < 256; to += 15) {
            char was = bytes[at];
            bytes[at] = (char)to;
            const char *path = scratch_write("changed.pickle", bytes, (size_t)length);
            if (!read_pickle(path, &pickle, &status)) CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
            bytes[at] = was;
        }
    free(bytes);
}

/* The files as published: of the slots 0 to 6 of a layer, written here as holes. Sizes in bytes, as listed at
 * huggingface.co/xai-org/grok-1. */
static void official_sizes_reconcile(void)
{
    static const struct {
        pickled_array weight, scales;
        long size;
    } files[] = {
        {{PICKLED_I1, 3, {8, 6144, 32768}, NULL}, {PICKLED_BF16, 3, {8, 1, 32768}, NULL}, 1611137347},
        {{PICKLED_I1, 3, {8, 32768, 6144}, NULL}, {PICKLED_BF16, 3, {8, 8, 6144}, NULL}, 1611399491},
        {{PICKLED_I1, 2, {6144, 1024}, NULL}, {PICKLED_BF16, 2, {1, 1024}, NULL}, 6293814},
        {{PICKLED_I1, 2, {6144, 6144}, NULL}, {PICKLED_BF16, 2, {8, 6144}, NULL}, 37847359},
        {{PICKLED_I1, 2, {6144, 6144}, NULL}, {PICKLED_BF16, 2, {1, 6144}, NULL}, 37761334},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = scratch_path("official");
        em_pickle pickle;
        em_status status;
        em_input input;
        pickle_write(path, &files[i].weight, &files[i].scales);
        CU_ASSERT(em_input_open(&input, path, &(em_status){0}));
        CU_ASSERT_EQUAL(input.size, files[i].size);
        em_input_close(&input);
        CU_ASSERT(read_pickle(path, &pickle, &status));
        CU_ASSERT_STRING_EQUAL(status.text, "");
        int64_t framing = files[i].size - em_array_bytes(&pickle.array[0]) - em_array_bytes(&pickle.array[1]);
        CU_ASSERT_EQUAL(em_array_bytes(&pickle.array[0]), pickled_bytes(&files[i].weight));
        CU_ASSERT_EQUAL(em_array_bytes(&pickle.array[1]), pickled_bytes(&files[i].scales));
        CU_ASSERT(framing > 300 && framing < 330);
        CU_ASSERT(pickle.array[0].offset + em_array_bytes(&pickle.array[0]) < pickle.array[1].offset);
        unlink(path);
    }
}

/* 770 files: each number is one tensor of one layer; the layers follow each other as words do. */
static void files_are_tensors(void)
{
    int order[64], seen[64] = {0};
    em_official_order(64, order);
    CU_ASSERT(order[0] == 0 && order[1] == 1 && order[2] == 10 && order[11] == 19 && order[12] == 2 && order[63] == 9);
    for (int i = 0; i < 64; i++) seen[order[i]]++;
    for (int i = 0; i < 64; i++) CU_ASSERT_EQUAL(seen[i], 1);
    em_place place = em_official_place(0, order);
    CU_ASSERT(place.role == EM_ROLE_DATA && place.tensor == EM_EMBEDDING);
    place = em_official_place(1, order);
    CU_ASSERT_EQUAL(place.tensor, EM_FINAL_NORM);
    place = em_official_place(2 + 12 * 12 + 1, order);
    CU_ASSERT(place.tensor == EM_FFN_DOWN && place.layer == 2);
    place = em_official_place(769, order);
    CU_ASSERT(place.tensor == EM_ROUTER && place.layer == 9);
}

/* The name of a place stands for that place, in every naming; what is nearly a name stands for nothing. */
static void names_lead_back(void)
{
    for (em_naming naming = EM_NAMING_TRANSFORMER; naming <= EM_NAMING_GGUF; naming++)
        for (em_tensor t = 0; t < EM_FFN_UP_BIAS; t++) {
            em_place place = {.role = EM_ROLE_DATA, .tensor = t, .expert = EM_ALL_EXPERTS};
            if (t >= EM_FIRST_LAYER_TENSOR) place.layer = 17;
            if (t >= EM_FFN_GATE && naming != EM_NAMING_GGUF) place.expert = 3;
            em_name name;
            em_place back = em_name_place(em_place_name(naming, &place, name));
            CU_ASSERT(back.role == place.role && back.tensor == t && back.layer == place.layer &&
                      back.expert == place.expert);
        }
    static const char *const not_names[] = {"",
                                            "transformer",
                                            "transformer.in_out_embed.weight2",
                                            "transformer.decoder_layer.-1.rms_norm.weight",
                                            "transformer.decoder_layer.01.rms_norm.weight",
                                            "transformer.decoder_layer..rms_norm.weight",
                                            "transformer.decoder_layer.99999999999999999999.rms_norm.weight",
                                            "blk.0.ffn_gate.weight",
                                            "model.layers.0.attn.q_proj.bias"};
    for (size_t i = 0; i < sizeof not_names / sizeof *not_names; i++)
        CU_ASSERT_EQUAL(em_name_place(not_names[i]).role, EM_ROLE_UNKNOWN);
}

/* Of all 65,536 halves: the value by its definition, and back. Between two neighbours: the nearer, and of equals the even. */
static void halves_are_exact(void)
{
    for (int bits = 0; bits < 65536; bits++) {
        int exponent = bits >> 10 & 31, fraction = bits & 1023;
        double value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        float half = em_f16_to_f32((uint16_t)bits);
        if (exponent == 31) {
            CU_ASSERT(fraction ? isnan(half) : isinf(half));
            continue;
        }
        if ((double)half != (bits & 0x8000 ? -value : value)) CU_FAIL("a half has another value");
        if (em_f32_to_f16(half) != bits) CU_FAIL("a half does not come back");
        if ((bits & 0x7fff) == 0x7bff) continue;
        float next = em_f16_to_f32((uint16_t)(bits + 1)), between = (half + next) / 2;
        int even = bits & 1 ? bits + 1 : bits;
        if (em_f32_to_f16(between) != even) CU_FAIL("a tie does not go to the even half");
        if (em_f32_to_f16(nextafterf(between, half)) != bits) CU_FAIL("not to the nearer half");
        if (em_f32_to_f16(nextafterf(between, next)) != bits + 1) CU_FAIL("not to the nearer half");
    }
    CU_ASSERT_EQUAL(em_f32_to_f16(65519.996F), 0x7bff);
    CU_ASSERT_EQUAL(em_f32_to_f16(65520), 0x7c00);
    CU_ASSERT_EQUAL(em_f32_to_f16(-INFINITY), 0xfc00);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"we write what Python writes", we_write_what_python_writes},
        {"pickles are read", pickles_are_read},
        {"either opcode has bytes", either_opcode_has_bytes},
        {"damaged pickles are refused", damaged_pickles_are_refused},
        {"official sizes reconcile", official_sizes_reconcile},
        {"files are tensors", files_are_tensors},
        {"names lead back", names_lead_back},
        {"halves are exact", halves_are_exact},
        {NULL, NULL},
    };
    int code = suite_main(argc, argv, "foreign", tests);
    scratch_remove();
    return code;
}
