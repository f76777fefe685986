/* Known answers: each kernel of the chosen variant against the plainest C, once when the library
 * is registered, so that a miscompiled or misdetected variant is an error and never wrong numbers.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "library.h"
#include "self_test.h"

enum { K = 116, K_PADDED = 128 };

static bool absmax_is_right(bitcc_absmax_fn *absmax) {
  static const float tails[] = {-3.0f, INFINITY, NAN}; /* of a token each */
  enum { TOKENS = sizeof tails / sizeof tails[0] };
  float x[TOKENS * K];
  int32_t bits[TOKENS];
  uint32_t state = 2;
  for (int32_t i = 0; i < TOKENS * K; i++)
    x[i] = (float)(int32_t)(next(&state) & 1023) / -512.0f;
  for (int32_t i = 0; i < TOKENS; i++)
    x[(i + 1) * K - 1 - i] = tails[i];
  absmax(x, bits, K, TOKENS);
  for (int32_t i = 0; i < TOKENS; i++) {
    float magnitude = fabsf(tails[i]);
    if (memcmp(&bits[i], &magnitude, sizeof magnitude) != 0)
      return false;
  }
  return true;
}

/* To the nearest integer, ties to even, for |x| < 2^22: above 1.5 * 2^23 floats are whole. No
 * libm. */
static float nearest(float x) {
  volatile float shifted = x + 12582912.0f;
  return shifted - 12582912.0f;
}

/* `scaled` is volatile so that the product is rounded to float32 on every machine. */
static bool quantize_is_right(bitcc_quantize_fn *quantize, bool divide, const float scale[2]) {
  float x[2 * K];
  int8_t q[2 * K_PADDED];
  int32_t sum[2];
  uint32_t state = 3;
  for (int32_t k = 0; k < 2 * K; k++) /* quarters: with a scale that is a power of two, many ties */
    x[k] = ((float)(int32_t)(next(&state) & 2047) - 1024.0f) / 4.0f;
  memset(q, 1, sizeof q);
  quantize(x, q, sum, scale, K, K_PADDED, -127, 126, 2);
  for (int32_t i = 0; i < 2; i++) {
    for (int32_t k = 0; k < K_PADDED; k++) {
      float value = k < K ? x[i * K + k] : 0.0f;
      volatile float scaled = divide ? value / scale[i] : value * scale[i];
      float rounded = nearest(scaled);
      float clamped = rounded < -127.0f ? -127.0f : rounded > 126.0f ? 126.0f : rounded;
      sum[i] -= (int32_t)clamped;
      if (q[i * K_PADDED + k] != (int32_t)clamped)
        return false;
    }
    if (sum[i] != 0)
      return false;
  }
  return true;
}

/* `volatile`: each operation rounded to float32. */
static bool finish_is_right(bitcc_finish_fn *finish, bool bias_first) {
  enum { TOKENS = 3, STRIDE_Y = K + 1 };
  static const float inverse[TOKENS] = {0.3f, 7.0f, 0.01f};
  static const int32_t sum[TOKENS] = {0, -5, 1000};
  int32_t acc[TOKENS * K];
  float scale[K], bias[K], y[TOKENS * STRIDE_Y];
  uint32_t state = 5;
  for (int32_t i = 0; i < TOKENS * K; i++)
    acc[i] = (int32_t)next(&state) - 32768;
  for (int32_t i = 0; i < K; i++) {
    scale[i] = (float)next(&state) / 3.0f;
    bias[i] = (float)next(&state) / -7.0f;
  }
  finish(acc, sum, inverse, scale, bias, y, K, TOKENS, K, STRIDE_Y);
  for (int32_t i = 0; i < TOKENS * K; i++) {
    int32_t token = i / K, row = i % K;
    float a = (float)(acc[i] - sum[token]);
    volatile float factor = inverse[token] * scale[row];
    volatile float left = bias_first ? a + bias[row] : a * factor;
    volatile float expected = bias_first ? left * factor : left + bias[row];
    if (y[token * STRIDE_Y + row] != expected)
      return false;
  }
  return true;
}

const char *bitcc_self_test(const bitcc_kernels *kernels) {
  if (!absmax_is_right(kernels->absmax))
    return "absmax";
  if (!quantize_is_right(kernels->quantize, false, (const float[]){2.0f, 0.7f}))
    return "quantize";
  if (!quantize_is_right(kernels->quantize_divide, true, (const float[]){0.5f, 1.7f}))
    return "quantize_divide";
  if (!finish_is_right(kernels->finish, false))
    return "finish";
  if (!finish_is_right(kernels->finish_bias_first, true))
    return "finish_bias_first";
  return bitcc_self_test_products(kernels);
}
