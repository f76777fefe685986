/* The table of variants, from the list that the code generator wrote. */
#include "library.h"

#define BITCC_VARIANT(isa, cpu, few_tokens, gemm_tokens, float_tiles, gemm_unit, panel_tiles,     \
                      panel_vectors, few_blocks, t5, pairs, pair_tokens)                          \
  bitcc_absmax_fn bitcc_absmax_##isa;                                                             \
  bitcc_quantize_fn bitcc_quantize_##isa;                                                         \
  bitcc_quantize_fn bitcc_quantize_divide_##isa;                                                  \
  bitcc_gemv_fn bitcc_gemv_##isa;                                                                 \
  bitcc_gemm_few_fn bitcc_gemm_few_##isa;                                                         \
  bitcc_unpack_fn bitcc_unpack_##isa;                                                             \
  bitcc_gemm_fn bitcc_gemm_##isa;                                                                 \
  bitcc_finish_fn bitcc_finish_##isa;                                                             \
  bitcc_finish_fn bitcc_finish_bias_first_##isa;                                                  \
  bitcc_gemv_float_fn bitcc_gemv_float_##isa;                                                     \
  bitcc_gemm_state_fn bitcc_gemm_begin_##isa;                                                     \
  bitcc_gemm_state_fn bitcc_gemm_end_##isa;                                                       \
  bitcc_gemv_fn bitcc_gemv_t5_##isa;                                                              \
  bitcc_gemm_few_t5_fn bitcc_gemm_few_t5_##isa;                                                   \
  bitcc_unpack_t5_fn bitcc_unpack_t5_##isa;                                                       \
  bitcc_pair_fn bitcc_pair_##isa;                                                                 \
  bitcc_gemm_pairs_fn bitcc_gemm_pairs_##isa;                                                     \
  bitcc_add_column_fn bitcc_add_column_##isa;                                                     \
  bitcc_repack_t5_fn bitcc_repack_t5_##isa;                                                       \
  static_assert((few_tokens) >= 3 && (few_tokens) <= BITCC_MAX_TOKENS, #isa);                     \
  static_assert((gemm_tokens) >= 1 && (gemm_tokens) <= BITCC_MAX_TOKENS, #isa);                   \
  static_assert((float_tiles) >= 1 && (float_tiles) <= BITCC_MAX_FLOAT_TILES, #isa);              \
  static_assert((gemm_unit) >= 1 && (gemm_tokens) % (gemm_unit) == 0, #isa);                      \
  static_assert(BITCC_MAX_TOKENS % (gemm_unit) == 0, #isa);                                       \
  static_assert((panel_tiles) >= 1 && (panel_tiles) <= BITCC_MAX_PANEL_TILES, #isa);              \
  static_assert((panel_vectors) >= 4 && (panel_vectors) <= BITCC_MAX_PANEL_VECTORS, #isa);        \
  static_assert((panel_vectors) % 4 == 0 && (few_blocks) >= 1, #isa);                             \
  static_assert((pair_tokens) <= BITCC_MAX_PAIR_TOKENS && (pair_tokens) <= (few_tokens), #isa);    \
  static_assert(((pair_tokens) >= 3) == (pairs), #isa);
#include "variants.inc"
#undef BITCC_VARIANT

#define BITCC_IF_0(kernel) NULL
#define BITCC_IF_1(kernel) kernel

const bitcc_kernels bitcc_variants[] = {
#define BITCC_VARIANT(isa, cpu, few_tokens, gemm_tokens, float_tiles, gemm_unit, panel_tiles,     \
                      panel_vectors, few_blocks, t5, pairs, pair_tokens)                          \
  {#isa,                                                                                          \
   cpu,                                                                                           \
   few_tokens,                                                                                    \
   gemm_tokens,                                                                                   \
   float_tiles,                                                                                   \
   gemm_unit,                                                                                     \
   panel_tiles,                                                                                   \
   panel_vectors,                                                                                 \
   few_blocks,                                                                                    \
   pair_tokens,                                                                                   \
   bitcc_absmax_##isa,                                                                            \
   bitcc_quantize_##isa,                                                                          \
   bitcc_quantize_divide_##isa,                                                                   \
   bitcc_gemv_##isa,                                                                              \
   bitcc_gemm_few_##isa,                                                                          \
   bitcc_unpack_##isa,                                                                            \
   bitcc_gemm_##isa,                                                                              \
   bitcc_finish_##isa,                                                                            \
   bitcc_finish_bias_first_##isa,                                                                 \
   bitcc_gemv_float_##isa,                                                                        \
   bitcc_gemm_begin_##isa,                                                                        \
   bitcc_gemm_end_##isa,                                                                          \
   BITCC_IF_##t5(bitcc_gemv_t5_##isa),                                                            \
   BITCC_IF_##t5(bitcc_gemm_few_t5_##isa),                                                        \
   BITCC_IF_##t5(bitcc_unpack_t5_##isa),                                                          \
   BITCC_IF_##pairs(bitcc_pair_##isa),                                                            \
   BITCC_IF_##pairs(bitcc_gemm_pairs_##isa),                                                      \
   BITCC_IF_##pairs(bitcc_add_column_##isa),                                                      \
   BITCC_IF_##pairs(BITCC_IF_##t5(bitcc_repack_t5_##isa))},
#include "variants.inc"
#undef BITCC_VARIANT
    {.isa = NULL},
};
