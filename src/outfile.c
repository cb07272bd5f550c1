#include "outfile.h"

#include "expertmesh/trace.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool em_outfile_same(const char *a, const char *b)
{
    struct stat x, y;
    if (!a || !b) return false;
    bool there = stat(a, &x) == 0;
    if (there != (stat(b, &y) == 0)) return false;
    if (!there) { /* the same name in the same folder */
        char *in_a = em_text("%s", a), *in_b = em_text("%s", b), *name_a = em_text("%s", a), *name_b = em_text("%s", b);
        bool same = strcmp(basename(name_a), basename(name_b)) == 0 && stat(dirname(in_a), &x) == 0 &&
                    stat(dirname(in_b), &y) == 0;
        free(in_a);
        free(in_b);
        free(name_a);
        free(name_b);
        if (!same) return false;
    }
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool em_outfile_over(const char *path, const char *other)
{
    char *partial = em_text("%s.partial", path);
    bool over = em_outfile_same(path, other) || em_outfile_same(partial, other);
    free(partial);
    return over;
}

bool em_outfile_spare(const char *path, const char *input, em_status *status)
{
    return !em_outfile_over(path, input) ||
           em_fail(status, EM_CANNOT_WRITE, "-o %s would replace %s, which is read; name another file", path, input);
}

bool em_outfile_check(const em_call *call, const char *path, em_status *status)
{
    int files = call->command->words ? 1 : call->num_arguments;
    for (int i = 0; i < files; i++)
        if (!em_outfile_spare(path, call->argument[i], status)) return false;
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
