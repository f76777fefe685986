/* What a library with a GPU carries: the border between what is built for GPUs and the C that
 * launches it, as kernel.h is for CPUs.
 *
 * The build writes `cuda.inc` to the include path and defines BITCC_CUDA:
 *
 *   BITCC_CUDA_IMAGE(90, 0, bitcc_cuda_90)       capability, whether it is PTX, prefix of its symbols
 *   BITCC_CUDA_KERNEL(gemv, float, 256, 32, 1)   family, element, threads, rows and tokens of a block
 *
 * one line for each image, in any order, and for each kernel. `bitcc_cuda_90_begin` and `_end` are where
 * the image lies: read only, aligned to 64 bytes, and one zero behind the end (PTX is text).
 */
#ifndef BITCC_CUDA_H
#define BITCC_CUDA_H

#include <stdbool.h>
#include <stdint.h>

/* A file of machine code (cubin) for GPUs of one capability and of the later minor ones, or, if it is
 * PTX, for all from that capability on. It has all kernels below as `bitcc_<family>_<element>`. */
typedef struct {
  int32_t capability; /* 10 * major + minor */
  bool ptx;
  const unsigned char *begin, *end;
} bitcc_cuda_image;
extern const bitcc_cuda_image bitcc_cuda_images[]; /* ends with a `begin` of NULL */

/* Arguments of `absmax` and of `quantize`, whose blocks take a token each:
 *   x, gain, absmax, k, has_norm, norm_eps,
 * and of `quantize` also
 *   q, inverse, sums, k_blocks, per_tensor, act_scale, act_type, act_floor, act_eps, qmax, act_min, act_max.
 * Of the matmuls, whose grid is rows x tokens:
 *   q, w, inverse, sums, scale, bias, y, tokens, n, tiles, k_blocks, bias_first.
 * x is [tokens][k] and y [tokens][n] of the element; q is [tokens][16 * k_blocks] int8, aligned to 16 bytes,
 * as is w; absmax is one int32, inverse and sums are [tokens], gain is [k], scale and bias are [n]. */
typedef enum {
  BITCC_CUDA_absmax,
  BITCC_CUDA_quantize,
  BITCC_CUDA_gemv,
  BITCC_CUDA_gemm_few,
  BITCC_CUDA_gemm,
  BITCC_CUDA_gemm_many,
  BITCC_CUDA_FAMILIES
} bitcc_cuda_family;

/* The type of X and Y. */
typedef enum {
  BITCC_CUDA_float,
  BITCC_CUDA_float16,
  BITCC_CUDA_bfloat16,
  BITCC_CUDA_ELEMENTS
} bitcc_cuda_element;

typedef struct {
  const char *name;
  int32_t threads; /* of a block */
  int32_t rows;    /* of the padded weights that a block takes; 0 if it takes none */
  int32_t tokens;  /* that a block takes */
} bitcc_cuda_kernel;
extern const bitcc_cuda_kernel bitcc_cuda_kernels[BITCC_CUDA_FAMILIES][BITCC_CUDA_ELEMENTS];

#endif
