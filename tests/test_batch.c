/* The tokens to run: from text, from numbers, from files, and what is no prompt. */
#include "suite.h"

#include "scratch.h"

#include "expertmesh/batch.h"

#include <string.h>

static bool begins(const em_status *status, const char *word)
{
    return strncmp(status->text, word, strlen(word)) == 0;
}

static bool contains(const em_status *status, const char *word)
{
    return strstr(status->text, word) != NULL;
}

/* Sequences, positions and first tokens follow from the lengths alone. */
static void check_places(const em_batch *batch, const int64_t *length, int64_t count)
{
    int64_t t = 0;
    CU_ASSERT_EQUAL(batch->num_sequences, count);
    for (int64_t s = 0; s < count && s < batch->num_sequences; s++) {
        CU_ASSERT_EQUAL(batch->first_token[s], t);
        for (int64_t p = 0; p < length[s] && t < batch->num_tokens; p++, t++) {
            CU_ASSERT_EQUAL(batch->sequence[t], s);
            CU_ASSERT_EQUAL(batch->position[t], p);
        }
        CU_ASSERT_EQUAL(batch->first_token[s + 1], t);
    }
    CU_ASSERT_EQUAL(batch->num_tokens, t);
    CU_ASSERT(batch->room >= t);
}

static void check_tokens(const em_batch *batch, const int32_t *token, int64_t count)
{
    CU_ASSERT_EQUAL(batch->num_tokens, count);
    for (int64_t t = 0; t < count && t < batch->num_tokens; t++) CU_ASSERT_EQUAL(batch->token_id[t], token[t]);
}

/* ---- one prompt ---- */

static void text_is_its_bytes(void)
{
    char text[256];
    int32_t token[256];
    for (int i = 0; i < 256; i++) {
        text[i] = (char)(i ^ 0x55);
        token[i] = i ^ 0x55;
    }
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_text(&batch, text, 256, "--prompt", EM_USAGE, &status));
    check_tokens(&batch, token, 256);
    check_places(&batch, (int64_t[]){256}, 1);
    em_batch_free(&batch);
    CU_ASSERT_PTR_NULL(batch.token_id);
    CU_ASSERT_EQUAL(batch.num_tokens, 0);
}

static void tokens_are_numbers_between_commas_or_blanks(void)
{
    static const char *const texts[] = {"1,2,3",     "1 2 3",     " 1, 2 ,3 ",   "1\t2\r\n3\n",
                                        ",,1,,2, 3", "1 2 0003,", "1\n2\n\n\n3", "+1 2 3"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        em_batch batch = {0};
        em_status status = {0};
        CU_ASSERT(em_batch_add_tokens(&batch, texts[i], "--tokens", EM_USAGE, &status));
        check_tokens(&batch, (int32_t[]){1, 2, 3}, 3);
        check_places(&batch, (int64_t[]){3}, 1);
        em_batch_free(&batch);
    }
}

static void the_largest_token_is_an_int(void)
{
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_tokens(&batch, "0 2147483647", "--tokens", EM_USAGE, &status));
    check_tokens(&batch, (int32_t[]){0, INT32_MAX}, 2);
    em_batch_free(&batch);
}

/* A word that is no token is quoted, cut where it is long. */
static void what_is_no_token_is_named(void)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"1,-2,3", "\"-2\""},
        {"1 2x 3", "\"2x\""},
        {"1.5", "\"1.5\""},
        {"0x10", "\"0x10\""},
        {"1;2", "\"1;2\""},
        {"hello world", "\"hello\""},
        {"7 2147483648", "\"2147483648\""},
        {"99999999999999999999", "\"99999999999999999999\""},
        {"-", "\"-\""},
        {"nan", "\"nan\""},
        {"5-7", "\"5-7\""},
        {"1 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "xxxxx\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_batch batch = {0};
        em_status status = {0};
        CU_ASSERT_FALSE(em_batch_add_tokens(&batch, bad[i].text, "--tokens", EM_USAGE, &status));
        CU_ASSERT_EQUAL(status.code, EM_USAGE);
        CU_ASSERT(begins(&status, "--tokens: "));
        CU_ASSERT(contains(&status, bad[i].word));
        CU_ASSERT(strlen(status.text) < 100);
        em_batch_free(&batch);
    }
}

static void an_empty_prompt_is_refused(void)
{
    static const char *const empty[] = {"", " ", ",", " ,\t\n"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        em_batch batch = {0};
        em_status status = {0};
        CU_ASSERT_FALSE(em_batch_add_tokens(&batch, empty[i], "--tokens", EM_BAD_DATA, &status));
        CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
        CU_ASSERT(begins(&status, "--tokens: ") && contains(&status, "empty"));
        em_batch_free(&batch);
    }
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT_FALSE(em_batch_add_text(&batch, "", 0, "--prompt", EM_USAGE, &status));
    CU_ASSERT_EQUAL(status.code, EM_USAGE);
    CU_ASSERT(begins(&status, "--prompt: ") && contains(&status, "empty"));
    em_batch_free(&batch);
}

/* ---- several prompts ---- */

