#define _DEFAULT_SOURCE /* syscall() */

#include "library.h"

#if defined(__x86_64__) || defined(_M_X64)

#include <cpuid.h>
#include <stdbool.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The register sets that the operating system saves: a CPU flag alone is no promise of that. */
enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe6 }; /* xmm ymm; and opmask, both halves of zmm */
enum { XCR0_TILES = 0x60000 };                /* their configuration and their data */

/* cpuid leaf 1, ecx */
enum { FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29 };
/* cpuid leaf 7, ebx */
enum { AVX2 = 1u << 5, AVX512F = 1u << 16, AVX512DQ = 1u << 17, AVX512BW = 1u << 30 };
static const unsigned AVX512VL = 1u << 31; /* does not fit an enum's int */
/* cpuid leaf 7, ecx */
enum { AVX512VBMI = 1u << 1, GFNI = 1u << 8, AVX512VNNI = 1u << 11 };
/* cpuid leaf 7, edx */
enum { AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25 };
/* cpuid leaf 7, subleaf 1, eax */
enum { AVXVNNI = 1u << 4 };

static uint64_t saved_registers(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

static bool has(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

/* The family that leaf 1 tells, of AMD's alone: other makers number theirs as they like. */
static bool is_zen5(unsigned signature) {
  enum { EXTENDED = 0xf, ZEN5 = 0x1a };
  unsigned eax, ebx, ecx, edx, family = signature >> 8 & 0xf;
  char vendor[12];
  if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx) || family != EXTENDED)
    return false;
  memcpy(vendor, &ebx, 4);
  memcpy(vendor + 4, &edx, 4);
  memcpy(vendor + 8, &ecx, 4);
  return memcmp(vendor, "AuthenticAMD", sizeof vendor) == 0 &&
         family + (signature >> 20 & 0xff) >= ZEN5;
}

/* The kernels configure palette 1: the CPU must have it, as it was when AMX was new. */
static bool has_palette(void) {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(0x1d, 0, &eax, &ebx, &ecx, &edx) && eax >= 1 &&
         __get_cpuid_count(0x1d, 1, &eax, &ebx, &ecx, &edx) && (ebx & 0xffff) >= 64 &&
         ebx >> 16 >= 8 && (ecx & 0xffff) >= 16; /* bytes of a row, tiles, rows */
}

/* Linux saves tiles only for processes that asked for it, and may refuse: threads with small signal
 * stacks, a sandbox, an old kernel. To ask again is harmless. */
static bool may_use_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

uint64_t bitcc_cpu_features(void) {
  unsigned signature, eax, ebx, ecx, edx, ebx7, ecx7, edx7;
  if (!__get_cpuid(1, &signature, &ebx, &ecx, &edx) || !has(ecx, OSXSAVE | AVX))
    return 0;
  uint64_t saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx7) || !has(saved, XCR0_AVX) ||
      !has(ecx, FMA | F16C) || !has(ebx7, AVX2))
    return 0;
  uint64_t features = BITCC_CPU_AVX2 | (is_zen5(signature) ? BITCC_CPU_ZEN5 : 0);
  unsigned avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
  if (has(saved, XCR0_AVX512) && has(ebx7, avx512) && has(ecx7, AVX512VNNI))
    features |= BITCC_CPU_AVX512VNNI | (has(ecx7, AVX512VBMI | GFNI) ? BITCC_CPU_AVX512VBMI : 0);
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && has(eax, AVXVNNI))
    features |= BITCC_CPU_AVXVNNI;
  if (has(saved, XCR0_TILES) && has(edx7, AMX_TILE | AMX_INT8) && has_palette() && may_use_tiles())
    features |= BITCC_CPU_AMXINT8;
  return features;
}

#endif
