/* The summing tree: runs fall into its largest nodes, and the sum has the same bits whoever computed what. */
#include "suite.h"

#include "draw.h"

#include "expertmesh/tree.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT = 5, MAX_LEAVES = 300, MAX_RANKS = 40 };

/* ---- the tree, told again ---- */

static int64_t middle_of(int64_t begin, int64_t end)
{
    return begin + (end - begin) / 2;
}

/* Is [begin, end) a node of the tree over [0, n)? If so, which is the one above? */
static bool find_node(int64_t n, em_range node, em_range *above)
{
    em_range here = {0, n};
    *above = (em_range){-1, n + 1};
    while (here.begin != node.begin || here.end != node.end) {
        if (here.end - here.begin < 2 || here.begin > node.begin || here.end < node.end) return false;
        int64_t middle = middle_of(here.begin, here.end);
        *above = here;
        if (node.begin < middle)
            here.end = middle;
        else
            here.begin = middle;
    }
    return true;
}

/* One element of the sum over a node: what every partition must give, to the bit. */
static float tree_value(const float *leaves, int64_t begin, int64_t end, int64_t element)
{
    if (end - begin == 1) return leaves[begin * COUNT + element];
    int64_t middle = middle_of(begin, end);
    return tree_value(leaves, begin, middle, element) + tree_value(leaves, middle, end, element);
}

/* ---- covers ---- */

/* Disjoint, in order, nothing left out, nothing beyond; each a node, and none with a whole parent in the run. */
static void check_cover(int64_t n, em_range run)
{
    em_range nodes[EM_TREE_MAX_NODES], above;
    int count = em_tree_cover(n, run, nodes);
    int64_t next = run.begin;
    CU_ASSERT(count <= EM_TREE_MAX_NODES);
    for (int i = 0; i < count; i++) {
        CU_ASSERT_EQUAL(nodes[i].begin, next);
        CU_ASSERT(nodes[i].end > nodes[i].begin);
        CU_ASSERT(find_node(n, nodes[i], &above));
        CU_ASSERT_FALSE(run.begin <= above.begin && above.end <= run.end);
        next = nodes[i].end;
    }
    CU_ASSERT_EQUAL(next, run.end);
    CU_ASSERT(em_range_size(run) > 0 || count == 0);
}

static void every_run_of_a_small_tree_is_covered(void)
{
    for (int64_t n = 1; n <= 40; n++)
        for (int64_t begin = 0; begin <= n; begin++)
            for (int64_t end = begin; end <= n; end++) check_cover(n, (em_range){begin, end});
}

/* As many leaves as an int counts: a run of all but the ends falls into the most nodes. */
static void runs_of_a_large_tree_are_covered(void)
{
    for (int i = 0; i < 1000; i++) {
        int64_t n = draw_from(1, INT32_MAX), begin = draw_below(n), end = draw_from(begin, n);
        check_cover(n, (em_range){begin, end});
    }
    check_cover(INT32_MAX, (em_range){1, INT32_MAX - 1});
    check_cover(INT64_C(1) << 31, (em_range){1, (INT64_C(1) << 31) - 1});
    check_cover(INT32_MAX, (em_range){0, INT32_MAX});
}

/* ---- partitions ---- */

