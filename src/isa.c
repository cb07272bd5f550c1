/* Which loops this process runs, and on how many threads; declared in kernels.h. */
#include "expertmesh/kernels.h"

#include "dots.h"
#include "tiles.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#ifdef EM_TILES_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const isa_names[EM_NUM_ISAS] = {"plain", "avx2", "avx512", "amx"};
static const char *const compute_names[EM_NUM_COMPUTES] = {"f32", "bf16", "int8"};

const char *em_compute_name(em_compute compute)
{
    return compute_names[compute];
}

bool em_compute_parse(const char *name, em_compute *compute)
{
    for (int c = 0; c < EM_NUM_COMPUTES; c++)
        if (strcmp(name, compute_names[c]) == 0) {
            *compute = (em_compute)c;
            return true;
        }
    return false;
}

/* What this program was built with; NULL: not for this kind of processor. AMX multiplies tiles of 16 and 8 bits only. */
static const em_tiles *const tiles_of[EM_NUM_ISAS] = {
    &em_tiles_plain,
#ifdef EM_TILES_X86
    &em_tiles_avx2,
    &em_tiles_avx512,
    &em_tiles_avx512,
#endif
};

/* One process, one set, one number of threads; 0: not yet said. */
static const em_tiles *tiles;
static em_isa in_use;
static em_isa best = EM_NUM_ISAS - 1; /* that may be chosen */
static int threads;
static em_scratch *scratch; /* [threads] */

#ifdef EM_TILES_X86
/* A bit of what the cpuid instruction says of AMX, which the compiler's own list does not have. Not for use in a product: on
 * a virtual machine the instruction takes 14 us. */
static bool has_bit(int bit)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> bit & 1U) != 0;
}

/* Linux gives a process the tiles' registers when it asks. */
static bool may_use_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

static bool processor_has(em_isa isa)
{
#ifdef EM_TILES_X86
    if (isa == EM_ISA_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == EM_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("fma");
    if (isa == EM_ISA_AMX)
        return processor_has(EM_ISA_AVX512) && has_bit(24) && has_bit(22) && has_bit(25) && may_use_tiles();
#endif
    return isa == EM_ISA_PLAIN;
}

bool em_isa_choose(em_isa *isa, em_status *status)
{
    const char *asked = getenv("EXPERTMESH_ISA");
    for (int i = (int)best; i >= 0; i--) {
        *isa = (em_isa)i;
        if (tiles_of[i] && (!asked || strcmp(asked, isa_names[i]) == 0) && processor_has(*isa)) return true;
    }
    *isa = EM_ISA_PLAIN;
    return em_fail(status, EM_USAGE,
                   "EXPERTMESH_ISA is \"%s\", but this processor and program have no such set (of plain, "
                   "avx2, avx512, amx)",
                   asked);
}

bool em_isa_fix(em_isa isa)
{
    const char *asked = getenv("EXPERTMESH_ISA");
    best = isa;
    return tiles_of[isa] && (!asked || strcmp(asked, isa_names[isa]) == 0) && processor_has(isa);
}

const char *em_isa_name(em_isa isa)
{
    return isa_names[isa];
}

bool em_isa_parse(const char *name, em_isa *isa)
{
    for (int i = 0; i < EM_NUM_ISAS; i++)
        if (strcmp(name, isa_names[i]) == 0) {
            *isa = (em_isa)i;
            return true;
        }
    return false;
}

void em_isa_use(em_isa isa)
{
    in_use = isa;
    tiles = tiles_of[isa];
}

const em_tiles *em_tiles_in_use(void)
{
    em_status ignored = {0};
    em_isa isa;
    if (tiles) return tiles;
    em_isa_choose(&isa, &ignored);
    em_isa_use(isa);
    return tiles;
}

em_isa em_isa_in_use(void)
{
    em_tiles_in_use();
    return in_use;
}

em_dots *em_dots_in_use(em_compute compute)
{
    if (compute == EM_COMPUTE_F32) return NULL;
    em_tiles_in_use();
#ifdef EM_TILES_X86
    if (in_use == EM_ISA_AMX) return compute == EM_COMPUTE_BF16 ? em_dots_bf16_amx : em_dots_int8_amx;
    bool avx512 = in_use == EM_ISA_AVX512;
    if (avx512 && compute == EM_COMPUTE_BF16 && __builtin_cpu_supports("avx512bf16")) return em_dots_bf16_avx512;
    if (avx512 && compute == EM_COMPUTE_INT8 && __builtin_cpu_supports("avx512vnni")) return em_dots_int8_avx512;
#endif
    return NULL;
}

bool em_compute_here(em_compute compute, em_status *status)
{
    static const char *const wanted[EM_NUM_COMPUTES] = {"", "AMX-BF16 or AVX-512-BF16", "AMX-INT8 or AVX-512-VNNI"};
    if (compute == EM_COMPUTE_F32 || em_dots_in_use(compute)) return true;
    return em_fail(status, EM_USAGE, "--compute %s needs %s, which this processor (or EXPERTMESH_ISA=%s) does not have",
                   compute_names[compute], wanted[compute], isa_names[in_use]);
}

/* ---- threads ---- */

void em_threads_use(int count)
{
    free(scratch);
    scratch = em_alloc(count, sizeof *scratch);
    threads = count;
}

int em_threads(void)
{
    if (threads == 0) em_threads_use(1);
    return threads;
}

int64_t em_threads_bytes(int count)
{
    return count * (int64_t)sizeof(em_scratch);
}

em_scratch *em_thread_scratch(void)
{
    return em_threads() > 0 ? scratch + omp_get_thread_num() : NULL;
}
