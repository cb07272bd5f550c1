/* The text of the prompts and what was generated, each token in the colour of its first expert: in the layer of --layer, or the
 * first, and where scripts run in any that one chooses. Experts past the eighth have the colours again, with lines below. */
#include "sections.h"

#include "charts.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of a token as one reads it. */
typedef char word_text[16];

/* A run of text has a byte a token (--prompt, --prompt-file); what came as numbers is shown as numbers. */
static bool is_text(const em_figures *f)
{
    char *command = em_view_attribute(&f->view, "command_line");
    bool text = command && strstr(command, " --prompt");
    free(command);
    for (int64_t i = 0; text && i < f->num_shown; i++) text = f->shown_id[i] >= 0 && f->shown_id[i] < 256;
    return text;
}

/* Does token i directly follow the one before it in its sequence? */
static bool follows(const em_figures *f, int64_t i)
{
    return i > 0 && f->shown_sequence[i] == f->shown_sequence[i - 1] &&
           f->shown_position[i] == f->shown_position[i - 1] + 1;
}

/* Bytes of the UTF-8 character of which token i is the first; 1 where it is none. */
static int character_at(const em_figures *f, int64_t i)
{
    int32_t first = f->shown_id[i];
    int bytes = first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 1;
    for (int k = 1; k < bytes; k++)
        if (i + k >= f->num_shown || !follows(f, i + k) || f->shown_id[i + k] >> 6 != 2) return 1;
    return bytes;
}

/* The tokenizer's piece of token i; NULL where the trace has none. */
static const char *piece_of(const em_figures *f, int64_t i)
{
    int32_t id = f->shown_id[i];
    return f->token_text && id >= 0 && id < f->view.config.vocab_size ? f->token_text[id] : NULL;
}

/* A piece as it stands in the text: with blanks for U+2581. */
static void put_piece(em_page *page, const char *piece)
{
    char *text = em_text("%s", piece), *end = text;
    for (const char *c = piece; *c; c++) {
        bool blank = strncmp(c, "\xe2\x96\x81", 3) == 0;
        *end++ = blank ? ' ' : *c;
        if (blank) c += 2;
    }
    *end = '\0';
    em_page_text(page, text);
    free(text);
}

/* What to show of token i: its character; of a character of several bytes the first shows it, the others a dot. */
static const char *word_of(const em_figures *f, bool text, int64_t i, word_text word)
{
    int32_t id = f->shown_id[i];
    snprintf(word, sizeof(word_text), text ? "\\x%02x" : "%d", (unsigned)id);
    if (!text) return word;
    for (int64_t k = i; k >= 0 && k > i - 4; k--) {
        int bytes = character_at(f, k);
        if (bytes == 1 || k + bytes <= i) continue;
        if (k < i) return strcpy(word, "·");
        for (int b = 0; b < bytes; b++) word[b] = (char)f->shown_id[i + b];
        word[bytes] = '\0';
        return word;
    }
    if (id == '\n') return strcpy(word, "↵");
    if (id == '\t') return strcpy(word, "⇥");
    if (id >= ' ' && id < 127) snprintf(word, sizeof(word_text), "%c", (int)id);
    return word;
}

/* First expert of a token in the layer that colours the text at first; -1: not written yet. */
static int32_t expert_of(const em_figures *f, int64_t i)
{
    return f->expert[f->text_layer * f->num_shown + i];
}

static long long layer_shown(const em_figures *f)
{
    return f->view.layer[f->text_layer];
}

static void put_token(em_page *page, const em_figures *f, bool text, int64_t i)
{
    word_text word;
    int32_t expert = expert_of(f, i);
    const char *piece = piece_of(f, i), *shown = piece ? piece : word_of(f, text, i, word);
    if (!follows(f, i) && (i == 0 || f->shown_sequence[i] != f->shown_sequence[i - 1]))
        em_page_put(page, "%s<span class=\"gap\">prompt %d </span>", i > 0 ? "\n" : "", f->shown_sequence[i]);
    else if (!follows(f, i))
        em_page_put(page, "<span class=\"gap\"> … </span>");
    else if (!text && !piece_of(f, i))
        em_page_put(page, " ");
    em_page_put(page, "<span data-at=\"%lld\"", (long long)i);
    if (expert >= 0) em_page_put(page, " class=\"x%d u%d\"", expert % EM_NUM_COLOURS, expert / EM_NUM_COLOURS % 4);
    em_page_put(page, " title=\"token %lld, ", (long long)f->view.token[f->shown_place[i]]);
    em_page_text(page, shown);
    em_page_put(page, " (%d)", f->shown_id[i]);
    if (expert >= 0) em_page_put(page, ": layer %lld, expert %d", layer_shown(f), expert);
    em_page_put(page, "\">");
    if (piece)
        put_piece(page, piece);
    else
        em_page_text(page, shown);
    em_page_put(page, "</span>%s", text && f->shown_id[i] == '\n' ? "\n" : "");
}

