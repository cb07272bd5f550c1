/* expertmesh/numerics.h: where published programs disagree about Grok-1's arithmetic, and what each does. Pure data.
 *
 * Weights are the same in all of them. Zero in every field is the released JAX code. */
#ifndef EXPERTMESH_NUMERICS_H
#define EXPERTMESH_NUMERICS_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_numerics {
    bool router_renormalise; /* weights of the chosen experts are divided by their sum */
    double router_least_sum; /* which counts as no less than this */
    double router_softcap;   /* router logits x become cap * tanh(x / cap); 0: as they are */
    bool scale_attn_output;  /* attention's output, too, is multiplied by attn_output_multiplier */
    bool gelu_erf;           /* GELU by the error function, not by its tanh form */
} em_numerics;

typedef struct em_numerics_profile {
    const char *name, *meaning;
    em_numerics numerics;
} em_numerics_profile;

enum { EM_NUM_NUMERICS = 4 };
extern const em_numerics_profile em_numerics_profiles[EM_NUM_NUMERICS];

/* NULL where there is none of this name. */
const em_numerics_profile *em_numerics_find(const char *name);

/* In words, as a trace keeps it: "router logits soft-capped at 30; ...". Freed with free. */
char *em_numerics_text(const em_numerics *numerics);
/* And back; NULL, as of a trace that says nothing, is the released code. */
em_numerics em_numerics_of_text(const char *text);

#ifdef __cplusplus
}
#endif
#endif
