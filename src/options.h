/* options.h: the options of the program: one table a command, which parses, explains and checks. */
#ifndef EXPERTMESH_OPTIONS_H
#define EXPERTMESH_OPTIONS_H

#include "expertmesh/weights.h"

#include <stdio.h>

typedef struct em_option {
    const char *name;     /* without the dashes */
    const char *argument; /* what it takes, in words; NULL: nothing */
    const char *meaning;
    char letter; /* also -o; 0: none */
} em_option;

enum { EM_MOST_THREADS = 1024 }; /* of a rank */
enum { EM_MAX_OPTIONS = 96, EM_MAX_ARGUMENTS = 3 };

typedef struct em_command em_command;

/* One call of a command, the same on every rank. */
typedef struct em_call {
    const em_command *command;
    const char
        *value[EM_MAX_OPTIONS]; /* by place in the command's list of options; "" for one without argument; NULL: not
                                          given */
    const char *argument[EM_MAX_ARGUMENTS];
    int num_arguments;
    const char *program;      /* as it was started */
    const char *command_line; /* as a shell takes it */
    MPI_Comm comm;            /* all ranks */
    int rank, num_ranks;
} em_call;

struct em_command {
    const char *name;
    const char *usage;        /* the arguments, in words: "A.h5 B.h5 [OPTION...]" */
    const char *meaning;      /* one line */
    const char *more;         /* paragraphs for --help; may be "" */
    const em_option *options; /* ends with a name of NULL */
    bool watched;             /* also takes em_watch_options: the watchdog watches its ranks */
    bool takes_model;  /* also takes the options that say which model: em_model_options and one for each config field */
    int num_arguments; /* file names, or words: so many at least, */
    int most_arguments; /* and at most; 0: no more */
    const char *words;  /* that may follow the first file, blanks between; NULL: none */
    /* Collective over call->comm. The status is agreed. */
    void (*run)(const em_call *call, em_status *status);
};

/* --preset, --config, --seed, --storage. */
extern const em_option em_model_options[];

/* --watchdog, and what it is where nothing is said, in seconds. */
enum { EM_USUAL_WATCHDOG = 600 };
extern const em_option em_watch_options[];

/* All options of a command: its own, those of the model, one for each config field, --help. field_name keeps the spelling of
 * the fields. */
typedef struct em_option_list {
    em_option option[EM_MAX_OPTIONS];
    char field_name[EM_NUM_CONFIG_FIELDS][40];
    int count, first_field; /* first_field: the place of --help where there are no fields */
} em_option_list;

em_option_list em_options_of(const em_command *command);
const char *em_options_name(const em_option_list *list, int i);

/* Read the arguments after the command's name. wants_help is set by -h and --help, and nothing is checked then. */
bool em_options_parse(const em_command *command, int argc, char **argv, em_call *call, bool *wants_help,
                      em_status *status);

/* The value of an option, or NULL. A name that the command does not have ends the program. */
const char *em_option_value(const em_call *call, const char *name);

/* Where the user gave no such option: as if he had given this. value is borrowed. */
void em_options_default(em_call *call, const char *name, const char *value);
/* In any case: as if he had given this; NULL: no such option. */
void em_options_set(em_call *call, const char *name, const char *value);
/* The options of a command by place from 0, with their values (NULL: not given); false past the last. */
bool em_option_at(const em_call *call, int place, char name[40], const char **value);

/* Its value as a number: whole, from least to most, or finite; fallback where it is not given. */
bool em_option_whole(const em_call *call, const char *name, int64_t least, int64_t most, int64_t fallback,
                     int64_t *value, em_status *status);
bool em_option_real(const em_call *call, const char *name, double fallback, double *value, em_status *status);

void em_options_help(const em_command *command, FILE *out);

/* The entry of names [count] that is nearest to a mistyped word, or NULL where none is near. */
const char *em_nearest(const char *word, const char *const *names, int count);

/* A list like "0,4-7" of numbers from 0 to limit - 1, ascending without repeats. Freed with free; NULL with a status. */
int64_t *em_parse_list(const char *text, int64_t limit, const char *source, int64_t *count, em_status *status);

/* What --watchdog says, in seconds; 0: do not watch. Of a command that is watched. */
bool em_options_watchdog(const em_call *call, double *seconds, em_status *status);

/* What --seed and --storage say. */
bool em_options_seed(const em_call *call, uint64_t *seed, em_status *status);
bool em_options_storage(const em_call *call, em_storage *storage, em_status *status);

/* Is any option given that shapes a model or its random weights? name becomes that of the first. */
bool em_options_first_of_model(const em_call *call, char name[40]);

/* The config that --preset, --config and single fields make, checked. Collective: rank 0 reads the file of --config. */
bool em_options_config(const em_call *call, em_config *config, em_status *status);

#endif
