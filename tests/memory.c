/* Memory that runs out, preloaded into a program: where MEMORY_ENDS is RANK:N, that rank of Open MPI gets no aligned array of
 * 256 KiB or more from the Nth on. */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* In place of the C library's. */
int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    static atomic_long asked;
    long rank, ends;
    const char *given = getenv("MEMORY_ENDS"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    bool ours = given && mine && sscanf(given, "%ld:%ld", &rank, &ends) == 2 && rank == atol(mine);
    if (ours && bytes >= 256 << 10 && atomic_fetch_add(&asked, 1) + 1 >= ends) return ENOMEM;
    int (*real)(void **, size_t, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "posix_memalign");
    return real(memory, alignment, bytes);
}
