/* json.h: reading JSON files. Private to the library. */
#ifndef EXPERTMESH_JSON_H
#define EXPERTMESH_JSON_H

#include "expertmesh/base.h"

#include <cjson/cJSON.h>

/* A file's text. Freed with free; NULL with a status. */
char *em_json_load(const char *path, em_status *status);

/* What a text says. source opens the message. Freed with cJSON_Delete; NULL with a status. */
cJSON *em_json_parse(const char *text, const char *source, em_status *status);

#endif
