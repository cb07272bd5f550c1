/* What checkpoints stand on: keys and values come out of the cache as they went in; a seal sees every changed byte, on any
 * ranks; the sum of the weights is that of the model, whoever owns what; signals are noted; and what one rank is asked, all
 * do. */
#include "suite.h"

#include "expertmesh/keeper.h"
#include "expertmesh/seal.h"
#include "expertmesh/signals.h"
#include "scratch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static em_config odd_config(void)
{
    em_config config = em_preset_find("tiny")->config;
    config.num_q_heads = 6;
    config.num_kv_heads = 3;
    config.key_size = 10;
    config.num_experts = 3;
    return config;
}

/* The name of a file that all ranks share, of rank 0's folder. */
static const char *shared_path(const char *name)
{
    static char path[300];
    if (suite_rank() == 0) snprintf(path, sizeof path, "%s", scratch_path(name));
    MPI_Bcast(path, sizeof path, MPI_CHAR, 0, MPI_COMM_WORLD);
    return path;
}

/* ---- the cache ---- */

enum { N = 3 };
static const int64_t lengths[N] = {1, 40, 16};

static float number_at(int64_t layer, int64_t sequence, int64_t head, int64_t position, int64_t c)
{
    return (float)((((layer * N + sequence) * 8 + head) * 64 + position) * 16 + c);
}

/* Every position of every sequence by em_cache_put, one step each. Values are keys below 0. */
static void fill(em_cache *cache, const em_config *config, em_units heads)
{
    int64_t C = config->key_size, width = heads.count * C;
    float *k = em_alloc(width, sizeof *k), *v = em_alloc(width, sizeof *v);
    for (int64_t layer = 0; layer < config->num_layers; layer++)
        for (int64_t s = 0; s < N; s++)
            for (int64_t p = 0; p < lengths[s]; p++) {
                em_batch step = {0};
                em_batch_add_next(&step, 0, (int32_t)s, (int32_t)p);
                for (int64_t i = 0; i < width; i++) {
                    k[i] = number_at(layer, s, heads.unit[i / C], p, i % C);
                    v[i] = -1 - k[i];
                }
                em_cache_put(cache, layer, &step, k, v);
                em_batch_free(&step);
            }
    free(k);
    free(v);
}

/* One head of one sequence: out of one cache, looked at, into the other, which then holds the same panels. */
static int64_t carry(const em_cache *from, em_cache *to, int64_t layer, int64_t s, int64_t place, int64_t head)
{
    int64_t C = from->key_size, wrong = 0, room = em_cache_room(from, s);
    float *k = em_alloc(lengths[s] * C, sizeof *k), *v = em_alloc(lengths[s] * C, sizeof *v);
    em_cache_get(from, layer, s, place, lengths[s], k, v);
    for (int64_t i = 0; i < lengths[s] * C; i++)
        wrong += k[i] != number_at(layer, s, head, i / C, i % C) || v[i] != -1 - k[i];
    em_cache_set(to, layer, s, place, lengths[s], k, v);
    wrong += memcmp(em_cache_keys(from, layer, s, place), em_cache_keys(to, layer, s, place),
                    (size_t)(room * C) * sizeof(float)) != 0;
    wrong += memcmp(em_cache_values(from, layer, s, place), em_cache_values(to, layer, s, place),
                    (size_t)(from->value_panels * room * EM_PANEL) * sizeof(float)) != 0;
    free(k);
    free(v);
    return wrong;
}

static void test_cache(void)
{
    em_config config = odd_config();
    em_layout layout = em_layout_make(&config, suite_size());
    em_units heads = em_layout_kv_heads(&layout, suite_rank());
    em_cache from, to;
    int64_t wrong = 0;
    em_cache_open(&from, &config, &layout, suite_rank(), N, lengths, true);
    em_cache_open(&to, &config, &layout, suite_rank(), N, lengths, true);
    fill(&from, &config, heads);
    for (int64_t layer = 0; layer < config.num_layers; layer++)
        for (int64_t s = 0; s < N; s++)
            for (int64_t i = 0; i < heads.count; i++) wrong += carry(&from, &to, layer, s, i, heads.unit[i]);
    CU_ASSERT_EQUAL(wrong, 0);
    em_cache_close(&from);
    em_cache_close(&to);
    em_layout_free(&layout);
}

