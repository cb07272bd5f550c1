#include "expertmesh/watchdog.h"

#include "expertmesh/standing.h"
#include "watchdog_report.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NUM_RECORDERS = 2, MOST_ADDRESSES = 8 };

/* Where a recorder hears: the address of its host in each network, and 127.0.0.1. */
typedef struct station {
    int32_t rank; /* -1: there is no such recorder */
    uint16_t port;
    uint16_t num_addresses;
    uint32_t address[MOST_ADDRESSES];
} station;

typedef enum kind { STANDING, ANSWER, END } kind;

/* What is sent. All ranks are built alike. */
typedef struct packet {
    uint64_t key; /* of this job */
    int32_t kind, rank;
    em_standing standing;
} packet;

/* The thread's, but for what is written before it starts. */
static struct {
    pthread_t thread;
    bool running;
    int stop;   /* an event */
    int socket; /* -1: this rank is alone */
    uint64_t key;
    int rank, num_ranks;
    double limit, tick; /* seconds */
    station recorder[NUM_RECORDERS];
    struct sockaddr_in at[NUM_RECORDERS]; /* where the recorder answered from; port 0: it has not */
    double answered[NUM_RECORDERS];       /* when; below 0: never */
    em_standing mine;
    double end;                  /* when the job is to end; 0: not yet */
    double own_moved;            /* when the beats of this rank last changed */
    double moved;                /* those of any rank that is heard here */
    em_watched *watched;         /* [P] */
    struct sockaddr_in *address; /* [P] where each rank is heard from; port 0: nowhere */
} dog = {.stop = -1, .socket = -1};

static double clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* 0: rank 0; 1: the one that speaks where rank 0 does not; -1: no recorder. */
static int recorder_number(void)
{
    for (int i = 0; i < NUM_RECORDERS; i++)
        if (dog.recorder[i].rank == dog.rank) return i;
    return -1;
}

/* ---- the end ---- */

/* Whatever the other threads hold: no lock of stdio, and not for long. */
static void say(const char *text)
{
    enum { SECONDS = 5 };
    signal(SIGALRM, SIG_DFL);
    alarm(SECONDS);
    for (size_t length = strlen(text); length > 0;) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written <= 0 && errno != EINTR) break;
        if (written > 0) {
            length -= (size_t)written;
            text += written;
        }
    }
}

static void send_to(const struct sockaddr_in *to, kind what)
{
    packet p = {.key = dog.key, .kind = (int32_t)what, .rank = dog.rank, .standing = dog.mine};
    sendto(dog.socket, &p, sizeof p, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to);
}

/* Is there a host of which no rank was heard since? */
static bool host_is_silent(double since)
{
    for (int r = 0; r < dog.num_ranks; r++) {
        bool heard = false;
        for (int other = 0; other < dog.num_ranks && !heard; other++)
            heard = strcmp(dog.watched[r].host, dog.watched[other].host) == 0 && dog.watched[other].heard >= since;
        if (!heard) return true;
    }
    return false;
}

/* The other ranks that were ever heard end by themselves, should MPI not end them. */
static void end_all(void)
{
    for (int r = 0; r < dog.num_ranks; r++)
        if (r != dog.rank && dog.address[r].sin_port) send_to(&dog.address[r], END);
    em_end_job(EM_INTERNAL);
}

/* The report; and the end, at once but for one case: a host that is cut off mpirun must find out by itself, for with an
 * order to that host under way it would wait for minutes. Until then this thread goes on, and the others hear it. */
static void tell_all(double now)
{
    enum { BYTES = 1 << 14, FOR_MPIRUN = 6 };
    static char text[BYTES];
    double half = dog.limit / 2 > 2 * dog.tick ? dog.limit / 2 : 2 * dog.tick;
    em_watchdog_report(dog.num_ranks, dog.watched, now, now - half, dog.limit, text, sizeof text);
    say(text);
    if (!host_is_silent(now - half)) end_all();
    alarm(0);
    dog.end = now + FOR_MPIRUN;
}

static void end_alone(double now)
{
    char text[1024];
    em_host_text host;
    em_standing_text place;
    em_standing_words(&dog.mine, place);
    snprintf(
        text, sizeof text,
        "expertmesh: rank %d on %s has not moved for %.1f s (--watchdog %g)%s%s, and rank %d, which watches all, does "
        "not answer it: it ends\n",
        dog.rank, em_host(host), now - dog.own_moved, dog.limit, place[0] ? ", at " : "", place, dog.recorder[0].rank);
    say(text);
    em_end_job(EM_INTERNAL);
}

