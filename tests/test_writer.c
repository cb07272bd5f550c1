/* Writes behind the arithmetic: what is put is in the file, in order, within bounded memory, on a slow or full disk too. */
#include "suite.h"

#include "disk.h"
#include "expertmesh/writer.h"
#include "scratch.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TWO_BLOCKS = 2 * EM_WRITER_BLOCK };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static em_dataset numbers_at(int64_t offset)
{
    return (em_dataset){.name = "/numbers", .type = EM_TYPE_INT32, .rank = 1, .offset = offset};
}

static em_writer *start(em_bulk *bulk, const char *name, int64_t most)
{
    em_status status = {0};
    const char *path = scratch_write(name, "", 0);
    CU_ASSERT(em_bulk_open(bulk, path, &status));
    return em_writer_start(bulk, most);
}

static void finish(em_bulk *bulk, em_writer *writer)
{
    em_status status = {0};
    em_writer_stop(writer);
    em_bulk_close(bulk, &status);
    disk_set((disk_faults){0});
}

/* The number at a place of the dataset. */
static int32_t number_of(int64_t place)
{
    return (int32_t)(place * 2654435761 % 1000003);
}

/* Numbers [0, count) of the file that are not the formula's. */
static int64_t wrong_in(const char *name, int64_t offset, int64_t count)
{
    int32_t *found = em_zeroed(count, sizeof *found);
    int64_t wrong = 0;
    int file = open(scratch_path(name), O_RDONLY);
    CU_ASSERT_EQUAL(pread(file, found, (size_t)count * sizeof *found, offset), (ssize_t)(count * 4));
    for (int64_t i = 0; i < count; i++) wrong += found[i] != number_of(i);
    close(file);
    free(found);
    return wrong;
}

/* Put a matrix of `width` columns, columns [begin, end) of each row first; rows in memory lie `stride` apart. */
static void put_columns(em_writer *w, const em_dataset *data, int64_t rows, int64_t width, int64_t begin, int64_t end)
{
    int64_t cols = end - begin, stride = cols + 3;
    int32_t *numbers = em_alloc(rows * stride, sizeof *numbers);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) numbers[r * stride + c] = number_of(r * width + begin + c);
    em_writer_put(w, data, width, 0, rows, begin, cols, numbers, stride);
    memset(numbers, 0xff, (size_t)(rows * stride) * sizeof *numbers); /* the caller's at once */
    free(numbers);
}