/* ---- seals ---- */

/* Rank 0 writes a file of so many bytes. */
static void write_file(const char *path, int64_t bytes)
{
    if (suite_rank() == 0) {
        unsigned char *data = em_alloc(bytes, 1);
        for (int64_t i = 0; i < bytes; i++) data[i] = (unsigned char)(i * 31 + i / 977);
        FILE *file = fopen(path, "wb");
        CU_ASSERT(file && fwrite(data, 1, (size_t)bytes, file) == (size_t)bytes);
        if (file) fclose(file);
        free(data);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static int code_of(MPI_Comm comm, const char *path)
{
    em_status status = {0};
    MPI_Barrier(MPI_COMM_WORLD);
    em_seal_check(comm, path, &status);
    return status.code;
}

/* Rank 0 turns one bit. */
static void turn_bit(const char *path, int64_t at)
{
    MPI_Barrier(MPI_COMM_WORLD);
    FILE *file = suite_rank() == 0 ? fopen(path, "r+b") : NULL;
    if (file) {
        fseek(file, at, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, at, SEEK_SET);
        fputc(byte ^ 1 << at % 8, file);
        fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void test_seals(void)
{
    static const int64_t sizes[] = {1, 4096, (1 << 22) - 1, (1 << 22) * 3, (1 << 22) * 5 + 12345};
    for (int i = 0; i < 5; i++) {
        const char *path = shared_path("sealed");
        em_status status = {0};
        write_file(path, sizes[i]);
        CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_BAD_DATA);
        CU_ASSERT(em_seal_put(MPI_COMM_WORLD, path, &status));
        CU_ASSERT_STRING_EQUAL(status.text, "");
        CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_OK);
        CU_ASSERT_EQUAL(code_of(MPI_COMM_SELF, path), EM_OK); /* sealed by several, checked by one */
        int64_t all = sizes[i] + 16;
        for (int64_t at = 0; at < all; at += all / 9 + 1) {
            turn_bit(path, at);
            CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_BAD_DATA);
            turn_bit(path, at);
        }
        turn_bit(path, all - 1);
        CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_BAD_DATA);
        turn_bit(path, all - 1);
        CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_OK);
        for (int64_t cut = 1; cut < all; cut = cut * 7 + 1) {
            if (suite_rank() == 0) CU_ASSERT_EQUAL(truncate(path, all - cut), 0);
            CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_BAD_DATA);
        }
    }
    CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, "/nowhere/at/all"), EM_NO_INPUT);
}

/* Two pieces that change places. */
static void test_pieces_in_order(void)
{
    enum { PIECE = 1 << 22 };
    const char *path = shared_path("ordered");
    em_status status = {0};
    write_file(path, 3 * PIECE);
    CU_ASSERT(em_seal_put(MPI_COMM_WORLD, path, &status));
    FILE *file = suite_rank() == 0 ? fopen(path, "r+b") : NULL;
    if (file) {
        char *data = em_alloc(2 * PIECE, 1);
        CU_ASSERT_EQUAL(fread(data, 1, 2 * PIECE, file), 2 * PIECE);
        rewind(file);
        CU_ASSERT_EQUAL(fwrite(data + PIECE, 1, PIECE, file) + fwrite(data, 1, PIECE, file), 2 * PIECE);
        fclose(file);
        free(data);
    }
    CU_ASSERT_EQUAL(code_of(MPI_COMM_WORLD, path), EM_BAD_DATA);
}

/* ---- the weights ---- */

