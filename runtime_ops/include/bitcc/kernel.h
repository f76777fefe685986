/* What a kernel of bitcc is: the one border between the code generator and the C shim.
 *
 * Weights are in layout `t2`, version 1 (docs/formats.md): codes c = w + 1, two bits each, N padded
 * to tiles of 16 rows and K padded to blocks of 64. A packed matrix is [tiles][k_blocks][64] bytes;
 * byte 4*n + kk of a 64-byte vector holds, in bits 2i..2i+1, the code of row n of the tile and of
 * column 16*block + 4*i + kk. `k_blocks` counts vectors of 16 columns and is a multiple of 4.
 *
 * Every pointer may have any alignment. Nothing aliases. No kernel allocates, locks or fails.
 * Integer results are exact and the same in every variant, also for the code 3 that no packer writes:
 * it means weight +2. K is at most BITCC_MAX_K.
 */
#ifndef BITCC_KERNEL_H
#define BITCC_KERNEL_H

#include <stdint.h>

#define BITCC_LAYOUT_VERSION 1
#define BITCC_TILE_ROWS 16
#define BITCC_VECTOR_BYTES 64
#define BITCC_VECTOR_COLUMNS 16
#define BITCC_K_ALIGNMENT 64
#define BITCC_T5_LAYOUT_VERSION 1
#define BITCC_T5_VECTOR_COLUMNS 20
/* |accumulator - sum| <= 2 * 128 * 65536 = 2^24, so that its float32 is exact; the unshifted accumulators
 * of the VNNI form stay below 192 * 128 * 65536 / 4 < 2^31. */
#define BITCC_MAX_K 65536

/* For each of `tokens` tokens: bits[m] = the largest bit pattern of |x[m*k + j]|, j in [0, k), compared as
 * integers: NaN > Inf > finite, so one compare finds a row that is not finite. k >= 1. */
typedef void bitcc_absmax_fn(const float *x, int32_t *bits, int32_t k, int32_t tokens);

/* For each of `tokens` tokens: q[m*k_padded + j] = clamp(round_half_even(x[m*k + j] * scale[m]), lo, hi) for
 * j in [0, k), and 0 for j in [k, k_padded). sum[m] = the sum of the token's q. |x * scale| < 2^22; the
 * product is rounded to float32 before it is rounded to an integer (no fused multiply-add). */
typedef void bitcc_quantize_fn(const float *x, int8_t *q, int32_t *sum, const float *scale, int32_t k,
                               int32_t k_padded, int32_t lo, int32_t hi, int32_t tokens);

/* acc[16*(t - begin) + n] += sum_k q[k] * c[16*t + n][k], for tiles t in [begin, end). q holds
 * 16*k_blocks values. Weights are c - 1: `finish` takes the sum of q away. Offsets into w
 * are computed in 64 bits: tiles * k_blocks * 64 may pass 2^31. */
typedef void bitcc_gemv_fn(const int8_t *q, const uint8_t *w, int32_t *acc, int32_t k_blocks,
                           int32_t begin, int32_t end);

/* The same for 2 to `few_tokens` tokens: q is [tokens][16*k_blocks], acc [tokens][16*(end - begin)]. */
typedef void bitcc_gemm_few_fn(const int8_t *q, const uint8_t *w, int32_t *acc, int32_t k_blocks,
                               int32_t begin, int32_t end, int32_t tokens);

/* For more tokens weights are unpacked first: vectors [0, count) of each tile of w, which is
 * [tiles][k_blocks][64], to panel [tiles][count][4][64], whose byte 4*n + kk of group i of a vector is the
 * code of row n and column 4*i + kk. `count` is a multiple of 4, as is k_blocks. */
typedef void bitcc_unpack_fn(const uint8_t *w, uint8_t *panel, int32_t k_blocks, int32_t count,
                             int32_t tiles);

/* acc[m][16*t + n] += sum_k q[m*q_stride + k] * the code of row n of tile t and of column k in a panel of
 * k_blocks vectors, for 1 to `gemm_tokens` tokens m. acc is [tokens][16*tiles]. Up to the next multiple
 * of `gemm_unit` tokens q is read and acc written, too: what is there does not matter. */
typedef void bitcc_gemm_fn(const int8_t *q, const uint8_t *panel, int32_t *acc, int32_t q_stride,
                           int32_t k_blocks, int32_t tiles, int32_t tokens);

/* What an instruction set needs in the way of state: gemm_begin runs on a thread before its first gemm,
 * gemm_end after its last, and puts back what was there. `state` is BITCC_STATE_BYTES for them to keep. */
typedef void bitcc_gemm_state_fn(uint8_t *state);
enum { BITCC_STATE_BYTES = 64 };

