/* In place of the op library: its table of kernels, for the tests to call. */
#include "bitcc/kernel.h"

__attribute__((visibility("default"))) const bitcc_kernels *const stub_variants = bitcc_variants;
