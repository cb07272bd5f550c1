/* The list of what a trace records, against the table of the file format. */
#include "suite.h"

#include "expertmesh/quantities.h"

#include <stdio.h>
#include <string.h>

/* Name, type, axes with blanks between, and TransformerLens' name. */
static const struct {
    const char *name;
    em_type type;
    const char *axes, *tl_name;
} format_table[] = {
    {"token_ids", EM_TYPE_INT32, "token", "tokens"},
    {"sequence", EM_TYPE_INT32, "token", NULL},
    {"position", EM_TYPE_INT32, "token", NULL},
    {"resid_pre", EM_TYPE_F32, "layer token emb", "blocks.{layer}.hook_resid_pre"},
    {"resid_mid", EM_TYPE_F32, "layer token emb", "blocks.{layer}.hook_resid_mid"},
    {"resid_post", EM_TYPE_F32, "layer token emb", "blocks.{layer}.hook_resid_post"},
    {"attn_q", EM_TYPE_F32, "layer token q_head head_dim", "blocks.{layer}.attn.hook_rot_q"},
    {"attn_k", EM_TYPE_F32, "layer token kv_head head_dim", "blocks.{layer}.attn.hook_rot_k"},
    {"attn_v", EM_TYPE_F32, "layer token kv_head head_dim", "blocks.{layer}.attn.hook_v"},
    {"attn_z", EM_TYPE_F32, "layer token q_head head_dim", "blocks.{layer}.attn.hook_z"},
    {"attn_out", EM_TYPE_F32, "layer token emb", "blocks.{layer}.hook_attn_out"},
    {"ffn_in", EM_TYPE_F32, "layer token emb", "blocks.{layer}.ln2.hook_normalized"},
    {"router_logits", EM_TYPE_F32, "layer token expert", NULL},
    {"router_probs", EM_TYPE_F32, "layer token expert", "blocks.{layer}.mlp.hook_expert_weights"},
    {"expert_indices", EM_TYPE_INT32, "layer token choice", "blocks.{layer}.mlp.hook_expert_indices"},
    {"expert_weights", EM_TYPE_F32, "layer token choice", NULL},
    {"ffn_hidden", EM_TYPE_F32, "layer token choice neuron", "blocks.{layer}.mlp.hook_post"},
    {"ffn_out", EM_TYPE_F32, "layer token emb", "blocks.{layer}.hook_mlp_out"},
    {"final_hidden", EM_TYPE_F32, "token emb", "ln_final.hook_normalized"},
    {"logits", EM_TYPE_F32, "token vocab", NULL},
    {"dispatch_rows", EM_TYPE_INT64, "layer source_rank rank", NULL},
    {"expert_load", EM_TYPE_INT64, "layer expert", NULL},
    {"phase_seconds", EM_TYPE_F64, "layer rank phase", NULL},
    {"memory_bytes", EM_TYPE_INT64, "rank memory", NULL},
    {"exchange_rows", EM_TYPE_INT64, "layer rank phase reach", NULL},
    {"outer_exchange_rows", EM_TYPE_INT64, "rank phase reach", NULL},
    {"exchange_bytes", EM_TYPE_INT64, "layer rank phase reach", NULL},
    {"outer_exchange_bytes", EM_TYPE_INT64, "rank phase reach", NULL},
};
enum { IN_FORMAT = sizeof format_table / sizeof *format_table };

/* The axes of a quantity with blanks between. */
static void join_axes(const em_quantity_info *info, char *out, size_t room)
{
    size_t length = 0;
    out[0] = '\0';
    for (int a = 0; a < info->num_axes && length < room; a++)
        length += (size_t)snprintf(out + length, room - length, "%s%s", a > 0 ? " " : "", em_axes[info->axis[a]].name);
}

static void quantities_are_those_of_the_format(void)
{
    for (int i = 0; i < IN_FORMAT; i++) {
        int q = em_quantity_find(format_table[i].name);
        CU_ASSERT(q >= 0);
        if (q < 0) continue;
        char axes[100];
        const char *tl_name = format_table[i].tl_name;
        join_axes(&em_quantities[q], axes, sizeof axes);
        CU_ASSERT_EQUAL(em_quantities[q].type, format_table[i].type);
        CU_ASSERT_STRING_EQUAL(axes, format_table[i].axes);
        CU_ASSERT_EQUAL(em_quantities[q].tl_name == NULL, tl_name == NULL);
        if (tl_name && em_quantities[q].tl_name) CU_ASSERT_STRING_EQUAL(em_quantities[q].tl_name, tl_name);
    }
}