/* For each of `tokens` tokens and i in [0, rows), with a = acc[m*acc_stride + i] - sum[m]:
 *
 *   y[m*y_stride + i] = a * (inverse[m] * scale[i]) + bias[i]
 *
 * or with the bias first (a + bias[i]) * (inverse[m] * scale[i]) + 0, which is never a negative zero. a is
 * exact; the rest is float32, each operation rounded, so that it is the same in every variant. */
typedef void bitcc_finish_fn(const int32_t *acc, const int32_t *sum, const float *inverse,
                             const float *scale, const float *bias, float *y, int32_t rows,
                             int32_t tokens, int32_t acc_stride, int32_t y_stride);

/* Float activations, and a scale for each row r and group g of columns:
 *
 *   acc[r - 16*begin] = sum_g scale[g*scale_stride + r] * (sum_{k in g} x[k] * (c[r][k] - 1))
 *
 * for the rows r of tiles [begin, end). x holds 16*k_blocks values, zeros beyond K. A group is
 * group_vectors >= 1 vectors of 16 columns, the last one of what is left. Products and sums are
 * float32, in an order that is the variant's own, and may be fused; for a row it is the same in every
 * call, whatever begin and end. A weight 0 times Inf or NaN is NaN. */
typedef void bitcc_gemv_float_fn(const float *x, const uint8_t *w, const float *scale, float *acc,
                                 int32_t k_blocks, int32_t group_vectors, int32_t scale_stride,
                                 int32_t begin, int32_t end);

/* Weights in layout `t5`, version 1: [tiles][k_blocks][64] bytes, and byte 4*n + kk of a vector holds codes
 * c_0 .. c_4 of row n, columns 20*block + 4*i + kk. With v = 27*c_0 + 9*c_1 + 3*c_2 + c_3 the byte is
 * 64*c_4 + v where v < 64, else 192 + 3*(v - 64) + c_4. The bytes from 243 on, which no packer writes, mean
 * five codes 1. `k_blocks` is any number from 1 on.
 *
 * `gemv_t5` is as `gemv`, with 20*k_blocks activations, and `gemm_few_t5` as `gemm_few`, with q_stride from those
 * of a token to those of the next one. `unpack_t5` makes 5*count groups of four columns of
 * vectors [0, count) of each tile; the panels of two tiles are panel_stride bytes apart, and what is between
 * is left as it is. */
typedef void bitcc_gemm_few_t5_fn(const int8_t *q, const uint8_t *w, int32_t *acc, int32_t q_stride,
                                  int32_t k_blocks, int32_t begin, int32_t end, int32_t tokens);
typedef void bitcc_unpack_t5_fn(const uint8_t *w, uint8_t *panel, int32_t k_blocks, int32_t count,
                                int32_t panel_stride, int32_t tiles);

/* Two products by one multiplication, at the price of two additions of bytes (Winograd, "A New Algorithm for
 * Inner Product", IEEE Transactions on Computers C-17, 1968):
 *
 *   q0*c0 + q1*c1 = (q0 + c1) * (q1 + c0) - q0*q1 - c0*c1
 *
 * Columns 8 .. 11 of a vector are q0, and columns 12 .. 15 q1. So that the sums are bytes, one unsigned and one
 * signed, for all codes from 0 to 3, these activations are clamped to BITCC_PAIR_LOW .. BITCC_PAIR_HIGH and shifted.
 *
 * `pair` writes pairs[block][m][j] for each of `k_blocks` blocks of 16 columns j, a multiple of 4, and each of
 * `tokens` tokens m, 1 or more. With a = q[m*q_stride + 16*block + j] it is a where j < 8, then clamp(a) + 127 where
 * j < 12 and clamp(a) - 1 beyond.
 * product[m] = the sum of pairs[8 + j] * pairs[12 + j] over all blocks and j in [0, 4), unsigned by signed.
 * clamped[m] is 0 if none of its activations was changed by clamping.
 *
 * `gemm_pairs` is as `gemm_few`, for 2 to `pair_tokens` tokens, but each block of columns adds
 *   sum_{j<8} pairs[j] * c[j] + sum_{j<4} (pairs[8 + j] + c[12 + j]) * (pairs[12 + j] + c[8 + j]). */
enum { BITCC_PAIR_LOW = -127, BITCC_PAIR_HIGH = 125 };
typedef void bitcc_pair_fn(const int8_t *q, uint8_t *pairs, int32_t *product, int32_t *clamped,
                           int32_t q_stride, int32_t k_blocks, int32_t tokens);
typedef void bitcc_gemm_pairs_fn(const uint8_t *pairs, const uint8_t *w, int32_t *acc,
                                 int32_t k_blocks, int32_t begin, int32_t end, int32_t tokens);
