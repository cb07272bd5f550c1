#define DRAWS em_draws_plain
#include "draws_body.h"
