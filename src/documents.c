#include "documents.h"

#include "expertmesh/version.h"

#include <ctype.h>
#include <string.h>

/* ---- the man page ---- */

/* Text as roff takes it: no escape, no macro at the beginning of a line, and '-' as one types it. */
static void print_roff(const char *text, FILE *out)
{
    bool begins = true;
    for (const char *c = text; *c; c++) {
        if (begins && (*c == '.' || *c == '\'')) fputs("\\&", out);
        if (*c == '\\')
            fputs("\\e", out);
        else if (*c == '-')
            fputs("\\-", out);
        else if (*c == '|')
            fputs("|\\:", out); /* a line may end here */
        else
            fputc(*c, out);
        begins = *c == '\n';
    }
}

/* A line of text between a macro and the end of the line. */
static void print_line(const char *before, const char *text, FILE *out)
{
    fputs(before, out);
    print_roff(text, out);
    fputc('\n', out);
}

static void print_option(const em_option *option, const char *name, FILE *out)
{
    fputs(".TP\n", out);
    if (option->letter) fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fputs("\\fB\\-\\-", out);
    print_roff(name, out);
    fputs("\\fR", out);
    if (option->argument) print_line(" \\fI", option->argument, out);
    fputs(option->argument ? "\\fR" : "\n", out);
    print_roff(option->meaning, out);
    fputc('\n', out);
}

/* Paragraphs; lines that are laid out by hand stay as they are. */
static void print_more(const char *text, FILE *out)
{
    bool laid_out = strncmp(text, "  ", 2) == 0 || strstr(text, "\n  ");
    fputs(laid_out ? ".PP\n.nf\n" : ".PP\n", out);
    print_line("", text, out);
    if (laid_out) fputs(".fi\n", out);
}

static void print_command(const em_command *command, FILE *out)
{
    em_option_list list = em_options_of(command);
    fprintf(out, ".SS %s\n.B expertmesh %s\n", command->name, command->name);
    if (command->usage[0]) print_line("", command->usage, out);
    print_line(".PP\n", command->meaning, out);
    if (command->more[0]) print_more(command->more, out);
    for (int i = 0; i < list.first_field && i < list.count - 1; i++)
        print_option(&list.option[i], em_options_name(&list, i), out);
    if (command->takes_model)
        fputs(".PP\nAnd the model's shape, one field at a time: see\n.BR \"THE MODEL'S SHAPE\" .\n", out);
}

/* The fields are the same for all commands that take a model: told once. */
static void print_fields(const em_command *const *commands, int count, FILE *out)
{
    int c = 0;
    while (c < count && !commands[c]->takes_model) c++;
    if (c == count) return;
    em_option_list list = em_options_of(commands[c]);
    fputs(".SH THE MODEL'S SHAPE\nOptions of the commands that make a model, over its preset and its file:\n", out);
    for (int i = list.first_field; i < list.count - 1; i++)
        print_option(&list.option[i], em_options_name(&list, i), out);
}

void em_document_man(const em_command *const *commands, int count, FILE *out)
{
    fputs(".TH EXPERTMESH 1 \"\" \"expertmesh " EM_VERSION "\" \"User Commands\"\n"
          ".SH NAME\nexpertmesh \\- a mixture\\-of\\-experts transformer spread over MPI ranks\n"
          ".SH SYNOPSIS\n.B expertmesh\n.IR COMMAND \" [\" OPTION ...]\n.br\n"
          ".B mpirun \\-n\n.I RANKS\n.B expertmesh\n.IR COMMAND \" [\" OPTION ...]\n"
          ".SH DESCRIPTION\nRuns a Grok\\-1\\-shaped mixture\\-of\\-experts transformer spread over MPI ranks, on "
          "CPUs, and\n"
          "records what every neuron computed and what every rank sent.\n"
          "The numbers are the same bits on any number of ranks.\n"
          ".SH COMMANDS\n",
          out);
    for (int c = 0; c < count; c++) print_command(commands[c], out);
    print_fields(commands, count, out);
    fputs(".SH OTHER OPTIONS\n.TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nshow the commands, or with a command its options\n"
          ".TP\n\\fB\\-\\-version\\fR\nshow the version\n"
          ".TP\n\\fBman\\fR, \\fBcompletion bash\\fR\nprint this page, and a script that bash reads to complete "
          "commands\n"
          ".SH EXIT STATUS\n",
          out);
    static const char *const codes[] = {"0",  "well",
                                        "1",  "compare found a difference",
                                        "64", "wrong usage",
                                        "65", "a file or a model that cannot be used",
                                        "66", "missing input",
                                        "70", "a bug, exhausted memory, an MPI error",
                                        "73", "an output that cannot be written"};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i += 2)
        fprintf(out, ".TP\n.B %s\n%s\n", codes[i], codes[i + 1]);
    static const char *const variables[] = {
        "EXPERTMESH_ISA",
        "plain, avx2, avx512 or amx: the loops to compute with, in place of the processor's best",
        "EXPERTMESH_RANKS_PER_HOST",
        "N: each N neighbouring ranks behave as if they had a host of their own",
        "TMPDIR",
        "where bench writes its files, without \\-\\-folder"};
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i += 2)
        fprintf(out, ".TP\n.B %s\n%s\n", variables[i], variables[i + 1]);
    fputs(".SH SEE ALSO\n.BR mpirun (1),\n.BR h5dump (1),\n.BR h5ls (1)\n", out);
}

/* ---- completion ---- */

/* What an option's argument is: words to choose from, perhaps beside a file; a file; or nothing that is known. */
typedef enum argument_kind { ARGUMENT_WORDS, ARGUMENT_FILE, ARGUMENT_OTHER } argument_kind;