/* What clamping took away: acc[16*t + n] += by * c[16*t + n][column] for tiles t in [0, tiles). */
typedef void bitcc_add_column_fn(const uint8_t *w, int32_t *acc, int32_t column, int32_t by,
                                 int32_t k_blocks, int32_t tiles);
/* Weights in layout `t5` for `gemm_pairs`: vectors [0, count) of each tile of w, which is [tiles][k_blocks][64], to
 * vectors of `t2`, [tiles][out_blocks][64]. Of each four, or the rest, come the first 16 columns of each, then
 * 4*i .. 4*i + 3 of one more vector are the last four columns of number i of them. What is left of that vector, and
 * up to out_blocks, which is enough for all of them, are codes 0. */
typedef void bitcc_repack_t5_fn(const uint8_t *w, uint8_t *out, int32_t k_blocks, int32_t count,
                                int32_t out_blocks, int32_t tiles);

/* CPU features that a variant may need; a kernel runs only where all of its bits are set. */
enum {
  BITCC_CPU_AVX2 = 1 << 0, /* and F16C and FMA, as every AVX2 machine has */
  BITCC_CPU_AVX512VNNI = 1 << 1, /* and AVX512 F, BW, DQ, VL */
  BITCC_CPU_AVXVNNI = 1 << 2,
  BITCC_CPU_AMXINT8 = 1 << 3, /* 8 tiles of 16 rows of 64 bytes, and leave to use them */
  BITCC_CPU_NEON = 1 << 4,
  BITCC_CPU_DOTPROD = 1 << 5, /* and NEON */
  BITCC_CPU_I8MM = 1 << 6, /* and NEON and dot products */
  BITCC_CPU_AVX512VBMI = 1 << 7, /* and AVX512-VNNI and GFNI */
  BITCC_CPU_ZEN5 = 1 << 8,       /* no instructions, but a core: AMD's Zen 5 or newer */
};

/* One instruction-set variant of all kernels. */
typedef struct {
  const char *isa;      /* "avx512vnni": as in BITCC_ISA and in reports */
  uint64_t cpu;         /* needed BITCC_CPU_* bits */
  int32_t few_tokens;   /* tokens of one gemm_few call at most, 3 to 64 */
  int32_t gemm_tokens;  /* tokens of one gemm call at most, 1 to 64 */
  int32_t float_tiles;  /* tiles that gemv_float takes at once, at most 64; fewer are slower */
  int32_t gemm_unit;    /* of tokens, 1 to 16; gemm_tokens is a multiple of it */
  /* What is fastest: a panel of up to 4 tiles and up to 64 vectors of each, a multiple of 4; and calls
   * of gemm_few in a row, above which it is better to unpack. */
  int32_t panel_tiles, panel_vectors, few_blocks;
  int32_t pair_tokens; /* tokens of one gemm_pairs call at most, 3 to 16; 1 without that kernel */
  bitcc_absmax_fn *absmax;
  bitcc_quantize_fn *quantize;          /* x * scale */
  bitcc_quantize_fn *quantize_divide;   /* x / scale */
  bitcc_gemv_fn *gemv;
  bitcc_gemm_few_fn *gemm_few;
  bitcc_unpack_fn *unpack;
  bitcc_gemm_fn *gemm;
  bitcc_finish_fn *finish;
  bitcc_finish_fn *finish_bias_first;
  bitcc_gemv_float_fn *gemv_float;
  bitcc_gemm_state_fn *gemm_begin;
  bitcc_gemm_state_fn *gemm_end;
  /* All or none: NULL where weights in layout `t5` are to be expanded to `t2` when they are read. */
  bitcc_gemv_fn *gemv_t5;
  bitcc_gemm_few_t5_fn *gemm_few_t5;
  bitcc_unpack_t5_fn *unpack_t5;
  /* All or none: NULL where additions cost as much as products. */
  bitcc_pair_fn *pair;
  bitcc_gemm_pairs_fn *gemm_pairs;
  bitcc_add_column_fn *add_column;
  bitcc_repack_t5_fn *repack_t5; /* NULL without the kernels for `t5`, too */
} bitcc_kernels;

/* The variants of this library, best first; `isa == NULL` ends the table, a portable variant is last.
 * Made from variants.inc, which the code generator writes: one line for each variant,
 *   BITCC_VARIANT(avx2, BITCC_CPU_AVX2, few_tokens, gemm_tokens, float_tiles, gemm_unit, panel_tiles,
 *                 panel_vectors, few_blocks, t5, pairs, pair_tokens)
 * whose kernels are called bitcc_<family>_avx2; t5 is 1 if those for that layout are among them, else 0,
 * and so is `pairs`. */
extern const bitcc_kernels bitcc_variants[];

#endif
