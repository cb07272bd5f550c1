/* Preloaded into the program: messages between ranks that are never sent, or a rank that stays in the sending of one.
 *
 *   HANG=lose=N    from its Nth message on this rank sends nothing more to whom that was for
 *   HANG=stay=N    it never comes back from sending its Nth
 *   HANG_TELL=FILE              a line for each message: its number, where this rank stands (layer, phase), to whom, bytes */
#include "expertmesh/standing.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long number_after(const char *text, const char *name)
{
    const char *at = text ? strstr(text, name) : NULL;
    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

static void tell(long number, int to, int bytes)
{
    const char *path = getenv("HANG_TELL");
    FILE *file = path ? fopen(path, "a") : NULL;
    em_standing here;
    em_standing_read(&here);
    if (!file) return;
    fprintf(file, "%ld %d %s %d %d\n", number, here.layer, here.phase, to, bytes);
    fclose(file);
}

/* In place of the MPI library's. */
int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    static long sent;
    static int lost_to = -1;
    const char *fault = getenv("HANG");
    int bytes;
    MPI_Type_size(type, &bytes);
    tell(++sent, to, count * bytes);
    while (sent == number_after(fault, "stay=")) pause();
    if (sent == number_after(fault, "lose=")) lost_to = to;
    if (to != lost_to) return PMPI_Isend(buffer, count, type, to, tag, comm, request);
    *request = MPI_REQUEST_NULL;
    return MPI_SUCCESS;
}
