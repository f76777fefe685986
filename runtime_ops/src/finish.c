/* From int32 accumulators to Y. */
#include "call.h"

void bitcc_finish(const bitcc_call *call, int32_t token, int32_t tokens, int32_t row, int32_t rows,
                  const int32_t *acc) {
  float buffer[BITCC_MAX_FINISH_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  const bitcc_kernels *kernels = call->node->kernels;
  const float *scale = call->weights->scale + row, *bias = call->weights->bias + row;
  OrtElementType type = call->node->x_type;
  bool is_float = type == ORT_FLOAT;
  int32_t count = bitcc_min(rows, layer->n - row); /* the last tile may be padded */
  int32_t step = is_float ? tokens : BITCC_MAX_FINISH_ROWS / rows;
  bitcc_finish_fn *finish =
      layer->bias_before_scale ? kernels->finish_bias_first : kernels->finish;
  for (int32_t i = 0, size; i < tokens; i += size, token += size, acc += size * rows) {
    size = bitcc_min(step, tokens - i);
    finish(acc, call->sums + token, call->inverse + token, scale, bias,
           is_float ? bitcc_y(call, token, row) : buffer, count, size, rows,
           is_float ? layer->n : rows);
    for (int32_t j = 0; j < size && !is_float; j++)
      bitcc_to_half_type(bitcc_y(call, token + j, row), buffer + j * rows, type, count);
  }
}
