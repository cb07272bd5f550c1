#include "json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *em_json_load(const char *path, em_status *status)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
        return NULL;
    }
    int64_t room = 1 << 16, length = 0;
    char *text = em_alloc(room, 1);
    for (size_t got; (got = fread(text + length, 1, (size_t)(room - length - 1), file)) > 0;) {
        length += (int64_t)got;
        if (length + 1 == room) {
            text = em_grow(text, length, room * 2, 1);
            room *= 2;
        }
    }
    text[length] = '\0';
    if (ferror(file) || strlen(text) < (size_t)length) {
        if (ferror(file))
            em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
        else
            em_fail(status, EM_BAD_DATA, "%s: not JSON: byte %lld is NUL", path, (long long)strlen(text));
        free(text);
        text = NULL;
    }
    fclose(file);
    return text;
}

cJSON *em_json_parse(const char *text, const char *source, em_status *status)
{
    const char *stop = NULL;
    cJSON *value = cJSON_ParseWithOpts(text, &stop, true);
    if (!value)
        em_fail(status, EM_BAD_DATA, "%s: not JSON: stopped at byte %lld", source, (long long)(stop ? stop - text : 0));
    return value;
}
