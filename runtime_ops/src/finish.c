/* From int32 accumulators to Y: the same float32 operations, each rounded, on every machine. */
#include "call.h"
#include "half.h"

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

static void to_half(uint16_t *restrict out, const float *restrict y, OrtElementType type,
                    int32_t count) {
  if (type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      out[i] = bitcc_to_half(y[i]);
  else
    for (int32_t i = 0; i < count; i++)
      out[i] = bitcc_to_bfloat16(y[i]);
}

void bitcc_finish(const bitcc_call *call, int32_t token, int32_t row, int32_t count,
                  const int32_t *acc) {
  float buffer[BITCC_MAX_FINISH_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  OrtElementType type = call->node->x_type;
  size_t offset = (size_t)token * (size_t)layer->n + (size_t)row;
  void *out = call->y + offset * bitcc_x_bytes(type);
  float *y = type == ORT_FLOAT ? out : buffer;
  const float *scale = call->weights->scale + row, *bias = call->weights->bias + row;
  count = count < layer->n - row ? count : layer->n - row; /* the last tile may be padded */
  if (layer->bias_before_scale)
    to_float_bias_first(y, acc, scale, bias, call->inverse[token], count);
  else
    to_float(y, acc, scale, bias, call->inverse[token], count);
  if (type != ORT_FLOAT)
    to_half(out, y, type, count);
}
