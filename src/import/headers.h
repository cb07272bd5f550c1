/* headers.h: what a checkpoint that others read begins with. Private to the library. No MPI. */
#ifndef EXPERTMESH_HEADERS_H
#define EXPERTMESH_HEADERS_H

#include "foreign.h"

/* Bytes that grow. Starts zeroed; memory is freed with free. */
typedef struct em_bytes_list {
    char *memory;
    int64_t length, room;
} em_bytes_list;

/* The beginning of a file with these arrays, whose numbers lie in this order; sets the offset of each in the file. The names are
 * theirs. */
void em_safetensors_header(em_array *array, int64_t num_arrays, em_bytes_list *header);
void em_gguf_header(const em_config *config, em_array *array, int64_t num_arrays, em_bytes_list *header);

/* config.json of a Hugging Face folder. Freed with free. */
char *em_config_json_text(const em_config *config, bool bf16);

#endif
