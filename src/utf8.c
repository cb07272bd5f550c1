#include "utf8.h"

/* RFC 3629, 4: neither overlong forms, nor surrogates, nor anything past U+10FFFF. */
int em_utf8_character(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned first = s[0], least = 0x80, most = 0xbf;
    size_t bytes = first >= 0xf0 && first <= 0xf4 ? 4 : first >> 4 == 14 ? 3 : 2;
    if (first < 0x80) return 1;
    if (bytes == 2 && (first < 0xc2 || first > 0xdf)) return 0;
    if (first == 0xe0) least = 0xa0;
    if (first == 0xed) most = 0x9f;
    if (first == 0xf0) least = 0x90;
    if (first == 0xf4) most = 0x8f;
    for (size_t i = 1; i < bytes; i++) {
        if (i == length) return -1;
        if (s[i] < least || s[i] > most) return 0;
        least = 0x80;
        most = 0xbf;
    }
    return (int)bytes;
}
