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
  static const float tails[] = {-3.0f, INFINITY, NAN}; /* each larger than what is before it */
  float x[K];
  uint32_t state = 2;
  for (int32_t k = 0; k < K; k++)
    x[k] = (float)(int32_t)(next(&state) & 1023) / -512.0f;
  for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
    int32_t bits, expected;
    x[K - 1 - i] = tails[i];
    float magnitude = fabsf(tails[i]);
    memcpy(&expected, &magnitude, sizeof expected);
    absmax(x, &bits, K);
    if (bits != expected)
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
static bool quantize_is_right(bitcc_quantize_fn *quantize, bool divide, float scale) {
  float x[K];
  int8_t q[K_PADDED];
  int32_t sum, expected_sum = 0;
  uint32_t state = 3;
  for (int32_t k = 0; k < K; k++) /* quarters: with a scale that is a power of two, many ties */
    x[k] = ((float)(int32_t)(next(&state) & 2047) - 1024.0f) / 4.0f;
  memset(q, 1, sizeof q);
  quantize(x, q, &sum, K, K_PADDED, scale, -127, 126);
  for (int32_t k = 0; k < K_PADDED; k++) {
    volatile float scaled = k >= K ? 0.0f : divide ? x[k] / scale : x[k] * scale;
    float rounded = nearest(scaled);
    float clamped = rounded < -127.0f ? -127.0f : rounded > 126.0f ? 126.0f : rounded;
    expected_sum += (int32_t)clamped;
    if (q[k] != (int32_t)clamped)
      return false;
  }
  return sum == expected_sum;
}

/* `volatile`: each operation rounded to float32. */
static bool finish_is_right(bitcc_finish_fn *finish, bool bias_first) {
  int32_t acc[K];
  float scale[K], bias[K], y[K];
  const float inverse = 0.3f;
  uint32_t state = 5;
  for (int32_t i = 0; i < K; i++) {
    acc[i] = (int32_t)next(&state) - 32768;
    scale[i] = (float)next(&state) / 3.0f;
    bias[i] = (float)next(&state) / -7.0f;
  }
  finish(acc, scale, bias, y, K, inverse);
  for (int32_t i = 0; i < K; i++) {
    volatile float factor = inverse * scale[i];
    volatile float left = bias_first ? (float)acc[i] + bias[i] : (float)acc[i] * factor;
    volatile float expected = bias_first ? left * factor : left + bias[i];
    if (y[i] != expected)
      return false;
  }
  return true;
}

const char *bitcc_self_test(const bitcc_kernels *kernels) {
  if (!absmax_is_right(kernels->absmax))
    return "absmax";
  if (!quantize_is_right(kernels->quantize, false, 2.0f) ||
      !quantize_is_right(kernels->quantize, false, 0.7f))
    return "quantize";
  if (!quantize_is_right(kernels->quantize_divide, true, 0.5f) ||
      !quantize_is_right(kernels->quantize_divide, true, 1.7f))
    return "quantize_divide";
  if (!finish_is_right(kernels->finish, false))
    return "finish";
  if (!finish_is_right(kernels->finish_bias_first, true))
    return "finish_bias_first";
  return bitcc_self_test_products(kernels);
}