/* Pieces of every size, over several times the bound. */
static void test_numbers_and_bound(void)
{
    static const struct {
        int64_t rows, width, cut;
        long slow;
    } cases[] = {{1, 1, 1, 0},        {7, 5, 2, 0},         {3, 700000, 299999, 0},
                 {40, 65536, 1, 0},   {20000, 100, 50, 0},  {1000, 1000, 1000, 0},
                 {1, 4 << 20, 17, 0}, {4000, 600, 300, 20}, {9, 262144, 100000, 3000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_bulk bulk;
        em_status status = {0};
        em_dataset data = numbers_at(520);
        em_writer *w = start(&bulk, "numbers", TWO_BLOCKS);
        disk_set((disk_faults){.slow = cases[i].slow});
        put_columns(w, &data, cases[i].rows, cases[i].width, 0, cases[i].cut);
        put_columns(w, &data, cases[i].rows, cases[i].width, cases[i].cut, cases[i].width);
        CU_ASSERT(em_writer_drain(w, &status));
        CU_ASSERT(em_writer_held(w) <= TWO_BLOCKS);
        CU_ASSERT_EQUAL(wrong_in("numbers", data.offset, cases[i].rows * cases[i].width), 0);
        finish(&bulk, w);
    }
}

/* Little is held for little, and what lies beside each other in the file is one write. */
static void test_small(void)
{
    em_bulk bulk;
    em_status status = {0};
    em_dataset data = numbers_at(0);
    em_writer *w = start(&bulk, "small", (int64_t)1 << 40);
    CU_ASSERT_EQUAL(em_writer_held(w), 0);
    disk_set((disk_faults){0});
    for (int64_t i = 0; i < 1000; i++) {
        int32_t number = number_of(i);
        em_writer_put(w, &data, 1, i, 1, 0, 1, &number, 1);
    }
    CU_ASSERT(em_writer_drain(w, &status));
    CU_ASSERT_EQUAL(disk_calls(), 1);
    CU_ASSERT_EQUAL(em_writer_held(w), EM_WRITER_BLOCK);
    CU_ASSERT_EQUAL(wrong_in("small", 0, 1000), 0);
    finish(&bulk, w);
}

/* Pieces of rows that come column by column are few writes: as many as one block's pieces of a row make one. */
static void test_gathered(void)
{
    enum { ROWS = 64, SLICES = 32, SLICE = 1024, WIDTH = SLICES * SLICE };
    em_bulk bulk;
    em_status status = {0};
    em_dataset data = numbers_at(72);
    em_writer *w = start(&bulk, "gathered", (int64_t)1 << 30);
    int64_t slices_in_block = EM_WRITER_BLOCK / (ROWS * SLICE * (int64_t)sizeof(int32_t));
    disk_set((disk_faults){0});
    for (int64_t s = 0; s < SLICES; s++) put_columns(w, &data, ROWS, WIDTH, s * SLICE, (s + 1) * SLICE);
    CU_ASSERT(em_writer_drain(w, &status));
    CU_ASSERT_EQUAL(wrong_in("gathered", data.offset, ROWS * WIDTH), 0);
    int64_t blocks = SLICES / slices_in_block + 1;  /* each ends within a piece, whose rest is one write more */
    CU_ASSERT(disk_calls() <= (ROWS + 1) * blocks); /* of 2,048 pieces */
    finish(&bulk, w);
}

/* Pieces anywhere, over each other, of two datasets: the file is as if each was written when it was put. */
static void test_over_each_other(void)
{
    enum { COUNT = 5000, MOST = 900 };
    em_bulk bulk;
    em_status status = {0};
    em_dataset data[] = {numbers_at(0), numbers_at(COUNT * (int64_t)sizeof(int32_t))};
    int32_t *wanted = em_zeroed(2 * COUNT, sizeof *wanted), *found = em_alloc(2 * COUNT, sizeof *found);
    for (uint32_t seed = 1; seed <= 20; seed++) {
        em_writer *w = start(&bulk, "over", TWO_BLOCKS);
        memset(wanted, 0, 2 * COUNT * sizeof *wanted);
        em_writer_put(w, &data[0], COUNT, 0, 1, 0, COUNT, wanted, COUNT);
        em_writer_put(w, &data[1], COUNT, 0, 1, 0, COUNT, wanted, COUNT);
        uint32_t draw = seed;
        for (int32_t i = 0; i < 3000; i++) {
            draw = draw * 1664525 + 1013904223;
            int64_t which = draw >> 31, first = (draw >> 8) % (COUNT - MOST), count = 1 + draw % (seed < 10 ? MOST : 3);
            int32_t *part = wanted + which * COUNT + first;
            for (int64_t j = 0; j < count; j++) part[j] = i * MOST + (int32_t)j;
            em_writer_put(w, &data[which], 1, first, count, 0, 1, part, 1);
            if (draw % 700 == 0) em_writer_mark(w);
        }
        CU_ASSERT(em_writer_drain(w, &status));
        int file = open(scratch_path("over"), O_RDONLY);
        CU_ASSERT_EQUAL(pread(file, found, 2 * COUNT * sizeof *found, 0), (ssize_t)(2 * COUNT * sizeof *found));
        CU_ASSERT_EQUAL(memcmp(found, wanted, 2 * COUNT * sizeof *found), 0);
        close(file);
        finish(&bulk, w);
    }
    free(wanted);
    free(found);
}

/* A counter is written after what was put before it, and before what is put after it: whoever looks in between, it is so. */
static void test_counters(void)
{
    enum { COUNT = 1000, TURNS = 6 };
    for (long kept = 1; kept <= 2 * TURNS; kept++) { /* all writes after these fail */
        em_bulk bulk;
        em_status status = {0};
        em_dataset data = numbers_at(400), counter[TURNS];
        em_writer *w = start(&bulk, "counters", TWO_BLOCKS);
        disk_set((disk_faults){.full = kept + 1});
        for (int32_t turn = 0, one = 1; turn < TURNS; turn++) {
            int32_t numbers[COUNT];
            for (int i = 0; i < COUNT; i++) numbers[i] = number_of(turn * COUNT + i);
            em_writer_put(w, &data, COUNT, turn, 1, 0, COUNT, numbers, COUNT);
            counter[turn] = numbers_at(8 + 4 * turn);
            counter[turn].rank = 0;
            em_writer_put(w, &counter[turn], 1, 0, 1, 0, 1, &one, 1);
        }
        em_writer_drain(w, &status);
        int32_t counted[TURNS] = {0};
        int file = open(scratch_path("counters"), O_RDONLY);
        CU_ASSERT_EQUAL(pread(file, counted, sizeof counted, 8), (ssize_t)sizeof counted);
        for (int turn = 0; turn < TURNS; turn++) CU_ASSERT_EQUAL(counted[turn], turn < kept / 2);
        CU_ASSERT_EQUAL(lseek(file, 0, SEEK_END), data.offset + (kept + 1) / 2 * COUNT * (off_t)sizeof(int32_t));
        CU_ASSERT_EQUAL(wrong_in("counters", data.offset, kept / 2 * COUNT), 0);
        close(file);
        finish(&bulk, w);
    }
}

/* Of two writes to one place the later stays. */
static void test_order(void)
{
    em_bulk bulk;
    em_status status = {0};
    em_dataset data = numbers_at(0);
    em_writer *w = start(&bulk, "order", TWO_BLOCKS);
    for (int32_t i = 0; i <= 100000; i++) {
        int32_t number = i < 100000 ? i : number_of(0);
        em_writer_put(w, &data, 1, 0, 1, 0, 1, &number, 1);
        if (i % 1000 == 0) em_writer_mark(w);
    }
    CU_ASSERT(em_writer_drain(w, &status));
    CU_ASSERT(em_writer_held(w) <= TWO_BLOCKS);
    CU_ASSERT_EQUAL(wrong_in("order", 0, 1), 0);
    finish(&bulk, w);
}

/* A mark that is passed says that what was put before it is in the file; asking does not wait. */
static void test_marks(void)
{
    enum { ROWS = 40, WIDTH = 50000 };
    em_bulk bulk;
    em_status status = {0};
    em_dataset data = numbers_at(0);
    em_writer *w = start(&bulk, "marks", (int64_t)1 << 30);
    int32_t *row = em_alloc(WIDTH, sizeof *row);
    int64_t behind = 0, passed = 0, checked = 0;
    disk_set((disk_faults){.slow = 1000});
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t i = 0; i < WIDTH; i++) row[i] = number_of(r * WIDTH + i);
        em_writer_put(w, &data, WIDTH, r, 1, 0, WIDTH, row, WIDTH);
        CU_ASSERT_EQUAL(em_writer_mark(w), r + 1);
        passed = em_writer_passed(w, &status);
        behind += passed < r + 1;
        if (passed > checked) CU_ASSERT_EQUAL(wrong_in("marks", 0, passed * WIDTH), 0);
        checked = passed;
    }
    CU_ASSERT(behind > 0);
    CU_ASSERT(em_writer_drain(w, &status));
    CU_ASSERT_EQUAL(em_writer_passed(w, &status), ROWS);
    free(row);
    finish(&bulk, w);
}

