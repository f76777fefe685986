/* Between the type of X and Y and float32. */
#include "call.h"
#include "half.h"

const float *bitcc_load_x(const bitcc_call *call, int32_t token, int32_t k, int32_t count,
                          float *restrict buffer) {
  size_t offset = (size_t)token * (size_t)call->node->layer.k + (size_t)k;
  const char *x = call->x + offset * bitcc_x_bytes(call->node->x_type);
  if (call->node->x_type == ORT_FLOAT)
    return (const float *)(const void *)x;
  const uint16_t *restrict half = (const uint16_t *)(const void *)x;
  if (call->node->x_type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      buffer[i] = bitcc_from_half(half[i]);
  else
    for (int32_t i = 0; i < count; i++)
      buffer[i] = bitcc_from_bfloat16(half[i]);
  return buffer;
}

void *bitcc_y(const bitcc_call *call, int32_t token, int32_t row) {
  size_t offset = (size_t)token * (size_t)call->node->layer.n + (size_t)row;
  return call->y + offset * bitcc_x_bytes(call->node->x_type);
}

void bitcc_to_half_type(void *out, const float *restrict y, OrtElementType type, int32_t count) {
  uint16_t *restrict half = out;
  if (type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      half[i] = bitcc_to_half(y[i]);
  else
    for (int32_t i = 0; i < count; i++)
      half[i] = bitcc_to_bfloat16(y[i]);
}