/* The sum over the ranks of comm; bit: of the first number of rank 0's first block of this tensor, -1: none is turned. */
static uint64_t sum_of(MPI_Comm comm, const em_source *source, em_tensor tensor, int bit)
{
    int rank, ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    em_weights weights;
    em_status status = {0};
    em_layout layout = em_layout_make(&source->config, ranks);
    CU_ASSERT(em_weights_load(&weights, source, &layout, rank, NULL, NULL, &status));
    for (int64_t place = 0; bit >= 0 && rank == 0 && place < weights.places[tensor]; place++) {
        char *data = em_weights_of(&weights, tensor, 0)[place].data;
        if (!data) continue;
        data[bit / 8] ^= (char)(1 << bit % 8);
        break;
    }
    uint64_t sum = em_weights_sum(&weights, &source->config, &layout, rank);
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_UINT64_T, MPI_SUM, comm);
    em_weights_free(&weights);
    em_layout_free(&layout);
    return sum;
}

static void test_weights_sum(void)
{
    em_config config = odd_config();
    for (em_storage storage = 0; storage < EM_NUM_STORAGES; storage++)
        for (int kind = 0; kind < 2; kind++) {
            em_source source, other;
            config.ffn_kind = (em_ffn_kind)kind;
            em_source_generate(&source, &config, 7, storage);
            em_source_generate(&other, &config, 8, storage);
            uint64_t sum = sum_of(MPI_COMM_WORLD, &source, 0, -1);
            CU_ASSERT_EQUAL(sum, sum_of(MPI_COMM_SELF, &source, 0, -1));
            CU_ASSERT_NOT_EQUAL(sum, sum_of(MPI_COMM_WORLD, &other, 0, -1));
            for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
                if (em_tensor_layers(&config, t) > 0) {
                    CU_ASSERT_NOT_EQUAL(sum, sum_of(MPI_COMM_SELF, &source, t, t % 8));
                }
            em_source_close(&source);
            em_source_close(&other);
        }
}

/* ---- what is asked ---- */