/* From the first write that fails on: nothing waits, nothing is written, and it is said. */
static void test_full_disk(void)
{
    for (long full = 1; full < 40; full += 7) {
        em_bulk bulk;
        em_status status = {0}, again = {0};
        em_dataset data = numbers_at(0);
        em_writer *w = start(&bulk, "full", TWO_BLOCKS);
        disk_set((disk_faults){.full = full});
        for (int i = 0; i < 4; i++) put_columns(w, &data, 40, 65536, 0, 65000);
        em_writer_mark(w);
        CU_ASSERT_FALSE(em_writer_drain(w, &status));
        CU_ASSERT_EQUAL(status.code, EM_CANNOT_WRITE);
        CU_ASSERT_PTR_NOT_NULL(strstr(status.text, "/numbers cannot be written: No space left on device"));
        CU_ASSERT_EQUAL(em_writer_passed(w, &again), -1);
        CU_ASSERT_STRING_EQUAL(again.text, status.text);
        CU_ASSERT_EQUAL(disk_calls(), full);
        finish(&bulk, w);
    }
}

/* A disk that takes what is written and then does not hold it. */
static void test_lost(void)
{
    em_bulk bulk;
    em_status status = {0};
    em_dataset data = numbers_at(0);
    em_writer *w = start(&bulk, "lost", TWO_BLOCKS);
    disk_set((disk_faults){.lost = 1});
    put_columns(w, &data, 400, 65536, 0, 65536);
    em_writer_mark(w);
    CU_ASSERT_FALSE(em_writer_drain(w, &status));
    CU_ASSERT_PTR_NOT_NULL(strstr(status.text, "lost: cannot be written: Input/output error"));
    CU_ASSERT_EQUAL(em_writer_passed(w, &(em_status){0}), -1);
    finish(&bulk, w);
}

/* What is not written when the end comes is not waited for. */
static void test_stop(void)
{
    em_bulk bulk;
    em_dataset data = numbers_at(0);
    em_writer *w = start(&bulk, "stop", (int64_t)1 << 30);
    disk_set((disk_faults){.slow = 100000});
    for (int64_t i = 0; i < 1000; i++) {
        int32_t number = number_of(i);
        em_writer_put(w, &data, 1, 2 * i, 1, 0, 1, &number, 1);
    }
    em_writer_mark(w);
    double begin = seconds();
    finish(&bulk, w);
    CU_ASSERT(seconds() - begin < 10);
    em_writer_stop(NULL);
}

int main(int argc, char **argv)
{
    const suite_test tests[] = {{"numbers and bound", test_numbers_and_bound},
                                {"small", test_small},
                                {"gathered", test_gathered},
                                {"over each other", test_over_each_other},
                                {"counters", test_counters},
                                {"order", test_order},
                                {"marks", test_marks},
                                {"full disk", test_full_disk},
                                {"lost", test_lost},
                                {"stop", test_stop},
                                {NULL, NULL}};
    int code = suite_main(argc, argv, "writer", tests);
    scratch_remove();
    return code;
}