static bool takes_file(const char *argument)
{
    static const char *const files[] = {"FILE", "DIR", ".h5", ".html", ".json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strstr(argument, files[i])) return true;
    return strcmp(argument, "F") == 0;
}

static argument_kind kind_of(const char *argument)
{
    if (strchr(argument, '|')) return ARGUMENT_WORDS;
    return takes_file(argument) ? ARGUMENT_FILE : ARGUMENT_OTHER;
}

/* Of "sliced|spread|FILE" the words that are typed as they are: "sliced spread ". */
static void print_words(const char *argument, FILE *out)
{
    for (const char *next = argument; *next; next += strcspn(next, "|"), next += *next == '|')
        if (islower((unsigned char)*next)) fprintf(out, "%.*s ", (int)strcspn(next, "|"), next);
}

/* One branch: after these options come such arguments. */
static void print_values(const em_command *command, argument_kind kind, FILE *out)
{
    em_option_list list = em_options_of(command);
    int found = 0;
    for (int i = 0; i < list.count; i++) {
        const em_option *o = &list.option[i];
        if (!o->argument || kind_of(o->argument) != kind) continue;
        fprintf(out, "%s'%s --%s'", kind == ARGUMENT_WORDS || found == 0 ? "        " : " | ", command->name,
                em_options_name(&list, i));
        if (o->letter) fprintf(out, " | '%s -%c'", command->name, o->letter);
        found++;
        if (kind != ARGUMENT_WORDS) continue;
        fputs(") values='", out);
        print_words(o->argument, out);
        fputs(takes_file(o->argument) ? "' files=yes ;;\n" : "' ;;\n", out);
    }
    if (found == 0 || kind == ARGUMENT_WORDS) return;
    fputs(kind == ARGUMENT_FILE ? ") files=yes ;;\n" : ") return ;;\n", out);
}

static void print_options(const em_command *command, FILE *out)
{
    em_option_list list = em_options_of(command);
    fprintf(out, "        %s)\n            options='", command->name);
    for (int i = 0; i < list.count; i++) {
        if (list.option[i].letter) fprintf(out, "-%c ", list.option[i].letter);
        fprintf(out, "--%s%s", em_options_name(&list, i), i + 1 < list.count ? " " : "'\n");
    }
    fputs("            takes=' ", out);
    for (int i = 0; i < list.count; i++) {
        if (!list.option[i].argument) continue;
        if (list.option[i].letter) fprintf(out, "-%c ", list.option[i].letter);
        fprintf(out, "--%s ", em_options_name(&list, i));
    }
    fprintf(out, "' words='%s' least=%d most=%d ;;\n", command->words ? command->words : "", command->num_arguments,
            command->most_arguments > 0 ? command->most_arguments : command->num_arguments);
}

void em_document_bash(const em_command *const *commands, int count, FILE *out)
{
    fputs(
        "# bash completion for expertmesh " EM_VERSION ": made by `expertmesh completion bash`\n"
        "_expertmesh()\n{\n"
        "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= at given=0\n"
        "    local options= takes= words= values= files= least=0 most=0\n"
        "    COMPREPLY=()\n"
        "    # --option=value is three words here\n"
        "    if [ \"$current\" = = ]; then current=\n"
        "    elif [ \"$previous\" = = ] && [ \"$COMP_CWORD\" -gt 2 ]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi\n"
        "    for ((at = 1; at < COMP_CWORD; at++)); do\n"
        "        case ${COMP_WORDS[at]} in\n"
        "            ",
        out);
    for (int c = 0; c < count; c++) fprintf(out, "%s%s", commands[c]->name, c + 1 < count ? " | " : ")");
    fputs("\n                command=${COMP_WORDS[at]}\n                break ;;\n        esac\n    done\n"
          "    case $command in\n"
          "        '') options='-h --help --version' words='",
          out);
    for (int c = 0; c < count; c++) fprintf(out, "%s ", commands[c]->name);
    fputs("man completion' least=0 most=1 ;;\n", out);
    for (int c = 0; c < count; c++) print_options(commands[c], out);
    fputs("    esac\n    case \"$command $previous\" in\n", out);
    for (int c = 0; c < count; c++) {
        print_values(commands[c], ARGUMENT_WORDS, out);
        print_values(commands[c], ARGUMENT_FILE, out);
        print_values(commands[c], ARGUMENT_OTHER, out);
    }
    fputs("    esac\n"
          "    if [ -n \"$values\" ]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$current\"; [ -z \"$files\" ] || compgen -f -- "
          "\"$current\")\n"
          "        return\n    fi\n"
          "    if [ -z \"$files\" ] && [[ $current == -* ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
          "        return\n    fi\n"
          "    # of the words that a command takes the first are files, then its own\n"
          "    for ((at = at + 1; at < COMP_CWORD; at++)); do\n"
          "        if [[ $takes == *\" ${COMP_WORDS[at]} \"* ]]; then\n"
          "            at=$((at + 1))\n"
          "            if [ \"${COMP_WORDS[at]-}\" = = ]; then at=$((at + 1)); fi\n"
          "        elif [[ ${COMP_WORDS[at]} != -* ]]; then given=$((given + 1)); fi\n"
          "    done\n"
          "    if [ -z \"$files\" ] && [ \"$given\" -ge \"$least\" ] && [ -n \"$words\" ]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
          "        return\n    fi\n"
          "    if [ -n \"$files\" ] || [ \"$most\" -gt 0 ]; then\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
          "    fi\n}\n"
          "complete -F _expertmesh expertmesh\n",
          out);
}