/* A recorder has told; MPI ends this process any moment. Else it does so itself. */
static void end_quietly(void)
{
    struct timespec grace = {.tv_sec = 2};
    nanosleep(&grace, NULL);
    _exit(EM_INTERNAL);
}

/* ---- the thread ---- */

static void note(int rank, const em_standing *standing, double now)
{
    em_watched *w = &dog.watched[rank];
    if (w->standing.beats != standing->beats || w->heard < 0) dog.moved = now;
    w->standing = *standing;
    w->heard = now;
}

static void look_at_self(double now)
{
    em_standing standing;
    em_standing_read(&standing);
    if (standing.beats != dog.mine.beats) dog.own_moved = now;
    dog.mine = standing;
    note(dog.rank, &dog.mine, now);
}

/* To the address that answered last; to all where none did for a while. */
static void tell(int recorder, double now)
{
    const station *s = &dog.recorder[recorder];
    if (s->rank < 0 || s->rank == dog.rank) return;
    if (dog.at[recorder].sin_port && now - dog.answered[recorder] < 3 * dog.tick) {
        send_to(&dog.at[recorder], STANDING);
        return;
    }
    for (int i = 0; i < s->num_addresses; i++)
        send_to(&(struct sockaddr_in){.sin_family = AF_INET, .sin_port = s->port, .sin_addr.s_addr = s->address[i]},
                STANDING);
}

static void hear(const packet *p, const struct sockaddr_in *from, double now)
{
    if (p->kind == STANDING && recorder_number() >= 0) {
        note(p->rank, &p->standing, now);
        dog.address[p->rank] = *from;
        send_to(from, ANSWER);
    }
    for (int i = 0; i < NUM_RECORDERS && p->kind == ANSWER; i++)
        if (dog.recorder[i].rank == p->rank) {
            dog.at[i] = *from;
            dog.answered[i] = now;
        }
    if (p->kind == END) end_quietly();
}

static void hear_all(double now)
{
    packet p;
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    for (ssize_t got; (got = recvfrom(dog.socket, &p, sizeof p, MSG_DONTWAIT, (struct sockaddr *)&from, &length)) >= 0;
         length = sizeof from)
        if (got == (ssize_t)sizeof p && p.key == dog.key && p.rank >= 0 && p.rank < dog.num_ranks) hear(&p, &from, now);
}

/* Rank 0 speaks first; the second recorder where rank 0 does not answer; and whoever hears neither. */
static void judge(double now)
{
    enum { LATER = 2 };
    int number = recorder_number();
    double answered = dog.answered[0] > dog.answered[1] ? dog.answered[0] : dog.answered[1];
    bool stands = now - dog.moved > dog.limit + number * LATER;
    if (dog.end > 0 && now > dog.end) end_all();
    if (dog.end > 0) return;
    if (number == 0 && stands) tell_all(now);
    if (number == 1 && stands && now - dog.answered[0] > LATER) tell_all(now);
    if (number < 0 && now - dog.own_moved > dog.limit + 2 * LATER && now - answered > 2 * LATER) end_alone(now);
}

/* Until when nothing is to be done but to hear. False: stop. */
static bool wait_until(double next)
{
    struct pollfd on[2] = {{.fd = dog.stop, .events = POLLIN}, {.fd = dog.socket, .events = POLLIN}};
    for (double now; (now = clock_now()) < next;) {
        poll(on, dog.socket >= 0 ? 2 : 1, (int)(1e3 * (next - now)) + 1);
        if (on[0].revents) return false;
        if (on[1].revents) hear_all(clock_now());
    }
    return true;
}

static void *watch(void *unused)
{
    (void)unused;
    double last = clock_now();
    dog.own_moved = dog.moved = last;
    do {
        double now = clock_now(), late = now - last - dog.tick;
        if (late > dog.limit / 4) /* this process was stopped, or starved: what it did not hear says nothing */
            dog.own_moved = dog.moved = now;
        last = now;
        look_at_self(now);
        for (int i = 0; i < NUM_RECORDERS; i++) tell(i, now);
        judge(now);
    } while (wait_until(last + dog.tick));
    return NULL;
}

/* ---- beginning and end ---- */

