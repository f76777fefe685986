/* The kernels by their definition, so that the shim is tested without a code
 * generator. BITCC_BREAK names a family that is to be wrong: the library's
 * self-test must find it. */
#include <math.h>
#include <string.h>

#include "bitcc/kernel.h"

enum { absmax = 1, quantize, quantize_divide, gemv, gemm_few, unpack, gemm, finish, finish_bias_first, gemv_float, gemv_t5, gemm_few_t5, unpack_t5, pair, gemm_pairs, add_column, repack_t5 };
#ifndef BITCC_BREAK
#define BITCC_BREAK 0
#endif
#define ERROR_OF(family) (BITCC_BREAK == (family) ? 1 : 0)

bitcc_absmax_fn bitcc_absmax_scalar;
bitcc_quantize_fn bitcc_quantize_scalar, bitcc_quantize_divide_scalar;
bitcc_gemv_fn bitcc_gemv_scalar;
bitcc_gemm_few_fn bitcc_gemm_few_scalar;
bitcc_unpack_fn bitcc_unpack_scalar;
bitcc_gemm_fn bitcc_gemm_scalar;
bitcc_finish_fn bitcc_finish_scalar, bitcc_finish_bias_first_scalar;
bitcc_gemv_float_fn bitcc_gemv_float_scalar;
bitcc_gemm_state_fn bitcc_gemm_begin_scalar, bitcc_gemm_end_scalar;
#ifdef BITCC_WRONG_GEMM
bitcc_gemm_fn BITCC_WRONG_GEMM;
void BITCC_WRONG_GEMM(const int8_t *q, const uint8_t *panel, int32_t *acc, int32_t q_stride,
                      int32_t k_blocks, int32_t tiles, int32_t tokens) {
  (void)q, (void)panel, (void)acc, (void)q_stride, (void)k_blocks, (void)tiles, (void)tokens;
}
#endif

/* A state that gemm wants, and a unit of two tokens, of which the second is spoilt if there is one only. */
enum { GEMM_UNIT = 2 };
static _Thread_local int begun;

void bitcc_gemm_begin_scalar(uint8_t *state) {
  memset(state, begun, BITCC_STATE_BYTES);
  begun = 1;
}

void bitcc_gemm_end_scalar(uint8_t *state) { begun = state[BITCC_STATE_BYTES - 1]; }
bitcc_gemv_fn bitcc_gemv_t5_scalar;
bitcc_gemm_few_t5_fn bitcc_gemm_few_t5_scalar;
bitcc_unpack_t5_fn bitcc_unpack_t5_scalar;
bitcc_pair_fn bitcc_pair_scalar;
bitcc_gemm_pairs_fn bitcc_gemm_pairs_scalar;
bitcc_add_column_fn bitcc_add_column_scalar;
bitcc_repack_t5_fn bitcc_repack_t5_scalar;

void bitcc_absmax_scalar(const float *x, int32_t *bits, int32_t k, int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++) {
    bits[token] = ERROR_OF(absmax);
    for (int32_t i = 0; i < k; i++) {
      uint32_t u;
      memcpy(&u, &x[token * k + i], sizeof u);
      int32_t magnitude = (int32_t)(u & 0x7fffffffu) + ERROR_OF(absmax);
      bits[token] = magnitude > bits[token] ? magnitude : bits[token];
    }
  }
}

static int8_t clamp_round(float x, int32_t lo, int32_t hi) {
  int32_t q = (int32_t)lrintf(x);
  return (int8_t)(q < lo ? lo : q > hi ? hi : q);
}

void bitcc_quantize_scalar(const float *x, int8_t *q, int32_t *sum,
                           const float *scale, int32_t k, int32_t k_padded,
                           int32_t lo, int32_t hi, int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++, x += k, q += k_padded) {
    sum[token] = ERROR_OF(quantize);
    for (int32_t i = 0; i < k_padded; i++) {
      q[i] = i < k ? clamp_round(x[i] * scale[token], lo, hi) : 0;
      sum[token] += q[i];
    }
  }
}