/* Enough of them, and long enough, to grow every list several times. */
static void prompts_follow_each_other(void)
{
    enum { PROMPTS = 60 };
    em_batch batch = {0};
    em_status status = {0};
    int64_t length[PROMPTS], t = 0;
    char text[PROMPTS * 7];
    for (int s = 0; s < PROMPTS; s++) {
        length[s] = s % 3 == 2 ? 2 : 1 + s * 7 % 101;
        memset(text, s + 1, sizeof text);
        if (s % 3 == 2)
            CU_ASSERT(em_batch_add_tokens(&batch, "1000 2000", "--tokens", EM_USAGE, &status))
        else
            CU_ASSERT(em_batch_add_text(&batch, text, (size_t)length[s], "--prompt", EM_USAGE, &status))
    }
    check_places(&batch, length, PROMPTS);
    for (int s = 0; s < PROMPTS; s++)
        for (int64_t p = 0; p < length[s]; p++, t++)
            CU_ASSERT_EQUAL(batch.token_id[t], s % 3 == 2 ? (p + 1) * 1000 : s + 1);
    em_batch_free(&batch);
}

/* ---- files ---- */

static const char *write_lines(const char *bytes, size_t length)
{
    return scratch_write("prompts.txt", bytes, length);
}

/* Lines of text: what they end in is not theirs, blank ones are passed over, NUL bytes are tokens as any other. */
static void text_files_hold_a_prompt_a_line(void)
{
    static const char file[] = "ab\n\n \t\r\n c \r\n\r\nd\0e\n\0\nlast";
    static const int32_t token[] = {'a', 'b', ' ', 'c', ' ', 'd', 0, 'e', 0, 'l', 'a', 's', 't'};
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_file(&batch, write_lines(file, sizeof file - 1), true, &status));
    check_tokens(&batch, token, sizeof token / sizeof *token);
    check_places(&batch, (int64_t[]){2, 3, 3, 1, 4}, 5);
    em_batch_free(&batch);
}

static void bytes_above_127_are_tokens_too(void)
{
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_file(&batch, write_lines("\xc3\xa9\xff\n", 4), true, &status));
    check_tokens(&batch, (int32_t[]){0xc3, 0xa9, 0xff}, 3);
    em_batch_free(&batch);
}

static void token_files_hold_a_prompt_a_line(void)
{
    static const char file[] = "1,2,3\r\n\n  \n4 5\n6";
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_file(&batch, write_lines(file, sizeof file - 1), false, &status));
    check_tokens(&batch, (int32_t[]){1, 2, 3, 4, 5, 6}, 6);
    check_places(&batch, (int64_t[]){3, 2, 1}, 3);
    em_batch_free(&batch);
}

/* A second file goes on where the first ended. */
static void files_add_up(void)
{
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_file(&batch, write_lines("xyz", 3), true, &status));
    CU_ASSERT(em_batch_add_file(&batch, write_lines("10\n11 12", 8), false, &status));
    check_tokens(&batch, (int32_t[]){'x', 'y', 'z', 10, 11, 12}, 6);
    check_places(&batch, (int64_t[]){3, 1, 2}, 3);
    em_batch_free(&batch);
}

static void a_long_line_is_one_prompt(void)
{
    enum { LENGTH = 200000 };
    char *text = malloc(LENGTH);
    for (int i = 0; i < LENGTH; i++) text[i] = (char)('a' + i % 26);
    em_batch batch = {0};
    em_status status = {0};
    CU_ASSERT(em_batch_add_file(&batch, write_lines(text, LENGTH), true, &status));
    check_places(&batch, (int64_t[]){LENGTH}, 1);
    CU_ASSERT(batch.num_tokens == LENGTH && batch.token_id[LENGTH - 1] == 'a' + (LENGTH - 1) % 26);
    em_batch_free(&batch);
    free(text);
}

/* The message says which file, which line, and what was found there. */
static void bad_lines_are_named(void)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *line, *word;
    } bad[] = {
        {"1 2\n\n3 x\n", 9, "line 3", "\"x\""},  {"1\r\n-1\r\n", 7, "line 2", "\"-1\""},
        {"1\n2\0 3\n", 7, "line 2", "NUL"},      {"\0", 1, "line 1", "NUL"},
        {",\n", 2, "line 1", "empty"},           {"1\n2147483648", 12, "line 2", "\"2147483648\""},
        {"some text\n", 10, "line 1", "\"some"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_batch batch = {0};
        em_status status = {0};
        const char *path = write_lines(bad[i].bytes, bad[i].length);
        CU_ASSERT_FALSE(em_batch_add_file(&batch, path, false, &status));
        CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
        CU_ASSERT(begins(&status, path));
        CU_ASSERT(contains(&status, bad[i].line));
        CU_ASSERT(contains(&status, bad[i].word));
        em_batch_free(&batch);
    }
}

