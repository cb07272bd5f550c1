/* The official checkpoint: a folder of files tensorNNNNN_000, each one pickle. 0 is the embedding, 1 the last norm; then 12 for
 * each layer, the layers in the order of their numbers as words (0, 1, 10, 11, ..., 19, 2, 20, ...). Matrices are stored
 * [inputs, outputs], those of experts [experts, inputs, outputs]; scales [..., groups of inputs, outputs].
 * https://github.com/xai-org/grok-1, checkpoint.py and model.py */
#include "official.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 1000 };

static const em_tensor slots[EM_OFFICIAL_SLOTS] = {
    EM_FFN_GATE,   EM_FFN_DOWN,      EM_FFN_UP,         EM_ATTN_KEY,     EM_ATTN_OUTPUT,   EM_ATTN_QUERY,
    EM_ATTN_VALUE, EM_ATTN_NORM_PRE, EM_ATTN_NORM_POST, EM_FFN_NORM_PRE, EM_FFN_NORM_POST, EM_ROUTER,
};

/* The number of a file of this name: -1 for another name, -2 for one of a checkpoint that is divided further. */
static int64_t number_of(const char *name)
{
    char digits[] = "0123456789";
    if (strncmp(name, "tensor", 6) != 0 || strspn(name + 6, digits) != 5 || name[11] != '_') return -1;
    if (strspn(name + 12, digits) != 3 || name[15] != '\0') return -1;
    return strcmp(name + 12, "000") == 0 ? strtoll(name + 6, NULL, 10) : -2;
}

bool em_official_is(const char *folder)
{
    DIR *list = opendir(folder);
    bool found = false;
    for (const struct dirent *entry; list && !found && (entry = readdir(list));) found = number_of(entry->d_name) != -1;
    if (list) closedir(list);
    return found;
}

static int as_words(const void *a, const void *b)
{
    char x[8], y[8];
    snprintf(x, sizeof x, "%d", *(const int *)a);
    snprintf(y, sizeof y, "%d", *(const int *)b);
    return strcmp(x, y);
}

void em_official_order(int64_t num_layers, int *layer)
{
    for (int i = 0; i < num_layers; i++) layer[i] = i;
    qsort(layer, (size_t)num_layers, sizeof *layer, as_words);
}

static bool is_matrix(em_tensor tensor)
{
    return tensor >= EM_ATTN_QUERY && tensor <= EM_FFN_DOWN;
}

em_place em_official_place(int64_t number, const int *layer)
{
    em_place place = {.role = EM_ROLE_DATA, .expert = EM_ALL_EXPERTS};
    if (number < EM_OFFICIAL_FIRST) {
        place.tensor = number == 0 ? EM_EMBEDDING : EM_FINAL_NORM;
    } else {
        place.tensor = slots[(number - EM_OFFICIAL_FIRST) % EM_OFFICIAL_SLOTS];
        place.layer = layer[(number - EM_OFFICIAL_FIRST) / EM_OFFICIAL_SLOTS];
    }
    return place;
}

/* One file: its array, or its pair, at their places. */
static bool read_tensor(em_foreign *foreign, const char *path, em_place place, em_status *status)
{
    em_input input;
    em_pickle pickle;
    if (!em_input_open(&input, path, status)) return false;
    bool good = em_pickle_read(&input, &pickle, status);
    int number = good ? em_foreign_add_input(foreign, &input) : -1;
    const char *name = strrchr(path, '/') + 1;
    for (int i = 0; good && i < pickle.num_arrays; i++) {
        char label[40];
        int length = snprintf(label, sizeof label, "%s%s", name, i == 0 ? "" : " (scales)");
        pickle.array[i].input = number;
        pickle.array[i].place = place;
        pickle.array[i].place.role = i == 0 ? EM_ROLE_DATA : EM_ROLE_SCALE;
        pickle.array[i].transposed = is_matrix(place.tensor);
        good = em_foreign_add(foreign, &input, &pickle.array[i], label, (size_t)length, status);
    }
    em_input_close(&input);
    return good;
}

/* Which numbers there are, and the largest; -1: none. */
static int64_t list_files(const char *folder, bool *there, em_status *status)
{
    enum { MOST = EM_OFFICIAL_FIRST + EM_OFFICIAL_SLOTS * MOST_LAYERS };
    int64_t largest = -1;
    DIR *list = opendir(folder);
    if (!list) em_fail(status, EM_NO_INPUT, "%s: %s", folder, strerror(errno));
    for (const struct dirent *entry; list && (entry = readdir(list));) {
        int64_t number = number_of(entry->d_name);
        if (number == -1) continue;
        if (number < 0 || number >= MOST) {
            em_fail(status, EM_BAD_DATA, "%s/%s: is no part of a checkpoint of tensor00000_000 and so on, undivided",
                    folder, entry->d_name);
            continue;
        }
        there[number] = true;
        if (number > largest) largest = number;
    }
    if (list) closedir(list);
    return largest;
}

bool em_official_read(em_foreign *foreign, const char *folder, em_status *status)
{
    bool *there = em_zeroed(EM_OFFICIAL_FIRST + EM_OFFICIAL_SLOTS * MOST_LAYERS, sizeof *there);
    int64_t largest = list_files(folder, there, status), layers = 0;
    if (largest >= EM_OFFICIAL_FIRST) layers = (largest - EM_OFFICIAL_FIRST) / EM_OFFICIAL_SLOTS + 1;
    em_foreign_tell(foreign, "num_layers", (double)layers); /* unless the user told it: files may be missing */
    if (status->code == EM_OK && (foreign->config.num_layers < layers || foreign->config.num_layers > MOST_LAYERS))
        em_fail(status, EM_BAD_DATA, "%s: has files of %lld layers, but num_layers is %lld", folder, (long long)layers,
                (long long)foreign->config.num_layers);
    int *order = status->code == EM_OK ? em_alloc(foreign->config.num_layers, sizeof *order) : NULL;
    if (order) em_official_order(foreign->config.num_layers, order);
    for (int64_t i = 0; order && i <= largest && status->code == EM_OK; i++) {
        if (!there[i]) continue;
        char *path = em_text("%s/tensor%05d_000", folder, (int)i);
        if (em_path_inside(folder, path, foreign->follow_links, status))
            read_tensor(foreign, path, em_official_place(i, order), status);
        free(path);
    }
    free(order);
    free(there);
    return status->code == EM_OK;
}
