/* From int32 accumulators to Y. */
#include "call.h"

void bitcc_finish(const bitcc_call *call, int32_t token, int32_t row, int32_t count,
                  const int32_t *acc) {
  float buffer[BITCC_MAX_FINISH_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  const bitcc_kernels *kernels = call->node->kernels;
  OrtElementType type = call->node->x_type;
  void *out = bitcc_y(call, token, row);
  float *y = type == ORT_FLOAT ? out : buffer;
  count = bitcc_min(count, layer->n - row); /* the last tile may be padded */
  bitcc_finish_fn *finish =
      layer->bias_before_scale ? kernels->finish_bias_first : kernels->finish;
  finish(acc, call->weights->scale + row, call->weights->bias + row, y, count,
         call->inverse[token]);
  if (layer->bias_before_scale)
    for (int32_t i = 0; i < count; i++)
      y[i] += 0.0f; /* like the other form, which ends with an addition: no negative zeros */
  if (type != ORT_FLOAT)
    bitcc_to_half_type(out, y, type, count);
}
