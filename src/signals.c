#include "expertmesh/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_int asked; /* lock-free, so a handler may change it */

static void note(int number)
{
    atomic_fetch_or(&asked, number == SIGUSR1 ? EM_ASKED_SAVE : EM_ASKED_STOP);
}

void em_signals_catch(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int em_signals_take(void)
{
    return atomic_exchange(&asked, 0);
}
