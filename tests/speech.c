/* speech MODEL ID...: what comes out after each token, and at the end, in hexadecimal, a line each. */
#include "tokenizer.h"

#include <stdlib.h>

static void print_new(FILE *text, char *const *bytes, const size_t *length, size_t *shown)
{
    fflush(text);
    for (; *shown < *length; ++*shown) printf("%02x", (unsigned)(unsigned char)(*bytes)[*shown]);
    printf("\n");
}

int main(int argc, char **argv)
{
    em_status status = {0};
    em_tokenizer *tokenizer = argc > 1 ? em_tokenizer_open(argv[1], &status) : NULL;
    em_speech speech = {.tokenizer = tokenizer};
    char *bytes = NULL;
    size_t length = 0, shown = 0;
    FILE *text = open_memstream(&bytes, &length);
    if (!tokenizer || !text) {
        fprintf(stderr, "speech: %s\n", status.text);
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        em_speech_next(&speech, (int32_t)strtol(argv[i], NULL, 10), text);
        print_new(text, &bytes, &length, &shown);
    }
    em_speech_end(&speech, text);
    print_new(text, &bytes, &length, &shown);
    fclose(text);
    free(bytes);
    em_tokenizer_close(tokenizer);
    return 0;
}