/* The addresses at which this host is reached. */
static void find_addresses(station *s)
{
    struct ifaddrs *all = NULL;
    s->address[s->num_addresses++] = htonl(INADDR_LOOPBACK);
    if (getifaddrs(&all) != 0) return;
    for (const struct ifaddrs *i = all; i && s->num_addresses < MOST_ADDRESSES; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
            (i->ifa_flags & IFF_LOOPBACK))
            continue;
        s->address[s->num_addresses++] = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr.s_addr;
    }
    freeifaddrs(all);
}

static bool open_socket(station *here, em_status *status)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    dog.socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (dog.socket < 0 || bind(dog.socket, (struct sockaddr *)&any, sizeof any) != 0 ||
        getsockname(dog.socket, (struct sockaddr *)&any, &length) != 0)
        return em_fail(status, EM_INTERNAL, "--watchdog: rank %d has no socket: %s; --watchdog 0 runs without",
                       dog.rank, strerror(errno));
    here->port = any.sin_port;
    find_addresses(here);
    return true;
}

/* Everyone's host and process; rank 0 records, and the first rank that is on another host, or rank 1. */
static void choose_recorders(MPI_Comm comm)
{
    em_watched mine = {.process = (int)getpid(), .heard = -1};
    em_host(mine.host);
    dog.watched = em_zeroed(dog.num_ranks, sizeof *dog.watched);
    dog.address = em_zeroed(dog.num_ranks, sizeof *dog.address);
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, dog.watched, sizeof mine, MPI_BYTE, comm);
    int second = dog.num_ranks > 1 ? 1 : -1;
    for (int r = dog.num_ranks - 1; r > 0; r--)
        if (strcmp(dog.watched[r].host, dog.watched[0].host) != 0) second = r;
    dog.recorder[0].rank = 0;
    dog.recorder[1].rank = second;
}

static void share_stations(MPI_Comm comm, const station *here)
{
    if (dog.rank == 0 && getrandom(&dog.key, sizeof dog.key, 0) != (ssize_t)sizeof dog.key)
        dog.key = (uint64_t)getpid() << 32 ^ (uint64_t)(1e9 * clock_now());
    MPI_Bcast(&dog.key, 1, MPI_UINT64_T, 0, comm);
    for (int i = 0; i < NUM_RECORDERS; i++) {
        int rank = dog.recorder[i].rank;
        if (rank < 0) continue;
        dog.recorder[i] = *here;
        dog.recorder[i].rank = rank;
        MPI_Bcast(&dog.recorder[i], (int)sizeof(station), MPI_BYTE, rank, comm);
        dog.answered[i] = -1;
    }
}

/* It handles no signal, and needs little room for its stack. */
static bool start_thread(em_status *status)
{
    enum { STACK = 256 << 10 };
    sigset_t all, before;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&dog.thread, &small, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&small);
    dog.running = error == 0;
    return dog.running ||
           em_fail(status, EM_INTERNAL, "--watchdog: rank %d has no thread for it: %s; --watchdog 0 runs without",
                   dog.rank, strerror(error));
}

bool em_watchdog_open(MPI_Comm comm, double seconds, em_status *status)
{
    station here = {.rank = -1};
    MPI_Comm_rank(comm, &dog.rank);
    MPI_Comm_size(comm, &dog.num_ranks);
    dog.limit = seconds;
    dog.tick = seconds / 10 < 1 ? seconds / 10 : 1;
    dog.stop = eventfd(0, EFD_CLOEXEC);
    if (dog.stop < 0) em_fail(status, EM_INTERNAL, "--watchdog: rank %d: eventfd: %s", dog.rank, strerror(errno));
    if (dog.num_ranks > 1) open_socket(&here, status);
    if (!em_agree(comm, status)) return false;
    choose_recorders(comm);
    share_stations(comm, &here);
    start_thread(status);
    return em_agree(comm, status);
}

void em_watchdog_close(void)
{
    uint64_t one = 1;
    if (dog.running && write(dog.stop, &one, sizeof one) == (ssize_t)sizeof one) pthread_join(dog.thread, NULL);
    dog.running = false;
    if (dog.stop >= 0) close(dog.stop);
    if (dog.socket >= 0) close(dog.socket);
    dog.stop = dog.socket = -1;
    free(dog.watched);
    free(dog.address);
    dog.watched = NULL;
    dog.address = NULL;
}
