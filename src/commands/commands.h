/* commands.h: the subcommands of the program. */
#ifndef EXPERTMESH_COMMANDS_H
#define EXPERTMESH_COMMANDS_H

#include "../options.h"

extern const em_command em_command_init, em_command_run, em_command_compare, em_command_inspect, em_command_bench,
    em_command_import, em_command_presets, em_command_report, em_command_timeline;
extern const em_command em_command_export_weights, em_command_export, em_command_tokenize;

#endif
