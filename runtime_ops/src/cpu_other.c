#include "library.h"

#if !defined(__x86_64__) && !defined(_M_X64) &&                                                   \
    !(defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__)))

/* Only portable kernels exist for this machine. */
uint64_t bitcc_cpu_features(void) { return 0; }

#endif
