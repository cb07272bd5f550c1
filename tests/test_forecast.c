/* What an even router would make is the mean over all that a router can do: that of one step by one, over every choice. */
#include "suite.h"

#include "forecast.h"
#include "layouts.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_RANKS = 7, MOST_TOKENS = 5, E = 5, S = 2, V = 24 };

typedef struct setting {
    em_config config;
    em_layout layout;
    int host[MOST_RANKS], P;
    int64_t T, first;
    bool flat;
} setting;

static setting draw_setting(bool flat)
{
    setting s = {.config = em_preset_find("tiny")->config, .flat = flat};
    s.config.num_layers = 1;
    s.config.num_experts = E;
    s.config.num_selected_experts = S;
    s.config.vocab_size = V;
    s.P = (int)draw_from(1, MOST_RANKS);
    s.T = draw_from(1, MOST_TOKENS);
    s.first = draw_below(9);
    s.layout = draw_layout(&s.config, s.P);
    int per_host = (int)draw_from(1, s.P);
    for (int r = 0; r < s.P; r++) s.host[r] = r / per_host * per_host;
    return s;
}

/* All tokens alike: of this number, and sent to these experts (below 0: not known). */
static em_forecast forecast(const setting *s, int32_t token, const int32_t *pair)
{
    int32_t token_id[MOST_TOKENS], expert[MOST_TOKENS * S];
    em_forecast f = em_forecast_open(&s->config, &s->layout, s->host, s->flat);
    for (int64_t t = 0; t < s->T; t++) {
        token_id[t] = token;
        for (int c = 0; pair && c < S; c++) expert[t * S + c] = pair[c];
    }
    em_forecast_step(&f, s->first, s->T, token_id, pair ? expert : NULL);
    return f;
}

enum { NUM_COUNTS = 2 * EM_NUM_PHASES * EM_NUM_REACHES, NUM_PAIRS = MOST_RANKS * MOST_RANKS };
typedef struct counts {
    double rows[NUM_COUNTS], dispatched[NUM_PAIRS];
} counts;

static void add_counts(const setting *s, em_forecast f, double share, counts *sum)
{
    for (int i = 0; i < NUM_COUNTS; i++) sum->rows[i] += share * f.rows[i];
    for (int i = 0; i < s->P * s->P; i++) sum->dispatched[i] += share * f.dispatched[i];
    em_forecast_close(&f);
}

static void check_near(const double *a, const double *b, int count)
{
    for (int i = 0; i < count; i++) CU_ASSERT_DOUBLE_EQUAL(a[i], b[i], 1e-9 * (1 + fabs(b[i])));
}

static void an_even_router_is_the_mean_of_all(void)
{
    for (int i = 0; i < 200; i++) {
        setting s = draw_setting(i % 2 == 1);
        counts even = {0}, mean = {0};
        for (int32_t a = 0; a < E; a++)
            for (int32_t b = 0; b < E; b++) {
                em_forecast one = {0};
                if (a == b) continue;
                one = forecast(&s, 3, (int32_t[S]){a, b});
                CU_ASSERT(one.exact);
                add_counts(&s, one, 1.0 / (E * (E - 1)), &mean);
            }
        em_forecast f = forecast(&s, 3, NULL);
        CU_ASSERT(!f.exact);
        add_counts(&s, f, 1, &even);
        check_near(even.rows, mean.rows, NUM_COUNTS);
        check_near(even.dispatched, mean.dispatched, NUM_PAIRS);
        em_layout_free(&s.layout);
    }
}

static void a_token_not_known_is_the_mean_of_all(void)
{
    for (int i = 0; i < 200; i++) {
        setting s = draw_setting(i % 2 == 1);
        const int32_t pair[S] = {0, E - 1};
        counts even = {0}, mean = {0};
        for (int32_t v = 0; v < V; v++) add_counts(&s, forecast(&s, v, pair), 1.0 / V, &mean);
        em_forecast f = forecast(&s, -1, pair);
        CU_ASSERT(!f.exact);
        add_counts(&s, f, 1, &even);
        check_near(even.rows, mean.rows, NUM_COUNTS);
        em_layout_free(&s.layout);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {{"an even router is the mean of all", an_even_router_is_the_mean_of_all},
                                       {"a token not known is the mean of all", a_token_not_known_is_the_mean_of_all},
                                       {NULL, NULL}};
    return suite_main(argc, argv, "forecast", tests);
}
