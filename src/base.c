#include "expertmesh/base.h"

#include "expertmesh/standing.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

bool em_fail(em_status *status, int code, const char *format, ...)
{
    if (status->code != EM_OK) return false;
    va_list args;
    va_start(args, format);
    vsnprintf(status->text, sizeof status->text, format, args);
    va_end(args);
    status->code = code;
    return false;
}

bool em_agree(MPI_Comm comm, em_status *status)
{
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    int speaker = status->code != EM_OK ? rank : size;
    em_wait("all ranks, to agree");
    MPI_Allreduce(MPI_IN_PLACE, &speaker, 1, MPI_INT, MPI_MIN, comm);
    if (speaker < size) MPI_Bcast(status, (int)sizeof *status, MPI_BYTE, speaker, comm);
    em_wait(NULL);
    return speaker == size;
}

const char *em_host(em_host_text buffer)
{
    buffer[0] = '\0';
    gethostname(buffer, sizeof(em_host_text) - 1);
    buffer[sizeof(em_host_text) - 1] = '\0';
    return buffer;
}

void em_end_job(int code)
{
    enum { SECONDS = 5 };
    int started = 0, finished = 0;
    signal(SIGALRM, SIG_DFL);
    alarm(
        SECONDS); /* MPI may be in no state to end anything: then this process ends alone, and its daemon the others */
    fflush(NULL);
    MPI_Initialized(&started);
    MPI_Finalized(&finished);
    if (started && !finished) MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

void em_die(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    int started = 0, finished = 0, rank = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&finished);
    if (started && !finished) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    em_standing standing;
    em_standing_text place;
    em_host_text host;
    em_standing_read(&standing);
    em_standing_words(&standing, place);
    fprintf(stderr, "expertmesh: rank %d on %s%s%s: %s\n", rank, em_host(host), place[0] ? ", " : "", place, text);
    em_end_job(EM_INTERNAL);
}

static void on_mpi_error(MPI_Comm *comm, int *code, ...)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    (void)comm;
    MPI_Error_string(*code, text, &length);
    em_die("MPI failed: %s", text);
}

MPI_Errhandler em_mpi_error_handler(void)
{
    MPI_Errhandler handler;
    MPI_Comm_create_errhandler(on_mpi_error, &handler);
    return handler;
}

void *em_alloc(int64_t count, size_t size)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) || bytes > (size_t)INT64_MAX - 64)
        em_die("allocation of %lld x %zu bytes overflows", (long long)count, size);
    enum { HUGE_PAGE = 2 << 20, WORTH_IT = 4 * HUGE_PAGE }; /* a smaller array could lose much to being aligned */
    bytes = (bytes + 63) / 64 * 64;
    void *memory;
    if (posix_memalign(&memory, bytes < WORTH_IT ? 64 : HUGE_PAGE, bytes > 0 ? bytes : 64) != 0)
        em_die("out of memory: %zu bytes could not be allocated", bytes);
    /* Only the whole huge pages, so that no more becomes resident than is asked for. Where there are none: no harm. */
    if (bytes >= WORTH_IT) madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

void *em_zeroed(int64_t count, size_t size)
{
    void *memory = em_alloc(count, size);
    memset(memory, 0, (size_t)count * size);
    return memory;
}

void *em_grow(void *old, int64_t old_count, int64_t count, size_t size)
{
    void *grown = em_alloc(count, size);
    if (old) memcpy(grown, old, (size_t)old_count * size);
    free(old);
    return grown;
}

void *em_room_for(em_room *room, int64_t count, size_t size)
{
    if (count * (int64_t)size > room->bytes || !room->memory) {
        free(room->memory);
        room->memory = em_alloc(count, size);
        room->bytes = count * (int64_t)size;
    }
    return room->memory;
}

void em_room_free(em_room *room)
{
    free(room->memory);
    *room = (em_room){0};
}

