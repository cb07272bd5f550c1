/* expertmesh: pick a subcommand, run it on all ranks, tell its failure once, leave with one exit code everywhere. */
#include "commands/commands.h"

#include "documents.h"
#include "expertmesh/alike.h"
#include "expertmesh/standing.h"
#include "expertmesh/version.h"
#include "expertmesh/watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const em_command *const commands[] = {&em_command_init,           &em_command_run,     &em_command_compare,
                                             &em_command_inspect,        &em_command_report,  &em_command_timeline,
                                             &em_command_bench,          &em_command_presets, &em_command_import,
                                             &em_command_export_weights, &em_command_export,  &em_command_tokenize};
enum { NUM_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(out,
            "usage: expertmesh COMMAND [OPTION...]\n"
            "       mpirun -n RANKS expertmesh COMMAND [OPTION...]\n\n"
            "Runs a Grok-1-shaped mixture-of-experts transformer spread over MPI ranks, and shows what happened.\n\n"
            "commands:\n");
    for (int i = 0; i < NUM_COMMANDS; i++) fprintf(out, "  %-14s %s\n", commands[i]->name, commands[i]->meaning);
    fprintf(out, "  man, completion bash: print the manual page, or what bash reads to complete commands\n");
    fprintf(out, "\n  -h, --help   show this, or with a command: its options\n"
                 "  --version    show the version\n\n"
                 "exit codes: 0 well, 1 compare found a difference, 64 usage, 65 bad data, 66 missing input,\n"
                 "            70 internal, 73 cannot write\n");
}

static const char usage_of_documents[] = "usage: expertmesh man, or expertmesh completion bash";

static const em_command *find_command(const char *name, em_status *status)
{
    const char *names[NUM_COMMANDS];
    for (int i = 0; i < NUM_COMMANDS; i++) {
        names[i] = commands[i]->name;
        if (strcmp(names[i], name) == 0) return commands[i];
    }
    const char *nearest = em_nearest(name, names, NUM_COMMANDS);
    if (strcmp(name, "man") == 0 || strcmp(name, "completion") == 0)
        em_fail(status, EM_USAGE, "%s: %s", name, usage_of_documents);
    em_fail(status, EM_USAGE, "there is no command \"%s\"; %s%s", name,
            nearest ? "the nearest is " : "expertmesh --help lists them", nearest ? nearest : "");
    return NULL;
}

/* Words as a shell takes them. Freed with free. */
static char *spell(int argc, char **argv)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    size_t room = 1;
    for (int i = 0; i < argc; i++) room += 4 * strlen(argv[i]) + 3;
    char *line = em_alloc((int64_t)room, 1), *to = line;
    for (int i = 0; i < argc; i++) {
        bool quoted = argv[i][0] == '\0' || argv[i][strspn(argv[i], plain)] != '\0';
        if (i > 0) *to++ = ' ';
        if (quoted) *to++ = '\'';
        for (const char *c = argv[i]; *c; c++)
            if (*c == '\'')
                to = stpcpy(to, "'\\''");
            else
                *to++ = *c;
        if (quoted) *to++ = '\'';
    }
    *to = '\0';
    return line;
}

/* All ranks must have been started alike: what they do together would not fit otherwise. Collective. */
static bool check_alike(MPI_Comm comm, int rank, int argc, char **argv, em_status *status)
{
    if (!em_alike_program(comm, EM_VERSION, EM_GIT_REVISION, status)) return false;
    char *mine = spell(argc - 1, argv + 1);
    em_host_text host;
    int length = (int)strlen(mine) + 1, first = length;
    MPI_Bcast(&first, 1, MPI_INT, 0, comm);
    char *theirs = em_alloc(first, 1);
    if (rank == 0) memcpy(theirs, mine, (size_t)first);
    MPI_Bcast(theirs, first, MPI_CHAR, 0, comm);
    if (strcmp(mine, theirs) != 0) {
        em_fail(status, EM_USAGE,
                "ranks were started with different arguments: rank 0 with \"%.500s\", but rank %d on %s with "
                "\"%.500s\"",
                theirs, rank, em_host(host), mine);
    }
    free(mine);
    free(theirs);
    return em_agree(comm, status);
}

static bool start_watchdog(const em_call *call, em_status *status)
{
    double seconds = 0;
    if (call->command->watched && !em_options_watchdog(call, &seconds, status)) return false;
    return seconds == 0 || em_watchdog_open(call->comm, seconds, status);
}

static void run_command(em_call *call, int argc, char **argv, em_status *status)
{
    bool wants_help = false;
    call->command = find_command(argv[1], status);
    if (!call->command || !em_options_parse(call->command, argc - 1, argv + 1, call, &wants_help, status)) return;
    if (!wants_help) {
        if (start_watchdog(call, status)) call->command->run(call, status);
    } else if (call->rank == 0)
        em_options_help(call->command, stdout);
}

