/* run_text.h: what the options of a tokenizer say: how prompts are read, and how tokens are shown. */
#ifndef EXPERTMESH_COMMANDS_RUN_TEXT_H
#define EXPERTMESH_COMMANDS_RUN_TEXT_H

#include "../options.h"
#include "../tokenizer.h"

/* Starts zeroed. The tokenizer is rank 0's; all else is the same on all ranks. */
typedef struct em_run_text {
    em_spelling spelling; /* its tokenizer: NULL where none was given, and on other ranks */
    bool given;
    char *stop;         /* the number of --stop-token, where that names a piece */
    const char **words; /* [vocab_size] pieces for the trace; NULL: none */
} em_run_text;

/* Read --tokenizer, --bos and --special-tokens. Collective; the status is agreed. */
bool em_run_text_open(const em_call *call, em_run_text *text, em_status *status);
void em_run_text_close(em_run_text *text);

/* With the model known: its vocabulary must hold every piece; a piece that --stop-token names becomes its number in call.
 * Collective, agreed. */
bool em_run_text_fit(em_call *call, em_run_text *text, const em_config *config, em_status *status);

#endif
