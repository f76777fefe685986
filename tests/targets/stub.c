/* In place of the op library: the table of kernels, for the tests to call. */
#include "bitcc/kernel.h"

#define BITCC_VARIANT(name, features, tokens, tiles, float_tiles) \
  extern bitcc_absmax_fn bitcc_absmax_##name; \
  extern bitcc_quantize_fn bitcc_quantize_##name; \
  extern bitcc_quantize_fn bitcc_quantize_divide_##name; \
  extern bitcc_gemv_fn bitcc_gemv_##name; \
  extern bitcc_gemm_fn bitcc_gemm_##name; \
  extern bitcc_gemv_float_fn bitcc_gemv_float_##name;
#include "variants.inc"
#undef BITCC_VARIANT

#define BITCC_VARIANT(name, features, tokens, tiles, float_tiles) \
  {#name, \
   features, \
   tokens, \
   tiles, \
   float_tiles, \
   bitcc_absmax_##name, \
   bitcc_quantize_##name, \
   bitcc_quantize_divide_##name, \
   bitcc_gemv_##name, \
   bitcc_gemm_##name, \
   bitcc_gemv_float_##name},
__attribute__((visibility("default"))) const bitcc_kernels bitcc_variants[] = {
#include "variants.inc"
    {.isa = 0},
};
