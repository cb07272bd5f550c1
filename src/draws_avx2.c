#define DRAWS em_draws_avx2
#include "draws_body.h"
