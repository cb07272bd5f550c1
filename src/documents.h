/* documents.h: the man page and the shell completion, made from the tables of commands and options that make --help. No MPI. */
#ifndef EXPERTMESH_DOCUMENTS_H
#define EXPERTMESH_DOCUMENTS_H

#include "options.h"

/* The manual page, in roff's man macros: expertmesh(1). */
void em_document_man(const em_command *const *commands, int count, FILE *out);

/* A script that bash reads to complete commands, options, their values, subjects and file names. */
void em_document_bash(const em_command *const *commands, int count, FILE *out);

#endif
