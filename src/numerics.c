#include "expertmesh/numerics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const em_numerics_profile em_numerics_profiles[EM_NUM_NUMERICS] = {
    {"jax", "the released code", {0}},
    {"llama.cpp",
     "weights of the chosen experts renormalised, their sum not below 6.1e-5 (the least normal float16)",
     {.router_renormalise = true, .router_least_sum = 6.103515625e-5}},
    {"vllm",
     "renormalised; router logits soft-capped at 30; attention's output times attn_output_multiplier as well",
     {.router_renormalise = true, .router_softcap = 30, .scale_attn_output = true}},
    {"sglang", "router logits soft-capped at 30", {.router_softcap = 30}},
};

const em_numerics_profile *em_numerics_find(const char *name)
{
    for (int i = 0; i < EM_NUM_NUMERICS; i++)
        if (strcmp(em_numerics_profiles[i].name, name) == 0) return &em_numerics_profiles[i];
    return NULL;
}

/* The number that follows some words; 0 where they are not there. */
static double number_after(const char *text, const char *words)
{
    const char *found = strstr(text, words);
    return found ? strtod(found + strlen(words), NULL) : 0;
}

em_numerics em_numerics_of_text(const char *text)
{
    if (!text) return (em_numerics){0};
    return (em_numerics){.router_renormalise = strstr(text, "experts renormalised") != NULL,
                         .router_least_sum = number_after(text, "their sum at least "),
                         .router_softcap = number_after(text, "soft-capped at "),
                         .scale_attn_output = strstr(text, "output times attn_output_multiplier") != NULL,
                         .gelu_erf = strstr(text, "GELU by erf") != NULL};
}

char *em_numerics_text(const em_numerics *numerics)
{
    char cap[64] = "router logits as they are", sum[80] = "weights of experts not renormalised";
    if (numerics->router_softcap > 0)
        snprintf(cap, sizeof cap, "router logits soft-capped at %.9g", numerics->router_softcap);
    if (numerics->router_renormalise)
        snprintf(sum, sizeof sum, "weights of experts renormalised, their sum at least %.9g",
                 numerics->router_least_sum);
    return em_text("%s; %s; attention's output %s; GELU by %s", cap, sum,
                   numerics->scale_attn_output ? "times attn_output_multiplier" : "as it is",
                   numerics->gelu_erf ? "erf" : "tanh");
}
