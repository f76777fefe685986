/* The norm in front of the quantizer. Squares are summed in float64: in whatever order that is done,
 * the mean is the same float32, but for one token in tens of millions. */
#include <math.h>

#include "call.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc has no such pragma, it is built with -ffp-contract=off */
#endif

enum { LANES = 8 };

static double sum_of_squares(const float *x, int32_t count) {
  double lanes[LANES] = {0.0}, sum = 0.0;
  int32_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int32_t lane = 0; lane < LANES; lane++)
      lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
  for (; i < count; i++)
    lanes[0] += (double)x[i] * (double)x[i];
  for (int32_t lane = 0; lane < LANES; lane++)
    sum += lanes[lane];
  return sum;
}

float bitcc_norm_scale(const bitcc_call *call, int32_t token, float *buffer, int32_t chunk) {
  const bitcc_layer *layer = &call->node->layer;
  if (!layer->has_norm)
    return 1.0f;
  double sum = 0.0;
  for (int32_t k = 0, count; k < layer->k; k += count) {
    count = bitcc_min(layer->k - k, chunk);
    sum += sum_of_squares(bitcc_load_x(call, token, k, count, buffer), count);
  }
  return 1.0f / sqrtf((float)(sum / layer->k) + layer->norm_eps);
}

const float *bitcc_load_normalized(const bitcc_call *call, int32_t token, int32_t k, int32_t count,
                                   float scale, float *buffer) {
  const float *x = bitcc_load_x(call, token, k, count, buffer), *gain = call->weights->gain + k;
  if (!call->node->layer.has_norm)
    return x;
  for (int32_t i = 0; i < count; i++)
    buffer[i] = x[i] * scale * gain[i];
  return buffer;
}
