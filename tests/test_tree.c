/* The summing tree: what a rank owns falls into its largest nodes, and the sum has the same bits whoever computed what. */
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

static bool has_one_owner(em_range node, const int *owner)
{
    for (int64_t u = node.begin; u < node.end; u++)
        if (owner[u] != owner[node.begin]) return false;
    return true;
}

/* In order, nothing left out, nothing beyond; each a node of one owner, and none with a whole parent of that owner. */
static void check_cover(int64_t n, int num_ranks, const int *owner)
{
    em_cover cover = em_cover_make(n, num_ranks, owner);
    em_range above;
    int64_t next = 0;
    int count[MAX_RANKS] = {0};
    for (int i = 0; i < cover.num_nodes; i++) {
        em_range node = cover.node[i];
        CU_ASSERT_EQUAL(node.begin, next);
        CU_ASSERT(node.end > node.begin);
        CU_ASSERT(find_node(n, node, &above));
        CU_ASSERT(has_one_owner(node, owner));
        CU_ASSERT(above.begin < 0 || !has_one_owner(above, owner));
        CU_ASSERT_EQUAL(cover.rank[i], owner[node.begin]);
        CU_ASSERT_EQUAL(cover.place[i], count[cover.rank[i]]++);
        next = node.end;
    }
    CU_ASSERT_EQUAL(next, n);
    for (int r = 0; r < num_ranks; r++) CU_ASSERT_EQUAL(em_cover_count(&cover, r), count[r]);
    em_cover_free(&cover);
    CU_ASSERT_PTR_NULL(cover.node);
}

static void every_set_of_a_small_tree_is_covered(void)
{
    int owner[12];
    for (int n = 1; n <= 12; n++)
        for (int set = 0; set < 1 << n; set++) {
            for (int u = 0; u < n; u++) owner[u] = set >> u & 1;
            check_cover(n, 2, owner);
        }
}

/* ---- owners ---- */

static int compare_ends(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Cut [0, n) into runs, some of them empty. Returns how many. */
static int draw_runs(int64_t n, int *owner)
{
    int num_ranks = (int)draw_from(1, MAX_RANKS);
    int64_t end[MAX_RANKS], u = 0;
    for (int r = 0; r < num_ranks; r++) end[r] = r < num_ranks - 1 ? draw_from(0, n) : n;
    qsort(end, (size_t)num_ranks, sizeof *end, compare_ends);
    for (int r = 0; r < num_ranks; r++)
        while (u < end[r]) owner[u++] = r;
    return num_ranks;
}

/* Each leaf to any rank, or blocks of neighbours. */
static int draw_scattered(int64_t n, int *owner)
{
    int num_ranks = (int)draw_from(1, MAX_RANKS);
    int64_t block = draw_from(1, 9);
    for (int64_t u = 0; u < n; u++) owner[u] = u % block == 0 ? (int)draw_below(num_ranks) : owner[u - 1];
    return num_ranks;
}

static int draw_owners(int64_t n, int *owner)
{
    return draw_below(2) ? draw_runs(n, owner) : draw_scattered(n, owner);
}

static void any_owners_are_covered(void)
{
    int owner[MAX_LEAVES];
    for (int i = 0; i < 600; i++) {
        int64_t n = draw_from(1, MAX_LEAVES);
        int num_ranks = draw_owners(n, owner);
        check_cover(n, num_ranks, owner);
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
static void sum_in_parts(int64_t n, int num_ranks, const int *owner, const float *leaves, float *sum)
{
    em_cover cover = em_cover_make(n, num_ranks, owner);
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
    int owner[MAX_LEAVES];
    for (int i = 0; i < 60; i++) {
        int64_t n = i < 20 ? i + 1 : draw_from(1, MAX_LEAVES);
        draw_leaves(n, leaves);
        for (int64_t k = 0; k < COUNT; k++) expected[k] = tree_value(leaves, 0, n, k);
        for (int p = 0; p < 40; p++) {
            int num_ranks = draw_owners(n, owner);
            sum_in_parts(n, num_ranks, owner, leaves, sum);
            CU_ASSERT_EQUAL(memcmp(sum, expected, sizeof sum), 0);
        }
    }
}

/* One leaf a rank is the most parts there can be; one rank is the fewest. */
static void bits_are_the_same_for_single_leaves(void)
{
    float leaves[MAX_RANKS * COUNT], all[COUNT], single[COUNT];
    for (int64_t n = 1; n <= MAX_RANKS; n++) {
        int own[MAX_RANKS], one[MAX_RANKS] = {0};
        draw_leaves(n, leaves);
        for (int r = 0; r < n; r++) own[r] = r;
        sum_in_parts(n, (int)n, own, leaves, single);
        sum_in_parts(n, 1, one, leaves, all);
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
        int one[MAX_LEAVES] = {0};
        draw_leaves(n, leaves);
        sum_in_parts(n, 1, one, leaves, sum);
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
        {"every set of a small tree is covered", every_set_of_a_small_tree_is_covered},
        {"any owners are covered", any_owners_are_covered},
        {"bits do not depend on the partition", bits_do_not_depend_on_the_partition},
        {"bits are the same for single leaves", bits_are_the_same_for_single_leaves},
        {"the order of summing matters here", the_order_of_summing_matters_here},
        {"the sum is a sum", the_sum_is_a_sum},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "tree", tests);
}
