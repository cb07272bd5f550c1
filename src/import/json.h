/* json.h: JSON in foreign files. Private to the library. */
#ifndef EXPERTMESH_JSON_H
#define EXPERTMESH_JSON_H

#include "foreign.h"

#include <cjson/cJSON.h>

/* Bytes [offset, offset + length) of a file as JSON; NULL with a status. Nested less than a thousand deep, and of no more
 * parts than a file of this size has a use for, so that it takes little memory beyond the file's size. Freed with
 * cJSON_Delete. */
cJSON *em_json_read(const em_input *input, int64_t offset, int64_t length, em_status *status);

/* A whole number from 0 on, exactly. */
bool em_json_count(const cJSON *item, int64_t *count);

#endif
