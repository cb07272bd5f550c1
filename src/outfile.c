#include "outfile.h"

#include "expertmesh/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_file(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

bool em_outfile_check(const em_call *call, const char *path, em_status *status)
{
    int files = call->command->words ? 1 : call->num_arguments;
    for (int i = 0; i < files; i++)
        if (same_file(call->argument[i], path))
            return em_fail(status, EM_CANNOT_WRITE, "-o %s would replace the trace %s; name another file", path,
                           call->argument[i]);
    return em_output_check(path, em_option_value(call, "force") != NULL, status);
}

/* All of it, down to the disk. */
static bool fill_file(FILE *out, const char *path, em_outfile_fill *fill, void *what, em_status *status)
{
    errno = 0;
    if (!fill(out, what, status)) return false;
    if (fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0) return true;
    return em_fail(status, EM_CANNOT_WRITE, "%s: cannot be written: %s", path, strerror(errno));
}

bool em_outfile_write(const char *path, em_outfile_fill *fill, void *what, em_status *status)
{
    char *partial = em_text("%s.partial", path);
    FILE *out = fopen(partial, "we");
    bool good = out != NULL;
    if (!out) em_fail(status, EM_CANNOT_WRITE, "%s: cannot be created: %s", partial, strerror(errno));
    if (good) good = fill_file(out, partial, fill, what, status);
    if (out && fclose(out) != 0 && good)
        good = em_fail(status, EM_CANNOT_WRITE, "%s: cannot be closed: %s", partial, strerror(errno));
    if (good && rename(partial, path) != 0)
        good = em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", partial, path, strerror(errno));
    if (out && !good) unlink(partial);
    free(partial);
    return good;
}