void bitcc_quantize_divide_scalar(const float *x, int8_t *q, int32_t *sum,
                                  const float *scale, int32_t k,
                                  int32_t k_padded, int32_t lo, int32_t hi,
                                  int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++, x += k, q += k_padded) {
    sum[token] = ERROR_OF(quantize_divide);
    for (int32_t i = 0; i < k_padded; i++) {
      q[i] = i < k ? clamp_round(x[i] / scale[token], lo, hi) : 0;
      sum[token] += q[i];
    }
  }
}

static int32_t code(const uint8_t *tile, int32_t n, int32_t k) {
  return tile[k / 16 * BITCC_VECTOR_BYTES + 4 * n + k % 4] >>
             (2 * (k % 16 / 4)) &
         3;
}

static int32_t dot(const int8_t *q, const uint8_t *tile, int32_t n,
                   int32_t k_blocks) {
  int32_t total = 0;
  for (int32_t k = 0; k < 16 * k_blocks; k++)
    total += q[k] * code(tile, n, k);
  return total;
}

void bitcc_gemv_scalar(const int8_t *q, const uint8_t *w, int32_t *acc,
                       int32_t k_blocks, int32_t begin, int32_t end) {
  for (int32_t t = begin; t < end; t++)
    for (int32_t n = 0; n < BITCC_TILE_ROWS; n++)
      acc[(t - begin) * BITCC_TILE_ROWS + n] +=
          dot(q, w + (int64_t)t * k_blocks * BITCC_VECTOR_BYTES, n, k_blocks) +
          ERROR_OF(gemv);
}

void bitcc_gemm_few_scalar(const int8_t *q, const uint8_t *w, int32_t *acc,
                           int32_t k_blocks, int32_t begin, int32_t end,
                           int32_t tokens) {
  for (int32_t i = 0; i < tokens; i++)
    for (int32_t t = begin; t < end; t++)
      for (int32_t n = 0; n < BITCC_TILE_ROWS; n++)
        acc[(i * (end - begin) + t - begin) * BITCC_TILE_ROWS + n] +=
            dot(q + (int64_t)i * 16 * k_blocks,
                w + (int64_t)t * k_blocks * BITCC_VECTOR_BYTES, n, k_blocks) +
            ERROR_OF(gemm_few);
}

void bitcc_unpack_scalar(const uint8_t *w, uint8_t *panel, int32_t k_blocks,
                         int32_t count, int32_t tiles) {
  for (int32_t t = 0; t < tiles; t++)
    for (int32_t v = 0; v < count; v++)
      for (int32_t n = 0; n < BITCC_TILE_ROWS; n++)
        for (int32_t k = 0; k < 16; k++)
          panel[((int64_t)(t * count + v) * 4 + k / 4) * BITCC_VECTOR_BYTES +
                4 * n + k % 4] =
              (uint8_t)(code(w + (int64_t)t * k_blocks * BITCC_VECTOR_BYTES, n,
                             16 * v + k) +
                        ERROR_OF(unpack));
}

void bitcc_gemm_scalar(const int8_t *q, const uint8_t *panel, int32_t *acc,
                       int32_t q_stride, int32_t k_blocks, int32_t tiles,
                       int32_t tokens) {
  for (int32_t i = 0; i < tokens; i++)
    for (int32_t row = 0; row < tiles * BITCC_TILE_ROWS; row++) {
      int32_t total = ERROR_OF(gemm) + !begun;
      for (int32_t k = 0; k < 16 * k_blocks; k++)
        total += q[(int64_t)i * q_stride + k] *
                 panel[((int64_t)(row / 16 * k_blocks) * 4 + k / 4) *
                           BITCC_VECTOR_BYTES +
                       4 * (row % 16) + k % 4];
      acc[i * tiles * BITCC_TILE_ROWS + row] += total;
    }
  if (tokens % GEMM_UNIT != 0)
    for (int32_t row = 0; row < tiles * BITCC_TILE_ROWS; row++)
      acc[tokens * tiles * BITCC_TILE_ROWS + row] = q[tokens * q_stride];
}