static int compare_ends(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Cut [0, n) into runs, some of them empty. Returns how many. */
static int draw_runs(int64_t n, em_range *run)
{
    int num_ranks = (int)draw_from(1, MAX_RANKS);
    int64_t end[MAX_RANKS];
    for (int r = 0; r < num_ranks; r++) end[r] = r < num_ranks - 1 ? draw_from(0, n) : n;
    qsort(end, (size_t)num_ranks, sizeof *end, compare_ends);
    for (int r = 0; r < num_ranks; r++) run[r] = (em_range){r > 0 ? end[r - 1] : 0, end[r]};
    return num_ranks;
}

static void check_ranks_cover(int64_t n, int num_ranks, const em_range *run)
{
    em_cover cover = em_cover_make(n, num_ranks, run);
    em_range nodes[EM_TREE_MAX_NODES];
    int next = 0;
    for (int r = 0; r < num_ranks; r++) {
        int count = em_tree_cover(n, run[r], nodes);
        CU_ASSERT_EQUAL(cover.first_node[r], next);
        for (int i = 0; i < count; i++, next++) {
            CU_ASSERT_EQUAL(cover.rank[next], r);
            CU_ASSERT_EQUAL(cover.node[next].begin, nodes[i].begin);
            CU_ASSERT_EQUAL(cover.node[next].end, nodes[i].end);
        }
    }
    CU_ASSERT_EQUAL(cover.first_node[num_ranks], next);
    CU_ASSERT_EQUAL(cover.num_nodes, next);
    em_cover_free(&cover);
    CU_ASSERT_PTR_NULL(cover.node);
}

static void covers_of_ranks_follow_each_other(void)
{
    em_range run[MAX_RANKS];
    for (int i = 0; i < 300; i++) {
        int64_t n = draw_from(1, MAX_LEAVES);
        int num_ranks = draw_runs(n, run);
        check_ranks_cover(n, num_ranks, run);
    }
}

/* ---- sums ---- */

typedef struct leaf_book {
    const float *leaves;
    int64_t next; /* the leaf to be asked for */
} leaf_book;

static void read_leaf(void *context, int64_t i, float *out)
{
    leaf_book *book = context;
    CU_ASSERT_EQUAL(i, book->next);
    book->next = i + 1;
    memcpy(out, book->leaves + i * COUNT, COUNT * sizeof *out);
}

/* Floats of widely varying magnitude, so that almost any change of the order changes the bits. */
static void draw_leaves(int64_t n, float *leaves)
{
    for (int64_t i = 0; i < n * COUNT; i++) leaves[i] = draw_wide(12);
}

/* Sum as ranks would: each its nodes, then one along the tree, which leaves the parts as they are. */
static void sum_in_parts(int64_t n, int num_ranks, const em_range *run, const float *leaves, float *sum)
{
    em_cover cover = em_cover_make(n, num_ranks, run);
    size_t size = (size_t)cover.num_nodes * COUNT * sizeof(float);
    float *parts = malloc(size), *before = malloc(size), room[COUNT + 1] = {[COUNT] = 77};
    const float **part = malloc((size_t)cover.num_nodes * sizeof *part);
    for (int i = 0; i < cover.num_nodes; i++) {
        leaf_book book = {leaves, cover.node[i].begin};
        part[i] = parts + i * COUNT;
        float *scratch = em_alloc(em_tree_depth(cover.node[i]) * COUNT, sizeof *scratch);
        em_tree_sum(cover.node[i], COUNT, read_leaf, &book, parts + i * COUNT, scratch);
        free(scratch);
        CU_ASSERT_EQUAL(book.next, cover.node[i].end);
    }
    memcpy(before, parts, size);
    const float *whole = em_tree_finish(n, cover.node, COUNT, part, room);
    CU_ASSERT_PTR_EQUAL(whole, cover.num_nodes == 1 ? parts : room);
    CU_ASSERT_EQUAL(memcmp(before, parts, size), 0);
    CU_ASSERT_EQUAL(room[COUNT], 77);
    memcpy(sum, whole, COUNT * sizeof *sum);
    free(before);
    free(part);
    free(parts);
    em_cover_free(&cover);
}

static void bits_do_not_depend_on_the_partition(void)
{
    float leaves[MAX_LEAVES * COUNT], expected[COUNT], sum[COUNT];
    em_range run[MAX_RANKS];
    for (int i = 0; i < 60; i++) {
        int64_t n = i < 20 ? i + 1 : draw_from(1, MAX_LEAVES);
        draw_leaves(n, leaves);
        for (int64_t k = 0; k < COUNT; k++) expected[k] = tree_value(leaves, 0, n, k);
        for (int p = 0; p < 40; p++) {
            int num_ranks = draw_runs(n, run);
            sum_in_parts(n, num_ranks, run, leaves, sum);
            CU_ASSERT_EQUAL(memcmp(sum, expected, sizeof sum), 0);
        }
    }
}

/* One leaf a rank is the most parts there can be; one rank is the fewest. */
static void bits_are_the_same_for_single_leaves(void)
{
    float leaves[MAX_RANKS * COUNT], all[COUNT], single[COUNT];
    for (int64_t n = 1; n <= MAX_RANKS; n++) {
        em_range run[MAX_RANKS], whole = {0, n};
        draw_leaves(n, leaves);
        for (int64_t r = 0; r < n; r++) run[r] = (em_range){r, r + 1};
        sum_in_parts(n, (int)n, run, leaves, single);
        sum_in_parts(n, 1, &whole, leaves, all);
        CU_ASSERT_EQUAL(memcmp(single, all, sizeof all), 0);
    }
}

/* The tests above can only fail if the order matters for these numbers: a sum from left to right has other bits. */
static void the_order_of_summing_matters_here(void)
{
    float leaves[MAX_LEAVES * COUNT];
    int different = 0, tries = 100;
    for (int i = 0; i < tries; i++) {
        draw_leaves(MAX_LEAVES, leaves);
        float plain = leaves[0];
        for (int64_t j = 1; j < MAX_LEAVES; j++) plain += leaves[j * COUNT];
        different += plain != tree_value(leaves, 0, MAX_LEAVES, 0);
    }
    CU_ASSERT(different > tries / 2);
}

/* And the sum is right, within what float allows. */
static void the_sum_is_a_sum(void)
{
    float leaves[MAX_LEAVES * COUNT], sum[COUNT];
    for (int64_t n = 1; n < MAX_LEAVES; n += 13) {
        em_range whole = {0, n};
        draw_leaves(n, leaves);
        sum_in_parts(n, 1, &whole, leaves, sum);
        for (int64_t k = 0; k < COUNT; k++) {
            double exact = 0, size = 0;
            for (int64_t i = 0; i < n; i++) exact += (double)leaves[i * COUNT + k];
            for (int64_t i = 0; i < n; i++) size += fabs((double)leaves[i * COUNT + k]);
            CU_ASSERT(fabs((double)sum[k] - exact) <= 10 * ldexp(size, -24)); /* at most 9 additions deep */
        }
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"every run of a small tree is covered", every_run_of_a_small_tree_is_covered},
        {"runs of a large tree are covered", runs_of_a_large_tree_are_covered},
        {"covers of ranks follow each other", covers_of_ranks_follow_each_other},
        {"bits do not depend on the partition", bits_do_not_depend_on_the_partition},
        {"bits are the same for single leaves", bits_are_the_same_for_single_leaves},
        {"the order of summing matters here", the_order_of_summing_matters_here},
        {"the sum is a sum", the_sum_is_a_sum},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "tree", tests);
}