static void names_are_unique_and_found(void)
{
    for (int q = 0; q < EM_NUM_QUANTITIES; q++) CU_ASSERT_EQUAL(em_quantity_find(em_quantities[q].name), q);
    for (int q = 0; q < EM_NUM_QUANTITIES; q++)
        for (int other = 0; em_quantities[q].tl_name && other < q; other++)
            if (em_quantities[other].tl_name)
                CU_ASSERT_STRING_NOT_EQUAL(em_quantities[q].tl_name, em_quantities[other].tl_name);
    CU_ASSERT_EQUAL(em_quantity_find("resid"), -1);
    CU_ASSERT_EQUAL(em_quantity_find(""), -1);
    CU_ASSERT_EQUAL(em_quantity_find("LOGITS"), -1);
}

/* A scale is a dataset beside the quantities, so its name must not be one of theirs. */
static void axes_have_names_of_their_own(void)
{
    for (int a = 0; a < EM_NUM_AXES; a++) {
        CU_ASSERT_EQUAL(em_quantity_find(em_axes[a].name), -1);
        CU_ASSERT(em_axes[a].long_name && em_axes[a].long_name[0]);
        for (int other = 0; other < a; other++) CU_ASSERT_STRING_NOT_EQUAL(em_axes[a].name, em_axes[other].name);
    }
}

static void every_quantity_has_one_line_of_meaning(void)
{
    for (int q = 0; q < EM_NUM_QUANTITIES; q++) {
        const em_quantity_info *info = &em_quantities[q];
        CU_ASSERT(info->long_name && info->long_name[0] && !strchr(info->long_name, '\n'));
        CU_ASSERT(info->num_axes >= 1 && info->num_axes <= EM_MAX_AXES);
        CU_ASSERT(!info->units || info->units[0]);
        for (int a = 0; a < info->num_axes; a++)
            for (int other = 0; other < a; other++) CU_ASSERT_NOT_EQUAL(info->axis[a], info->axis[other]);
    }
}

/* A user names what the model computes. What tells tokens apart, and what happened between ranks, is always there. */
static void a_user_may_leave_out_what_the_model_computes(void)
{
    static const char *const always[] = {"token_ids",      "sequence",
                                         "position",       "dispatch_rows",
                                         "expert_load",    "phase_seconds",
                                         "exchange_rows",  "outer_exchange_rows",
                                         "exchange_bytes", "outer_exchange_bytes",
                                         "memory_bytes"};
    enum { ALWAYS = sizeof always / sizeof *always };
    int optional = 0;
    for (int i = 0; i < IN_FORMAT; i++) {
        bool kept = false;
        for (int k = 0; k < ALWAYS; k++) kept |= !strcmp(always[k], format_table[i].name);
        em_quantity q = (em_quantity)em_quantity_find(format_table[i].name);
        CU_ASSERT_EQUAL(em_quantity_optional(q), !kept);
        optional += em_quantity_optional(q);
    }
    CU_ASSERT_EQUAL(optional, IN_FORMAT - ALWAYS);
    CU_ASSERT(EM_NUM_QUANTITIES <= 64); /* a bit each in a trace's request */
}

/* What two runs of one model may differ in: how rows were spread over ranks, and what was done when. */
static void what_differs_between_ranks_and_steps_is_of_the_machine(void)
{
    for (int q = 0; q < EM_NUM_QUANTITIES; q++) {
        const em_quantity_info *info = &em_quantities[q];
        bool differs = false;
        for (int a = 0; a < info->num_axes; a++)
            differs |= info->axis[a] == EM_AXIS_RANK || info->axis[a] == EM_AXIS_STEP;
        CU_ASSERT_EQUAL(em_quantity_of_machine((em_quantity)q), differs);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"quantities are those of the format", quantities_are_those_of_the_format},
        {"names are unique and found", names_are_unique_and_found},
        {"axes have names of their own", axes_have_names_of_their_own},
        {"every quantity has one line of meaning", every_quantity_has_one_line_of_meaning},
        {"a user may leave out what the model computes", a_user_may_leave_out_what_the_model_computes},
        {"what differs between ranks and steps is of the machine",
         what_differs_between_ranks_and_steps_is_of_the_machine},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "quantities", tests);
}