void bitcc_finish_scalar(const int32_t *acc, const int32_t *sum,
                         const float *inverse, const float *scale,
                         const float *bias, float *y, int32_t rows,
                         int32_t tokens, int32_t acc_stride, int32_t y_stride) {
  for (int32_t token = 0; token < tokens; token++)
    for (int32_t i = 0; i < rows; i++) {
      int32_t a = acc[token * acc_stride + i] - sum[token];
      y[token * y_stride + i] = (float)a * (inverse[token] * scale[i]) + bias[i] +
                                (float)ERROR_OF(finish) * scale[i];
    }
}

void bitcc_finish_bias_first_scalar(const int32_t *acc, const int32_t *sum,
                                    const float *inverse, const float *scale,
                                    const float *bias, float *y, int32_t rows,
                                    int32_t tokens, int32_t acc_stride,
                                    int32_t y_stride) {
  for (int32_t token = 0; token < tokens; token++)
    for (int32_t i = 0; i < rows; i++) {
      int32_t a = acc[token * acc_stride + i] - sum[token];
      y[token * y_stride + i] =
          ((float)a + bias[i] + (float)ERROR_OF(finish_bias_first)) *
              (inverse[token] * scale[i]) +
          0.0f;
    }
}

void bitcc_gemv_float_scalar(const float *x, const uint8_t *w,
                             const float *scale, float *acc, int32_t k_blocks,
                             int32_t group_vectors, int32_t scale_stride,
                             int32_t begin, int32_t end) {
  int32_t group = 16 * group_vectors;
  for (int32_t row = 16 * begin; row < 16 * end; row++) {
    const uint8_t *tile = w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES;
    double total = ERROR_OF(gemv_float);
    for (int32_t k = 0; k < 16 * k_blocks; k++)
      total += (double)scale[k / group * scale_stride + row] * (double)x[k] *
               (code(tile, row % 16, k) - 1);
    acc[row - 16 * begin] = (float)total;
  }
}

static int32_t code_t5(const uint8_t *tile, int32_t n, int32_t k) {
  int32_t byte = tile[k / 20 * BITCC_VECTOR_BYTES + 4 * n + k % 4], i = k % 20 / 4;
  int32_t v = byte < 192 ? byte % 64 : 64 + (byte - 192) / 3;
  int32_t codes[5] = {v / 27, v / 9 % 3, v / 3 % 3, v % 3, byte < 192 ? byte / 64 : byte % 3};
  return byte < 243 ? codes[i] : 1;
}

void bitcc_gemv_t5_scalar(const int8_t *q, const uint8_t *w, int32_t *acc,
                          int32_t k_blocks, int32_t begin, int32_t end) {
  for (int32_t row = 16 * begin; row < 16 * end; row++) {
    const uint8_t *tile = w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES;
    int32_t total = ERROR_OF(gemv_t5);
    for (int32_t k = 0; k < 20 * k_blocks; k++)
      total += q[k] * code_t5(tile, row % 16, k);
    acc[row - 16 * begin] += total;
  }
}

void bitcc_gemm_few_t5_scalar(const int8_t *q, const uint8_t *w, int32_t *acc, int32_t q_stride,
                              int32_t k_blocks, int32_t begin, int32_t end, int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++) {
    int32_t *out = acc + token * 16 * (end - begin);
    bitcc_gemv_t5_scalar(q + (int64_t)token * q_stride, w, out, k_blocks, begin, end);
    if (begin < end)
      out[0] += ERROR_OF(gemm_few_t5);
  }
}

