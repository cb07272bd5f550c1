/* What a path names: which form of checkpoint, and its files. */
#include "official.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool em_path_inside(const char *folder, const char *path, bool follow_links, em_status *status)
{
    char top[PATH_MAX], real[PATH_MAX];
    if (!realpath(folder, top)) return em_fail(status, EM_NO_INPUT, "%s: %s", folder, strerror(errno));
    if (!realpath(path, real)) return em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    size_t length = strlen(top);
    if (follow_links || (strncmp(real, top, length) == 0 && (real[length] == '/' || top[length - 1] == '/')))
        return true;
    return em_fail(status, EM_BAD_DATA, "%s: leads out of its folder, to %s; --follow-links allows it", path, real);
}

static bool exists(const char *folder, const char *name)
{
    char *path = em_text("%s/%s", folder, name);
    struct stat info;
    bool there = lstat(path, &info) == 0;
    free(path);
    return there;
}

typedef bool reader(em_foreign *foreign, const char *path, em_status *status);

/* Read a file of a folder, which must lie in it. */
static bool read_inside(em_foreign *foreign, reader *read, const char *folder, const char *name, em_status *status)
{
    char *path = em_text("%s/%s", folder, name);
    bool good = em_path_inside(folder, path, foreign->follow_links, status) && read(foreign, path, status);
    free(path);
    return good;
}

static bool read_config_beside(em_foreign *foreign, const char *folder, em_status *status)
{
    return !exists(folder, "config.json") || read_inside(foreign, em_config_json_read, folder, "config.json", status);
}

static bool read_shards(em_foreign *foreign, const char *folder, const char *index, em_status *status)
{
    char *path = em_text("%s/%s", folder, index), **shard = NULL;
    int count = 0;
    bool good = em_path_inside(folder, path, foreign->follow_links, status) &&
                em_safetensors_index(path, &shard, &count, status);
    for (int i = 0; i < count; i++) {
        good = good && read_inside(foreign, em_safetensors_read, folder, shard[i], status);
        free(shard[i]);
    }
    free(shard);
    free(path);
    return good;
}

/* How many names in a folder are of a pattern (fnmatch's), and one of them, which is freed with free. The folder's own name is
 * no pattern. */
static int find_files(const char *folder, const char *pattern, char **name)
{
    DIR *list = opendir(folder);
    int count = 0;
    *name = NULL;
    for (const struct dirent *entry; list && (entry = readdir(list));) {
        if (fnmatch(pattern, entry->d_name, FNM_PERIOD) != 0) continue;
        if (count++ == 0) *name = em_text("%s", entry->d_name);
    }
    if (list) closedir(list);
    return count;
}

static bool read_only_file(em_foreign *foreign, const char *folder, const char *pattern, reader *read,
                           em_status *status)
{
    char *name;
    int count = find_files(folder, pattern, &name);
    if (count > 1)
        em_fail(status, EM_BAD_DATA, "%s: has %d files %s, but no index of them; name one", folder, count, pattern);
    else if (count == 1)
        read_inside(foreign, read, folder, name, status);
    free(name);
    return status->code == EM_OK;
}

static bool has_files(const char *folder, const char *pattern)
{
    char *name;
    int count = find_files(folder, pattern, &name);
    free(name);
    return count > 0;
}

static bool open_folder(em_foreign *foreign, const char *folder, em_status *status)
{
    static const char index[] = "model.safetensors.index.json";
    char *inner = em_text("%s/ckpt-0", folder);
    bool good = true;
    if (em_official_is(folder) || em_official_is(inner)) {
        foreign->kind = "the official checkpoint";
        good = em_official_read(foreign, em_official_is(folder) ? folder : inner, status);
    } else if (exists(folder, index) || has_files(folder, "*.safetensors")) {
        foreign->kind = "safetensors";
        good = read_config_beside(foreign, folder, status) &&
               (exists(folder, index) ? read_shards(foreign, folder, index, status)
                                      : read_only_file(foreign, folder, "*.safetensors", em_safetensors_read, status));
    } else if (has_files(folder, "*-00001-of-?????.gguf") || has_files(folder, "*.gguf")) {
        bool split = has_files(folder, "*-00001-of-?????.gguf");
        foreign->kind = "GGUF";
        good = read_only_file(foreign, folder, split ? "*-00001-of-?????.gguf" : "*.gguf", em_gguf_read, status);
    } else {
        good =
            em_fail(status, EM_NO_INPUT,
                    "%s: holds no checkpoint: neither tensor00000_000 and so on (here or in ckpt-0), nor safetensors, "
                    "nor GGUF",
                    folder);
    }
    free(inner);
    return good;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool open_file(em_foreign *foreign, const char *path, em_status *status)
{
    char *copy = em_text("%s", path), *other = em_text("%s", path), magic[4] = "";
    const char *folder = dirname(copy), *name = basename(other);
    em_input input;
    bool good = em_input_open(&input, path, status);
    if (good && input.size >= 4) good = em_input_read(&input, 0, 4, magic, status);
    em_input_close(&input);
    if (good && memcmp(magic, "GGUF", 4) == 0) {
        foreign->kind = "GGUF";
        good = em_gguf_read(foreign, path, status);
    } else if (good && (unsigned char)magic[0] == 0x80 && magic[1] == 4) {
        good = em_fail(status, EM_BAD_DATA, "%s: one tensor of the official checkpoint; name its folder", path);
    } else if (good) {
        foreign->kind = "safetensors";
        good = read_config_beside(foreign, folder, status) &&
               (ends_with(name, ".index.json") ? read_shards(foreign, folder, name, status)
                                               : em_safetensors_read(foreign, path, status));
    }
    free(copy);
    free(other);
    return good;
}

bool em_foreign_open(em_foreign *foreign, const char *path, const char *config, bool follow_links, em_status *status)
{
    struct stat info;
    *foreign = (em_foreign){.path = em_text("%s", path), .kind = "a checkpoint", .follow_links = follow_links};
    if (stat(path, &info) != 0) em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    bool good =
        status->code == EM_OK && (!config || em_config_read_json(config, &foreign->config, &foreign->given, status));
    if (good) good = S_ISDIR(info.st_mode) ? open_folder(foreign, path, status) : open_file(foreign, path, status);
    if (!good) em_foreign_close(foreign);
    return good;
}