char *em_text(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = em_alloc(length + 1, 1);
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

const char *em_bytes(double bytes, em_bytes_text buffer)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int power = 0;
    while (bytes >= 999.5 && power < 5) {
        bytes /= 1000;
        power++;
    }
    snprintf(buffer, sizeof(em_bytes_text), power == 0 ? "%.0f %s" : "%.2f %s", bytes, unit[power]);
    return buffer;
}

const char *em_count(int64_t count, em_count_text buffer)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count), out = 0;
    for (int i = 0; i < length; i++) {
        buffer[out++] = digits[i];
        int left = length - 1 - i;
        if (left > 0 && left % 3 == 0 && digits[i] != '-') buffer[out++] = ',';
    }
    buffer[out] = '\0';
    return buffer;
}

/* The number after `key` in a file of "key value" lines, or the first number where key is NULL; -1 where there is none. */
static int64_t number_in_file(const char *path, const char *key)
{
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    char line[256];
    long long number = -1;
    while (number < 0 && fgets(line, sizeof line, file)) {
        size_t skip = key ? strlen(key) : 0;
        if (key && strncmp(line, key, skip) != 0) continue;
        if (sscanf(line + skip, "%lld", &number) != 1) number = -1;
        if (!key) break;
    }
    fclose(file);
    return number;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t em_memory_available(void)
{
    int64_t kilobytes = number_in_file("/proc/meminfo", "MemAvailable:");
    int64_t available = kilobytes >= 0 ? kilobytes * 1024 : INT64_MAX;
    int64_t limit = number_in_file("/sys/fs/cgroup/memory.max", NULL);
    int64_t used = number_in_file("/sys/fs/cgroup/memory.current", NULL);
    int64_t cached =
        number_in_file("/sys/fs/cgroup/memory.stat", "inactive_file "); /* counted as used, given back when asked */
    if (used >= 0 && cached > 0) used -= cached;
    if (limit >= 0 && used >= 0) available = smaller(available, limit > used ? limit - used : 0);
    return available;
}

/* What part of the cores the control group lets run at once. */
static double part_allowed(int cores)
{
    long long quota, period;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    bool limited = file && fscanf(file, "%lld %lld", &quota, &period) == 2 && period > 0;
    double allowed = limited ? (double)quota / (double)period : cores;
    if (file) fclose(file);
    return allowed < cores ? allowed / cores : 1;
}

int em_cores(MPI_Comm comm)
{
    MPI_Comm host;
    cpu_set_t mine;
    int ranks;
    double cores = 0;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) CPU_SET(0, &mine);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &ranks);
    cpu_set_t *all = em_alloc(ranks, sizeof *all);
    MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, host);
    MPI_Comm_free(&host);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int sharing = 0;
        for (int r = 0; CPU_ISSET(cpu, &mine) && r < ranks; r++) sharing += CPU_ISSET(cpu, &all[r]) != 0;
        if (sharing > 0) cores += 1.0 / sharing;
    }
    free(all);
    cores = cores * part_allowed(CPU_COUNT(&mine)) + 1e-6; /* three thirds are one */
    return cores < 1 ? 1 : (int)cores;
}

/* What a limit leaves this process, of which /proc/self/status says under key how much it has. */
static int64_t left_of(rlim_t limit, const char *key)
{
    if (limit == RLIM_INFINITY) return INT64_MAX;
    int64_t kilobytes = number_in_file("/proc/self/status", key);
    int64_t left = (int64_t)limit - (kilobytes > 0 ? kilobytes * 1024 : 0);
    return left > 0 ? left : 0;
}

int64_t em_address_space_left(void)
{
    struct rlimit space;
    return getrlimit(RLIMIT_AS, &space) == 0 ? left_of(space.rlim_cur, "VmSize:") : INT64_MAX;
}

int64_t em_memory_left(void)
{
    struct rlimit data;
    int64_t of_data = getrlimit(RLIMIT_DATA, &data) == 0 ? left_of(data.rlim_cur, "VmData:") : INT64_MAX;
    return smaller(em_address_space_left(), of_data);
}

int64_t em_memory_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}
