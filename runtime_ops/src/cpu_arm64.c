#include "library.h"

#if defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

/* What the kernel found in every core of the machine. <asm/hwcap.h> of an old libc lacks the newer. */
enum { ASIMD = 1u << 1, ASIMDDP = 1u << 20 }; /* AT_HWCAP */
enum { I8MM = 1u << 13 };                     /* AT_HWCAP2 */

uint64_t bitcc_cpu_features(void) {
  unsigned long capabilities = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
  if (!(capabilities & ASIMD))
    return 0;
  if (!(capabilities & ASIMDDP))
    return BITCC_CPU_NEON;
  return BITCC_CPU_NEON | BITCC_CPU_DOTPROD | (more & I8MM ? BITCC_CPU_I8MM : 0u);
}

#endif

#if defined(__aarch64__) && defined(__APPLE__)

#include <stdbool.h>
#include <sys/sysctl.h>

/* Whether the system knows this feature, and every core has it. */
static bool has(const char *feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, NULL, 0) == 0 && value != 0;
}

uint64_t bitcc_cpu_features(void) {
  if (!has("hw.optional.arm.FEAT_DotProd"))
    return BITCC_CPU_NEON; /* which every Mac has */
  bool i8mm = has("hw.optional.arm.FEAT_I8MM");
  return BITCC_CPU_NEON | BITCC_CPU_DOTPROD | (i8mm ? BITCC_CPU_I8MM : 0u);
}

#endif
