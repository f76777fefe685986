/* In place of the op library: the table of kernels, for the tests to call. */
#include "bitcc/kernel.h"

#define BITCC_VARIANT(name, features, few_tokens, gemm_tokens, float_tiles, gemm_unit, panel_tiles, panel_vectors, \
                      few_blocks, t5) \
  extern bitcc_absmax_fn bitcc_absmax_##name; \
  extern bitcc_quantize_fn bitcc_quantize_##name; \
  extern bitcc_quantize_fn bitcc_quantize_divide_##name; \
  extern bitcc_gemv_fn bitcc_gemv_##name; \
  extern bitcc_gemm_few_fn bitcc_gemm_few_##name; \
  extern bitcc_unpack_fn bitcc_unpack_##name; \
  extern bitcc_gemm_fn bitcc_gemm_##name; \
  extern bitcc_finish_fn bitcc_finish_##name; \
  extern bitcc_finish_fn bitcc_finish_bias_first_##name; \
  extern bitcc_gemv_float_fn bitcc_gemv_float_##name; \
  extern bitcc_gemm_state_fn bitcc_gemm_begin_##name; \
  extern bitcc_gemm_state_fn bitcc_gemm_end_##name; \
  extern bitcc_gemv_fn bitcc_gemv_t5_##name; \
  extern bitcc_gemm_few_t5_fn bitcc_gemm_few_t5_##name; \
  extern bitcc_unpack_t5_fn bitcc_unpack_t5_##name;
#include "variants.inc"
#undef BITCC_VARIANT

#define KERNEL_IF_0(kernel) 0
#define KERNEL_IF_1(kernel) kernel
#define BITCC_VARIANT(name, features, few_tokens, gemm_tokens, float_tiles, gemm_unit, panel_tiles, panel_vectors, \
                      few_blocks, t5) \
  {#name, \
   features, \
   few_tokens, \
   gemm_tokens, \
   float_tiles, \
   gemm_unit, \
   panel_tiles, \
   panel_vectors, \
   few_blocks, \
   bitcc_absmax_##name, \
   bitcc_quantize_##name, \
   bitcc_quantize_divide_##name, \
   bitcc_gemv_##name, \
   bitcc_gemm_few_##name, \
   bitcc_unpack_##name, \
   bitcc_gemm_##name, \
   bitcc_finish_##name, \
   bitcc_finish_bias_first_##name, \
   bitcc_gemv_float_##name, \
   bitcc_gemm_begin_##name, \
   bitcc_gemm_end_##name, \
   KERNEL_IF_##t5(bitcc_gemv_t5_##name), \
   KERNEL_IF_##t5(bitcc_gemm_few_t5_##name), \
   KERNEL_IF_##t5(bitcc_unpack_t5_##name)},
__attribute__((visibility("default"))) const bitcc_kernels bitcc_variants[] = {
#include "variants.inc"
    {.isa = 0},
};
