#include "expertmesh/batch.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void em_batch_free(em_batch *batch)
{
    free(batch->token_id);
    free(batch->sequence);
    free(batch->position);
    free(batch->first_token);
    *batch = (em_batch){0};
}

static void grow(em_batch *batch)
{
    int64_t room = batch->room > 0 ? 2 * batch->room : 256;
    batch->token_id = em_grow(batch->token_id, batch->num_tokens, room, sizeof(int32_t));
    batch->sequence = em_grow(batch->sequence, batch->num_tokens, room, sizeof(int32_t));
    batch->position = em_grow(batch->position, batch->num_tokens, room, sizeof(int32_t));
    batch->room = room;
}

static void add_token(em_batch *batch, int32_t token)
{
    if (batch->num_tokens == batch->room) grow(batch);
    int64_t t = batch->num_tokens++;
    batch->token_id[t] = token;
    batch->sequence[t] = (int32_t)batch->num_sequences;
    batch->position[t] = (int32_t)(t - (batch->num_sequences > 0 ? batch->first_token[batch->num_sequences] : 0));
}

static void end_sequence(em_batch *batch)
{
    int64_t ends = batch->num_sequences + 1;
    if (ends >= batch->ends_room) {
        batch->ends_room = 2 * ends + 16;
        batch->first_token =
            em_grow(batch->first_token, batch->num_sequences > 0 ? ends : 0, batch->ends_room, sizeof(int64_t));
    }
    batch->first_token[0] = 0;
    batch->first_token[ends] = batch->num_tokens;
    batch->num_sequences = ends;
}

bool em_batch_add_text(em_batch *batch, const char *text, size_t length, const char *source, int code,
                       em_status *status)
{
    if (length == 0) return em_fail(status, code, "%s: the prompt is empty", source);
    for (size_t i = 0; i < length; i++) add_token(batch, (unsigned char)text[i]);
    end_sequence(batch);
    return true;
}

static bool is_separator(char c)
{
    return c == ',' || isspace((unsigned char)c);
}

bool em_batch_add_tokens(em_batch *batch, const char *text, const char *source, int code, em_status *status)
{
    int64_t before = batch->num_tokens;
    for (const char *next = text; *next;) {
        if (is_separator(*next)) {
            next++;
            continue;
        }
        char *end;
        errno = 0;
        long value = strtol(next, &end, 10);
        if (end == next || (*end && !is_separator(*end)) || errno || value < 0 || value > INT32_MAX) {
            int length = (int)strcspn(next, ", \t\r\n");
            return em_fail(status, code, "%s: \"%.*s\" is not a token number", source, length < 40 ? length : 40, next);
        }
        add_token(batch, (int32_t)value);
        next = end;
    }
    if (batch->num_tokens == before) return em_fail(status, code, "%s: the prompt is empty", source);
    end_sequence(batch);
    return true;
}

static bool is_blank(const char *line)
{
    return line[strspn(line, " \t\r")] == '\0';
}

bool em_batch_add_ids(em_batch *batch, const int32_t *id, int64_t count, const char *source, int code,
                      em_status *status)
{
    if (count == 0) return em_fail(status, code, "%s: the prompt is empty", source);
    for (int64_t i = 0; i < count; i++) add_token(batch, id[i]);
    end_sequence(batch);
    return true;
}

/* An em_line_reader; context: a bool, as text? */
static bool add_line(void *context, em_batch *batch, const char *line, size_t length, const char *source,
                     em_status *status)
{
    if (*(const bool *)context) return em_batch_add_text(batch, line, length, source, EM_BAD_DATA, status);
    if (strlen(line) < length) return em_fail(status, EM_BAD_DATA, "%s: a NUL byte is not a token number", source);
    return em_batch_add_tokens(batch, line, source, EM_BAD_DATA, status);
}

static bool add_lines(em_batch *batch, FILE *file, const char *path, em_line_reader *read, void *context,
                      em_status *status)
{
    char *line = NULL;
    size_t room = 0;
    bool good = true;
    ssize_t length;
    for (int number = 1; good && (length = getline(&line, &room, file)) >= 0; number++) {
        if (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
        if (length > 0 && line[length - 1] == '\r') line[--length] = '\0';
        if (is_blank(line) && strlen(line) == (size_t)length) continue;
        char *source = em_text("%s: line %d", path, number);
        good = read(context, batch, line, (size_t)length, source, status);
        free(source);
    }
    free(line);
    return good;
}

bool em_batch_add_lines(em_batch *batch, const char *path, em_line_reader *read, void *context, em_status *status)
{
    int64_t before = batch->num_sequences;
    FILE *file = fopen(path, "rb");
    if (!file) return em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    errno = 0;
    bool good = add_lines(batch, file, path, read, context, status);
    if (good && ferror(file)) good = em_fail(status, EM_NO_INPUT, "%s: %s", path, strerror(errno));
    fclose(file);
    if (good && batch->num_sequences == before)
        good = em_fail(status, EM_BAD_DATA, "%s: no prompt in it: every line is blank", path);
    return good;
}

bool em_batch_add_file(em_batch *batch, const char *path, bool as_text, em_status *status)
{
    return em_batch_add_lines(batch, path, add_line, &as_text, status);
}

void em_batch_add_next(em_batch *batch, int32_t token, int32_t sequence, int32_t position)
{
    add_token(batch, token);
    batch->sequence[batch->num_tokens - 1] = sequence;
    batch->position[batch->num_tokens - 1] = position;
    end_sequence(batch);
}

em_batch em_batch_of(int64_t N, const int64_t *end, const int32_t *token)
{
    em_batch batch = {0};
    for (int64_t s = 0; s < N; s++) {
        while (batch.num_tokens < end[s]) add_token(&batch, token[batch.num_tokens]);
        end_sequence(&batch);
    }
    return batch;
}

em_batch em_batch_slice(const em_batch *batch, int64_t begin, int64_t end)
{
    em_batch slice = {0};
    for (int64_t t = begin; t < end; t++) {
        add_token(&slice, batch->token_id[t]);
        slice.sequence[slice.num_tokens - 1] = batch->sequence[t];
        slice.position[slice.num_tokens - 1] = batch->position[t];
        if (t + 1 == end || batch->sequence[t + 1] != batch->sequence[t]) end_sequence(&slice);
    }
    return slice;
}

bool em_batch_check(const em_batch *batch, const em_config *config, const char *source, int code, em_status *status)
{
    for (int64_t s = 0; s < batch->num_sequences; s++) {
        long long length = batch->first_token[s + 1] - batch->first_token[s];
        if (length > config->sequence_len)
            return em_fail(status, code, "%s: prompt %lld has %lld tokens, but the model's sequence_len is %lld",
                           source, (long long)s, length, (long long)config->sequence_len);
    }
    for (int64_t t = 0; t < batch->num_tokens; t++)
        if (batch->token_id[t] >= config->vocab_size)
            return em_fail(status, code, "%s: prompt %d, place %d: token %d is outside the vocabulary, 0 to %lld",
                           source, batch->sequence[t], batch->position[t], batch->token_id[t],
                           (long long)config->vocab_size - 1);
    if (batch->num_tokens > INT32_MAX / config->num_selected_experts)
        return em_fail(status, code, "%s: %lld tokens in one batch are too many", source, (long long)batch->num_tokens);
    return true;
}
