/* Fuzzes one reader of foreign files (libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer): FUZZ names it. Whatever the bytes,
 * a reader ends with arrays that lie inside the file or with a message, and then even their numbers can be read. */
#include "import/convert.h"
#include "import/json.h"

#include <sanitizer/allocator_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes as a file that has a path. */
static int file_of(const uint8_t *data, size_t size, char path[40])
{
    int file = memfd_create("fuzz", 0);
    if (file < 0 || write(file, data, size) != (ssize_t)size) abort();
    snprintf(path, 40, "/proc/self/fd/%d", file);
    return file;
}

static void need(bool what, const char *text)
{
    if (what) return;
    fprintf(stderr, "fuzz: %s\n", text);
    abort();
}

/* ---- what is allocated: not more at once than a few times the file, and what any file may take ---- */

static size_t held, most_held;

static void hear_malloc(const volatile void *memory, size_t size)
{
    (void)memory;
    held += size;
    if (held > most_held) most_held = held;
}

static void hear_free(const volatile void *memory)
{
    size_t size = memory ? __sanitizer_get_allocated_size((const void *)memory) : 0;
    held -= size < held ? size : held; /* what is older than this input was not counted */
}

static void count_from_here(void)
{
    static bool hears;
    if (!hears)
        need(__sanitizer_install_malloc_and_free_hooks(hear_malloc, hear_free) > 0, "allocations are not heard of");
    hears = true;
    held = most_held = 0;
}

/* It failed with a message for the user, or it went well without one. */
static bool fair(bool good, const em_status *status)
{
    need(good == (status->code == EM_OK), "result and status do not agree");
    need(good || (status->text[0] && (status->code == EM_BAD_DATA || status->code == EM_NO_INPUT)), "no fair message");
    return good;
}

static void inside(const em_array *array, size_t size)
{
    int64_t bytes = em_array_bytes(array);
    need(array->offset >= 0 && bytes >= 0 && array->offset + bytes <= (int64_t)size, "an array lies outside the file");
}

#ifdef FUZZ_PICKLE
static void fuzz(const char *path, size_t size)
{
    em_input input;
    em_pickle pickle;
    em_status status = {0};
    if (!em_input_open(&input, path, &status)) return;
    if (fair(em_pickle_read(&input, &pickle, &status), &status))
        for (int i = 0; i < pickle.num_arrays; i++) inside(&pickle.array[i], size);
    em_input_close(&input);
}
#endif

#if defined FUZZ_SAFETENSORS || defined FUZZ_GGUF
/* A few rows of every tensor. */
static void convert(const em_foreign *foreign)
{
    em_config config = foreign->config;
    static int64_t layers[1000], experts[4] = {0, 1, 2, 3}; /* no model has more layers */
    em_status status = {0};
    for (int i = 0; i < 1000; i++) layers[i] = i;
    if (!fair(em_foreign_check(foreign, layers, config.num_layers, &status), &status)) return;
    if (config.num_layers > 4 || config.num_experts > 4) return;
    em_selection s = {.foreign = foreign, .layer = layers, .expert = experts};
    em_converter c = {.reader.foreign = foreign, .head.foreign = foreign};
    em_source_generate(&s.target, &config, 0, EM_F32);
    for (em_tensor t = 0; t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(&config, t); layer++) {
            em_import_block block = {.tensor = t, .layer = layer, .rows = {0, em_tensor_shape_of(&config, t).rows}};
            s.target.form[(int64_t)t * config.num_layers + layer] = em_import_form(&s, t, layer, NULL);
            status = (em_status){0};
            fair(em_convert_block(&c, &s, &block, &status), &status);
        }
    em_converter_free(&c);
    em_source_close(&s.target);
}

static void fuzz(const char *path, size_t size)
{
    em_foreign foreign = {.path = em_text("%s", path)};
    em_status status = {0};
#ifdef FUZZ_GGUF
    bool good = em_gguf_read(&foreign, path, &status);
#else
    bool good = em_safetensors_read(&foreign, path, &status);
#endif
    if (fair(good, &status)) {
        for (int64_t i = 0; i < foreign.num_arrays; i++) inside(&foreign.array[i], size);
        if (fair(em_foreign_settle(&foreign, &status), &status)) convert(&foreign);
    }
    em_foreign_close(&foreign);
}
#endif

#ifdef FUZZ_JSON
static void fuzz(const char *path, size_t size)
{
    char **shard;
    int count;
    em_foreign foreign = {.path = em_text("%s", path)};
    em_status status = {0};
    (void)size;
    fair(em_safetensors_index(path, &shard, &count, &status), &status);
    for (int i = 0; i < count; i++) {
        need(!strchr(shard[i], '/') && strcmp(shard[i], "..") != 0 && shard[i][0], "a shard leads out of the folder");
        free(shard[i]);
    }
    free(shard);
    status = (em_status){0};
    if (fair(em_config_json_read(&foreign, path, &status), &status))
        fair(em_foreign_settle(&foreign, &status), &status);
    em_foreign_close(&foreign);
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    int file = file_of(data, size, path);
    count_from_here();
    fuzz(path, size);
    need(most_held <= ((size_t)3 << 19) + 8 * size, "more is allocated than a file of this size has a use for");
    close(file);
    return 0;
}