static void put_legend(em_page *page, const em_figures *f)
{
    enum { MOST = 32 };
    em_page_put(page, "<p class=\"legend\">first expert in layer <span class=\"layer\">%lld</span> ", layer_shown(f));
    for (int64_t e = 0; e < f->E && e < MOST; e++)
        em_page_put(page, "<span class=\"token x%lld u%lld\">%lld</span> ", (long long)(e % EM_NUM_COLOURS),
                    (long long)(e / EM_NUM_COLOURS % 4), (long long)e);
    if (f->E > MOST) em_page_put(page, "and so on: every %d experts the colours and lines repeat", MOST);
    em_page_put(page, "</p>\n");
}

static void put_choice(em_page *page, const em_figures *f)
{
    em_page_put(page, "<p class=\"choice\" hidden><label>layer <select autocomplete=\"off\">");
    for (int64_t layer = 0; layer < f->L; layer++)
        em_page_put(page, "<option%s>%lld</option>", layer == f->text_layer ? " selected" : "",
                    (long long)f->view.layer[layer]);
    em_page_put(page, "</select></label></p>\n");
}

/* For the script: the first experts of every layer, so many digits in base 36 each; dots where none is written. */
static void put_experts(em_page *page, const em_figures *f)
{
    static const char digit[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    int digits = f->E <= 36 ? 1 : f->E <= 36 * 36 ? 2 : 4;
    em_page_put(page, "<script type=\"application/json\">{\"digits\":%d,\"layers\":[", digits);
    for (int64_t layer = 0; layer < f->L; layer++)
        em_page_put(page, "%s%lld", layer > 0 ? "," : "", (long long)f->view.layer[layer]);
    em_page_put(page, "],\"experts\":[");
    for (int64_t layer = 0; layer < f->L; layer++) {
        em_page_put(page, "%s\"", layer > 0 ? ",\n" : "");
        for (int64_t i = 0; i < f->num_shown; i++) {
            int32_t expert = f->expert[layer * f->num_shown + i], power = 1;
            for (int d = 1; d < digits; d++) power *= 36;
            for (; power > 0; power /= 36) fputc(expert < 0 ? '.' : digit[expert / power % 36], page->out);
        }
        fputc('"', page->out);
    }
    em_page_put(page, "]}</script>\n");
}

static void put_numbers(em_page *page, const em_figures *f, bool text)
{
    word_text word;
    char head[64];
    em_numbers numbers = em_numbers_open(page, 6, "numbers");
    static const char *const heads[] = {"token", "prompt", "position", "id", "text"};
    for (int i = 0; i < 5; i++) em_numbers_word(&numbers, heads[i]);
    snprintf(head, sizeof head, "expert in layer %lld", layer_shown(f));
    em_numbers_word(&numbers, head);
    for (int64_t i = 0; i < f->num_shown; i++) {
        em_numbers_cell(&numbers, (double)f->view.token[f->shown_place[i]]);
        em_numbers_cell(&numbers, f->shown_sequence[i]);
        em_numbers_cell(&numbers, f->shown_position[i]);
        em_numbers_cell(&numbers, f->shown_id[i]);
        const char *piece = piece_of(f, i);
        em_numbers_word(&numbers, piece ? piece : text ? word_of(f, text, i, word) : "");
        if (expert_of(f, i) < 0)
            em_numbers_word(&numbers, "–");
        else
            em_numbers_cell(&numbers, expert_of(f, i));
    }
    em_numbers_close(&numbers);
}

void em_text_draw(em_page *page, const em_runs *runs, const em_figures *f)
{
    (void)runs;
    if (!f->expert) {
        em_missing_put(page, f, EM_EXPERT_INDICES);
        return;
    }
    bool text = is_text(f);
    em_page_put(page, "<div class=\"coloured\">");
    if (f->num_shown < f->num_text)
        em_page_put(page, "<p class=\"note\">The first %lld of %lld tokens.</p>\n", (long long)f->num_shown,
                    (long long)f->num_text);
    put_choice(page, f);
    em_page_put(page, "<div class=\"text\" tabindex=\"0\">");
    for (int64_t i = 0; i < f->num_shown; i++) put_token(page, f, text, i);
    em_page_put(page, "</div>\n");
    put_legend(page, f);
    put_numbers(page, f, text);
    put_experts(page, f);
    em_page_put(page, "</div>\n");
}
