#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 64, ALWAYS = 1 << 20 }; /* what cJSON keeps of a number or string, and what any file may take */

/* At most so many values are in a text: each but the first follows one of these. */
static int64_t most_parts(const char *text, int64_t length)
{
    int64_t parts = 1;
    for (int64_t i = 0; i < length; i++) parts += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return parts;
}

cJSON *em_json_read(const em_input *input, int64_t offset, int64_t length, em_status *status)
{
    if (offset > input->size || length > input->size - offset) {
        em_fail(status, EM_BAD_DATA, "%s: should have %lld bytes of JSON at byte %lld, but has only %lld bytes",
                input->path, (long long)length, (long long)offset, (long long)input->size);
        return NULL;
    }
    char *text = em_alloc(length + 1, 1);
    cJSON *json = NULL;
    if (em_input_read(input, offset, length, text, status)) {
        const char *stop = NULL;
        text[length] = '\0';
        if (most_parts(text, length) > (input->size + ALWAYS) / PART_BYTES)
            em_fail(status, EM_BAD_DATA, "%s: JSON of more parts than a file of its size has a use for", input->path);
        else if (!(json = cJSON_ParseWithLengthOpts(text, (size_t)length + 1, &stop, true)))
            em_fail(status, EM_BAD_DATA, "%s: not JSON, or nested too deep: stopped at byte %lld", input->path,
                    (long long)(offset + (stop ? stop - text : 0)));
    }
    free(text);
    return json;
}

bool em_json_count(const cJSON *item, int64_t *count)
{
    *count = 0;
    if (!cJSON_IsNumber(item)) return false;
    double value = item->valuedouble;
    if (!(value >= 0 && value < 9007199254740992.0) || value != floor(value)) return false;
    *count = (int64_t)value;
    return true;
}
