#include "page.h"

#include "../utf8.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

void em_page_put(em_page *page, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(page->out, format, args);
    va_end(args);
}

void em_page_text(em_page *page, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length;) {
        const char *at = text + i;
        int bytes = em_utf8_character(at, length - i);
        if (*at == '<')
            fputs("&lt;", page->out);
        else if (*at == '>')
            fputs("&gt;", page->out);
        else if (*at == '&')
            fputs("&amp;", page->out);
        else if (*at == '"')
            fputs("&quot;", page->out);
        else if (*at == '\'')
            fputs("&#39;", page->out);
        else if (bytes <= 0 || (*at >= 0 && *at < ' ' && *at != '\n' && *at != '\t') || *at == 0x7f)
            fputs("\xef\xbf\xbd", page->out);
        else
            fwrite(at, 1, (size_t)bytes, page->out);
        i += bytes > 0 ? (size_t)bytes : 1;
    }
}

const char *em_number(double value, em_number_text buffer)
{
    if (isnan(value))
        snprintf(buffer, sizeof(em_number_text), "–");
    else if (value == floor(value) && fabs(value) < 1e15)
        snprintf(buffer, sizeof(em_number_text), "%.0f", value + 0.0);
    else
        snprintf(buffer, sizeof(em_number_text), "%.6g", value);
    return buffer;
}

em_numbers em_numbers_open(em_page *page, int columns, const char *caption)
{
    em_page_put(page,
                "<details class=\"numbers\"><summary>%s</summary><div class=\"scroll\" tabindex=\"0\"><table>\n<thead>",
                caption);
    return (em_numbers){.page = page, .columns = columns};
}

/* A cell begins: its row, too, where it is the first. */
static const char *begin_cell(em_numbers *numbers)
{
    int column = numbers->place % numbers->columns;
    if (numbers->place == numbers->columns) em_page_put(numbers->page, "</thead>\n<tbody>");
    if (column == 0) em_page_put(numbers->page, "<tr>");
    return numbers->place++ < numbers->columns || column == 0 ? "th" : "td";
}

static void end_cell(em_numbers *numbers, const char *tag)
{
    em_page_put(numbers->page, "</%s>", tag);
    if (numbers->place % numbers->columns == 0) em_page_put(numbers->page, "</tr>\n");
}

void em_numbers_word(em_numbers *numbers, const char *text)
{
    const char *tag = begin_cell(numbers);
    em_page_put(numbers->page, "<%s>", tag);
    em_page_text(numbers->page, text);
    end_cell(numbers, tag);
}

void em_numbers_cell(em_numbers *numbers, double value)
{
    em_number_text text;
    em_numbers_word(numbers, em_number(value, text));
}

void em_numbers_close(em_numbers *numbers)
{
    em_page_put(numbers->page, "%s</table></div></details>\n",
                numbers->place > numbers->columns ? "</tbody>" : "</thead>");
}
