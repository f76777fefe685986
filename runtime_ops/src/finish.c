/* From int32 accumulators to Y: the same float32 operations, each rounded, on every machine. */
#include "call.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc has no such pragma, it is built with -ffp-contract=off */
#endif

static void to_float(float *restrict y, const int32_t *restrict acc, const float *restrict scale,
                     const float *restrict bias, float inverse, int32_t count) {
  for (int32_t i = 0; i < count; i++)
    y[i] = (float)acc[i] * (inverse * scale[i]) + bias[i];
}

static void to_float_bias_first(float *restrict y, const int32_t *restrict acc,
                                const float *restrict scale, const float *restrict bias,
                                float inverse, int32_t count) {
  for (int32_t i = 0; i < count; i++)
    y[i] = ((float)acc[i] + bias[i]) * (inverse * scale[i]);
}

void bitcc_finish(const bitcc_call *call, int32_t token, int32_t row, int32_t count,
                  const int32_t *acc) {
  float buffer[BITCC_MAX_FINISH_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  OrtElementType type = call->node->x_type;
  void *out = bitcc_y(call, token, row);
  float *y = type == ORT_FLOAT ? out : buffer;
  const float *scale = call->weights->scale + row, *bias = call->weights->bias + row;
  count = count < layer->n - row ? count : layer->n - row; /* the last tile may be padded */
  if (layer->bias_before_scale)
    to_float_bias_first(y, acc, scale, bias, call->inverse[token], count);
  else
    to_float(y, acc, scale, bias, call->inverse[token], count);
  if (type != ORT_FLOAT)
    bitcc_to_half_type(out, y, type, count);
}
