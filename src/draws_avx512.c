#define DRAWS em_draws_avx512
#include "draws_body.h"
