/* What the parts of the self-test share. */
#ifndef BITCC_SELF_TEST_H
#define BITCC_SELF_TEST_H

#include <stdint.h>

#include "bitcc/kernel.h"

static inline uint32_t next(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

/* self_test_products.c: the first of the kernels that read weights which is wrong, or NULL. */
const char *bitcc_self_test_products(const bitcc_kernels *kernels);

#endif