static void files_without_a_prompt_are_refused(void)
{
    static const char *const blank[] = {"", "\n", "\r\n \n\t\n", "   "};
    for (size_t i = 0; i < 2 * sizeof blank / sizeof *blank; i++) {
        em_batch batch = {0};
        em_status status = {0};
        const char *bytes = blank[i / 2], *path = write_lines(bytes, strlen(bytes));
        CU_ASSERT_FALSE(em_batch_add_file(&batch, path, i % 2 == 0, &status));
        CU_ASSERT_EQUAL(status.code, EM_BAD_DATA);
        CU_ASSERT(begins(&status, path) && contains(&status, "no prompt"));
        em_batch_free(&batch);
    }
}

static void files_that_cannot_be_read_are_missing_input(void)
{
    const char *const paths[] = {scratch_path("none.txt"), scratch_folder};
    for (size_t i = 0; i < 2; i++) {
        em_batch batch = {0};
        em_status status = {0};
        CU_ASSERT_FALSE(em_batch_add_file(&batch, paths[i], true, &status));
        CU_ASSERT_EQUAL(status.code, EM_NO_INPUT);
        CU_ASSERT(begins(&status, paths[i]));
        em_batch_free(&batch);
    }
}

/* ---- can a model run it? ---- */

static void check_fits(const em_batch *batch, int64_t vocab_size, int64_t sequence_len, const char *const *words)
{
    em_config config = em_preset_find("tiny")->config;
    em_status status = {0};
    config.vocab_size = vocab_size;
    config.sequence_len = sequence_len;
    CU_ASSERT_EQUAL(em_batch_check(batch, &config, "prompts.txt", EM_BAD_DATA, &status), words == NULL);
    CU_ASSERT_EQUAL(status.code, words ? EM_BAD_DATA : EM_OK);
    CU_ASSERT(!words || begins(&status, "prompts.txt: "));
    for (int i = 0; words && words[i]; i++) CU_ASSERT(contains(&status, words[i]));
}

static void tokens_are_in_the_vocabulary(void)
{
    static const char *const words[] = {"prompt 1", "place 2", "token 99", "0 to 98", NULL};
    em_batch batch = {0};
    em_status status = {0};
    em_batch_add_tokens(&batch, "98 0", "--tokens", EM_USAGE, &status);
    em_batch_add_tokens(&batch, "1 2 99 99", "--tokens", EM_USAGE, &status);
    check_fits(&batch, 100, 4, NULL);
    check_fits(&batch, 99, 4, words);
    em_batch_free(&batch);
}

static void prompts_are_no_longer_than_a_sequence(void)
{
    static const char *const words[] = {"prompt 1", "4 tokens", "sequence_len is 3", NULL};
    em_batch batch = {0};
    em_status status = {0};
    em_batch_add_text(&batch, "abc", 3, "--prompt", EM_USAGE, &status);
    em_batch_add_text(&batch, "abcd", 4, "--prompt", EM_USAGE, &status);
    em_batch_add_text(&batch, "a", 1, "--prompt", EM_USAGE, &status);
    check_fits(&batch, 256, 4, NULL);
    check_fits(&batch, 256, 3, words);
    em_batch_free(&batch);
}

/* Each time the ends of prompts move, all of them are copied. */
static void ends_move_seldom(void)
{
    enum { PROMPTS = 10000, SELDOM = 20 };
    em_batch batch = {0};
    em_status status = {0};
    int64_t room = 0, moves = 0;
    for (int64_t i = 0; i < PROMPTS; i++) {
        em_batch_add_text(&batch, "ab", 2, "--prompt", EM_USAGE, &status);
        moves += batch.ends_room != room;
        room = batch.ends_room;
    }
    CU_ASSERT(moves <= SELDOM);
    CU_ASSERT(room > PROMPTS);
    CU_ASSERT_EQUAL(batch.num_sequences, PROMPTS);
    for (int64_t i = 0; i <= PROMPTS; i++) CU_ASSERT_EQUAL(batch.first_token[i], 2 * i);
    em_batch_free(&batch);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"text is its bytes", text_is_its_bytes},
        {"tokens are numbers between commas or blanks", tokens_are_numbers_between_commas_or_blanks},
        {"the largest token is an int", the_largest_token_is_an_int},
        {"what is no token is named", what_is_no_token_is_named},
        {"an empty prompt is refused", an_empty_prompt_is_refused},
        {"prompts follow each other", prompts_follow_each_other},
        {"text files hold a prompt a line", text_files_hold_a_prompt_a_line},
        {"bytes above 127 are tokens too", bytes_above_127_are_tokens_too},
        {"token files hold a prompt a line", token_files_hold_a_prompt_a_line},
        {"files add up", files_add_up},
        {"a long line is one prompt", a_long_line_is_one_prompt},
        {"bad lines are named", bad_lines_are_named},
        {"files without a prompt are refused", files_without_a_prompt_are_refused},
        {"files that cannot be read are missing input", files_that_cannot_be_read_are_missing_input},
        {"tokens are in the vocabulary", tokens_are_in_the_vocabulary},
        {"prompts are no longer than a sequence", prompts_are_no_longer_than_a_sequence},
        {"ends move seldom", ends_move_seldom},
        {NULL, NULL},
    };
    int code = suite_main(argc, argv, "batch", tests);
    scratch_remove();
    return code;
}