static void test_signals(void)
{
    em_signals_catch();
    CU_ASSERT_EQUAL(em_signals_take(), 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    CU_ASSERT_EQUAL(em_signals_take(), EM_ASKED_SAVE);
    CU_ASSERT_EQUAL(em_signals_take(), 0);
    raise(SIGTERM);
    raise(SIGUSR1);
    CU_ASSERT_EQUAL(em_signals_take(), EM_ASKED_SAVE | EM_ASKED_STOP);
    raise(SIGUSR2);
    CU_ASSERT_EQUAL(em_signals_take(), EM_ASKED_STOP);
}

/* A run of a small model that is stopped by a signal to one rank: the tokens before it, and where the last was. */
typedef struct listening {
    int64_t heard;
    int victim, at; /* the rank that gets the signal when so many tokens are heard */
    int32_t token[64];
} listening;

static void hear(void *context, int64_t sequence, int64_t position, int32_t token)
{
    listening *l = context;
    (void)sequence;
    (void)position;
    l->token[l->heard++] = token;
    if (l->heard == l->at && l->victim == suite_rank()) raise(SIGUSR2);
}

/* One run, kept as `keeping` says, which learns what came of it. Returns the tokens that were run. */
static int64_t run_kept(em_keeping *keeping, listening *l)
{
    em_config config = odd_config();
    em_batch prompts = {0};
    em_generation generation = {.count = 12, .stop_token = -1};
    em_source source;
    em_model model;
    em_profile profile;
    em_outcome after = {0};
    em_status status = {0};
    int64_t rows = 0;
    em_batch_add_tokens(&prompts, "3 1 4 1 5", "here", EM_USAGE, &status);
    em_source_generate(&source, &config, 7, EM_F32);
    em_layout layout = em_layout_make(&config, suite_size());
    em_extent extent = em_generation_extent(&prompts, &generation);
    CU_ASSERT(em_model_open(&model, MPI_COMM_WORLD, &source, &layout, extent, (em_manner){.threads = 1}, NULL, NULL,
                            &status));
    em_profile_open(&profile, config.num_layers, config.num_experts, model.num_ranks);
    em_errand errand = {.model = &model, .prompts = &prompts, .generation = &generation, .command_line = "test"};
    keeping->errand = &errand;
    em_keeper keeper = em_keeper_of(keeping);
    em_listener listener = {.token = hear, .token_context = l, .keeper = keeping->path ? &keeper : NULL};
    CU_ASSERT(em_generate(&model, &prompts, &generation, NULL, &profile, &listener, &after, &rows, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    em_outcome_free(&after);
    em_profile_close(&profile);
    em_model_close(&model);
    em_layout_free(&layout);
    em_source_close(&source);
    em_batch_free(&prompts);
    return rows;
}

/* from: NULL, or the checkpoint to go on from. */
static int64_t run(const em_checkpoint *from, const char *path, listening *l, bool *stopped)
{
    em_keeping keeping = {.path = path, .from = from};
    int64_t rows = run_kept(&keeping, l);
    *stopped = keeping.stopped;
    return rows;
}

/* Of an hour so many seconds are left; what steps and checkpoints took so far, in seconds. How many tokens are run then, of
 * the 16 of the run? 5 in the first step. */
static int64_t rows_with(double left, double step, double save)
{
    listening l = {.victim = -1};
    em_keeping keeping = {.path = shared_path("late.h5"),
                          .most_seconds = 3600,
                          .start = MPI_Wtime() - 3600 + left,
                          .longest_step = step,
                          .longest_save = save};
    int64_t rows = run_kept(&keeping, &l);
    CU_ASSERT_EQUAL(keeping.stopped, rows < 16);
    return rows;
}

/* A run stops while there is time for a step and a half, two checkpoints, and 30 s: numbers that no machine makes unsure. */
static void test_time_is_kept(void)
{
    CU_ASSERT_EQUAL(rows_with(3500, 1, 1), 16);
    CU_ASSERT_EQUAL(rows_with(500, 100, 60), 16);   /* 150 + 120 + 30 */
    CU_ASSERT_EQUAL(rows_with(250, 100, 60), 5);    /* after one step, which is always taken */
    CU_ASSERT_EQUAL(rows_with(500, 280, 60), 5);    /* long steps: 420 + 120 + 30 */
    CU_ASSERT_EQUAL(rows_with(500, 100, 200), 5);   /* long checkpoints: 150 + 400 + 30 */
    CU_ASSERT_EQUAL(rows_with(10, 0.001, 1e-9), 5); /* less than the 30 s */
    CU_ASSERT_EQUAL(rows_with(-1000, 0.001, 1e-9), 5);
}

static void test_one_rank_is_asked(void)
{
    listening whole = {.victim = -1}, first = {.victim = suite_size() - 1, .at = 5}, rest = {.victim = -1};
    bool stopped;
    em_status status = {0};
    const char *path = shared_path("c.h5");
    CU_ASSERT_EQUAL(run(NULL, NULL, &whole, &stopped), 5 + 11);
    em_signals_catch();
    CU_ASSERT_EQUAL(run(NULL, path, &first, &stopped), 5 + 4);
    CU_ASSERT(stopped && first.heard == 5);
    em_checkpoint *from = em_checkpoint_open(MPI_COMM_WORLD, path, &status);
    CU_ASSERT_STRING_EQUAL(status.text, "");
    if (!from) return; /* on all ranks */
    CU_ASSERT(from->rows == 9 && from->count == 12 && from->num_ranks == suite_size());
    CU_ASSERT(from->prompts.num_tokens == 5 && from->prompts.token_id[2] == 4 && from->trace_id == 0);
    CU_ASSERT_EQUAL(run(from, path, &rest, &stopped), 5 + 11);
    CU_ASSERT(!stopped && rest.heard == whole.heard);
    CU_ASSERT_EQUAL(memcmp(rest.token, whole.token, sizeof whole.token), 0);
    em_checkpoint_close(from);
}

int main(int argc, char **argv)
{
    const suite_test tests[] = {{"cache", test_cache},
                                {"seals", test_seals},
                                {"pieces in order", test_pieces_in_order},
                                {"sum of the weights", test_weights_sum},
                                {"signals", test_signals},
                                {"time is kept", test_time_is_kept},
                                {"one rank is asked", test_one_rank_is_asked},
                                {NULL, NULL}};
    int code = suite_main(argc, argv, "checkpoint", tests);
    scratch_remove();
    return code;
}
