/* utf8.h: where characters end in bytes from anywhere. */
#ifndef EXPERTMESH_UTF8_H
#define EXPERTMESH_UTF8_H

#include <stddef.h>

/* Bytes, 1 to 4, of the character that a text of `length` > 0 bytes begins with. 0: none begins so; -1: its end is missing. */
int em_utf8_character(const char *text, size_t length);

#endif