static void run_program(em_call *call, int argc, char **argv, em_status *status)
{
    bool alike = check_alike(call->comm, call->rank, argc, argv, status);
    alarm(0); /* all ranks are here: the clock of watch_start stops */
    if (!alike) return;
    if (argc < 2)
        em_fail(status, EM_USAGE, "which command? expertmesh --help lists them");
    else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        if (call->rank == 0) print_help(stdout);
    } else if (strcmp(argv[1], "--version") == 0) {
        if (call->rank == 0) printf("expertmesh %s (%s)\n", EM_VERSION, EM_GIT_REVISION);
    } else
        run_command(call, argc, argv, status);
}

/* ---- the start ---- */

static char late[400]; /* what is said when the ranks do not come together; a signal's handler only writes it */

static void end_late(int number)
{
    (void)number;
    ssize_t told = write(STDERR_FILENO, late, strlen(late));
    (void)told; /* where nobody hears there is no more to be done */
    _exit(EM_INTERNAL);
}

/* The number of this rank, as whoever started it says. */
static const char *rank_in_words(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return getenv(names[i]);
    return "?";
}

/* MPI_Init waits for every rank, however long, and the watchdog begins after it: until then a clock runs, for as long. */
static void watch_start(int argc, char **argv)
{
    enum { LEAST = 10 }; /* many ranks on few cores take seconds to start */
    static const char name[] = "--watchdog";
    const char *given = NULL;
    em_host_text host;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], name, strlen(name)) != 0) continue;
        if (argv[i][strlen(name)] == '=') given = argv[i] + strlen(name) + 1;
        if (argv[i][strlen(name)] == '\0' && i + 1 < argc) given = argv[i + 1];
    }
    double asked = given ? strtod(given, NULL) : EM_USUAL_WATCHDOG;
    if (!(asked >= 1 && asked <= 1e6)) return; /* for ever, or what is told later */
    unsigned seconds = asked < LEAST ? LEAST : (unsigned)asked;
    snprintf(late, sizeof late,
             "expertmesh: rank %.20s on %s has waited for %u s (--watchdog) to begin, but not all ranks came: one has "
             "left, is "
             "stopped, or cannot be reached\n",
             rank_in_words(), em_host(host), seconds);
    signal(SIGALRM, end_late);
    alarm(seconds);
}

/* With too little address space MPI_Init maps what it can, then ends the job in words of its own, or waits for ever: it is
 * not called. Open MPI 4.1 was seen to map 290 MiB, for a moment 350. */
static bool room_for_mpi(void)
{
    static const int64_t takes = 384 << 20;
    int64_t left = em_address_space_left();
    em_bytes_text takes_text, left_text;
    em_host_text host;
    if (left >= takes) return true;
    fprintf(stderr,
            "expertmesh: rank %.20s on %s may still map %s (ulimit -v), but MPI alone takes up to %s; raise that\n",
            rank_in_words(), em_host(host), em_bytes((double)left, left_text), em_bytes((double)takes, takes_text));
    return false;
}

/* What is printed without MPI, so that it can be where MPI cannot start. Was it one of these? */
static bool print_document(int argc, char **argv)
{
    bool document = argc > 1 && (strcmp(argv[1], "man") == 0 || strcmp(argv[1], "completion") == 0);
    bool help = document && argc == 3 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0);
    bool man = argc == 2 && strcmp(argv[1], "man") == 0;
    bool bash = argc == 3 && strcmp(argv[1], "completion") == 0 && strcmp(argv[2], "bash") == 0;
    if (man) em_document_man(commands, NUM_COMMANDS, stdout);
    if (bash) em_document_bash(commands, NUM_COMMANDS, stdout);
    if (help) printf("%s\n", usage_of_documents);
    return man || bash || help;
}

/* Where standard input, output or error are closed, what is opened next would take their place, and what is printed.
 * Output still cannot be written, and says so. */
static void fill_closed(void)
{
    for (int file = STDIN_FILENO; file <= STDERR_FILENO; file++)
        if (fcntl(file, F_GETFD) < 0 && open("/dev/null", file == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
}

int main(int argc, char **argv)
{
    fill_closed();
    if (print_document(argc, argv)) return fflush(stdout) == 0 && !ferror(stdout) ? EM_OK : EM_CANNOT_WRITE;
    if (!room_for_mpi()) return EM_BAD_DATA;
    int threads;
    watch_start(argc, argv);
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads); /* a trace's writer makes no MPI call */
    MPI_Errhandler handler = em_mpi_error_handler();
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, handler);
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit then fails the write, which says so */

    em_call call = {.comm = MPI_COMM_WORLD, .program = argv[0]};
    em_status status = {0};
    char *command_line = spell(argc, argv);
    call.command_line = command_line;
    MPI_Comm_rank(call.comm, &call.rank);
    MPI_Comm_size(call.comm, &call.num_ranks);
    run_program(&call, argc, argv, &status);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (status.code == EM_DIFFERENT) status.code = EM_OK; /* where they differ nobody was told */
        em_fail(&status, EM_CANNOT_WRITE, "standard output cannot be written");
    }
    em_agree(call.comm, &status);
    if (call.rank == 0 && status.text[0]) fprintf(stderr, "expertmesh: %s\n", status.text);

    free(command_line);
    MPI_Errhandler_free(&handler);
    em_stand(-1, "the end");
    em_wait("all ranks");
    MPI_Finalize();
    em_watchdog_close();
    return status.code;
}