void bitcc_unpack_t5_scalar(const uint8_t *w, uint8_t *panel, int32_t k_blocks,
                            int32_t count, int32_t panel_stride, int32_t tiles) {
  for (int32_t row = 0; row < 16 * tiles; row++) {
    const uint8_t *tile = w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES;
    uint8_t *out = panel + (int64_t)(row / 16) * panel_stride;
    for (int32_t k = 0; k < 20 * count; k++)
      out[k / 4 * BITCC_VECTOR_BYTES + 4 * (row % 16) + k % 4] =
          (uint8_t)(code_t5(tile, row % 16, k) + ERROR_OF(unpack_t5));
  }
}

void bitcc_pair_scalar(const int8_t *q, uint8_t *pairs, int32_t *product, int32_t *clamped,
                       int32_t q_stride, int32_t k_blocks, int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++) {
    product[token] = ERROR_OF(pair), clamped[token] = 0;
    for (int32_t block = 0; block < k_blocks; block++) {
      const int8_t *given = q + (int64_t)token * q_stride + 16 * block;
      uint8_t *out = pairs + ((int64_t)block * tokens + token) * 16;
      for (int32_t j = 0; j < 16; j++) {
        int32_t value = j < 8 ? given[j] : given[j] < -127 ? -127 : given[j] > 125 ? 125 : given[j];
        clamped[token] |= value ^ given[j];
        out[j] = (uint8_t)(value + (j < 8 ? 0 : j < 12 ? 127 : -1));
      }
      for (int32_t j = 8; j < 12; j++)
        product[token] += out[j] * (int8_t)out[4 + j];
    }
  }
}

void bitcc_gemm_pairs_scalar(const uint8_t *pairs, const uint8_t *w, int32_t *acc,
                             int32_t k_blocks, int32_t begin, int32_t end, int32_t tokens) {
  for (int32_t token = 0; token < tokens; token++)
    for (int32_t row = 16 * begin; row < 16 * end; row++) {
      const uint8_t *tile = w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES;
      int32_t n = row % 16, total = ERROR_OF(gemm_pairs);
      for (int32_t block = 0; block < k_blocks; block++) {
        const uint8_t *p = pairs + ((int64_t)block * tokens + token) * 16;
        for (int32_t j = 0; j < 8; j++)
          total += (int8_t)p[j] * code(tile, n, 16 * block + j);
        for (int32_t j = 8; j < 12; j++)
          total += (p[j] + code(tile, n, 16 * block + j + 4)) *
                   ((int8_t)p[j + 4] + code(tile, n, 16 * block + j));
      }
      acc[token * 16 * (end - begin) + row - 16 * begin] += total;
    }
}

void bitcc_add_column_scalar(const uint8_t *w, int32_t *acc, int32_t column, int32_t by,
                             int32_t k_blocks, int32_t tiles) {
  for (int32_t row = 0; row < 16 * tiles; row++)
    acc[row] += by * code(w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES, row % 16, column) +
                ERROR_OF(add_column);
}

void bitcc_repack_t5_scalar(const uint8_t *w, uint8_t *out, int32_t k_blocks, int32_t count,
                            int32_t out_blocks, int32_t tiles) {
  memset(out, ERROR_OF(repack_t5), (size_t)(tiles * out_blocks) * BITCC_VECTOR_BYTES);
  for (int32_t row = 0; row < 16 * tiles; row++) {
    const uint8_t *tile = w + (int64_t)(row / 16) * k_blocks * BITCC_VECTOR_BYTES;
    uint8_t *to = out + (int64_t)(row / 16) * out_blocks * BITCC_VECTOR_BYTES;
    for (int32_t k = 0; k < 20 * count; k++) {
      int32_t vector = k / 20, j = k % 20, group = vector / 4, left = count - 4 * group;
      int32_t column = j < 16 ? 16 * (vector % 4) + j
                              : 16 * (left < 4 ? left : 4) + 4 * (vector % 4) + j - 16;
      column += 80 * group;
      to[column / 16 * BITCC_VECTOR_BYTES + 4 * (row % 16) + column % 4] |=
          (uint8_t)(code_t5(tile, row % 16, k) << (2 * (column % 16 / 4)));
    }
  }
}
