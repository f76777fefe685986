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
