/* bitcc::TernaryLinear: every token is a gemv of float activations; weights wait in a cache. */
#include <string.h>

#include "call.h"

/* Activations in float32 of one band, if they cannot be used where they are. */
enum { BAND_BYTES = 1 << 20, MIN_BAND = 16 };
/* Tiles of one kernel call: with several tokens so few that their weights stay in L2, but not
 * fewer than the kernel takes at once. */
enum { SHARED_TILES = 16 };
/* Elements worth a task when they are converted. */
enum { TASK_ELEMENTS = 1 << 15 };

typedef struct {
  const bitcc_call *call;
  int32_t per_task; /* tokens, or tiles */
} job;

static void multiply_token(const bitcc_call *call, int32_t tile, int32_t tiles, int32_t token) {
  float acc[BITCC_MAX_FLOAT_TILES * BITCC_TILE_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  size_t tile_bytes = (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
  int32_t row = tile * BITCC_TILE_ROWS;
  call->node->kernels->gemv_float(call->floats + (size_t)token * (size_t)layer->k_padded,
                                  call->weights->w + (size_t)tile * tile_bytes,
                                  call->weights->scale + row, acc, layer->k_blocks,
                                  layer->group_vectors, layer->rows, 0, tiles);
  int32_t count = bitcc_min(tiles * BITCC_TILE_ROWS, layer->n - row);
  OrtElementType type = call->node->x_type;
  const float *bias = call->weights->bias + row;
  float *y = type == ORT_FLOAT ? bitcc_y(call, token, row) : acc;
  for (int32_t i = 0; i < count; i++)
    y[i] = acc[i] + bias[i];
  if (type != ORT_FLOAT)
    bitcc_to_half_type(bitcc_y(call, token, row), y, type, count);
}

/* Tiles outside, tokens inside. */
static void multiply_task(void *argument, size_t index) {
  const job *j = argument;
  int32_t begin = (int32_t)index * j->per_task;
  int32_t end = bitcc_min(begin + j->per_task, j->call->node->layer.tiles);
  int32_t unit = j->call->node->kernels->float_tiles;
  int32_t shared = unit < SHARED_TILES ? SHARED_TILES / unit * unit : unit;
  int32_t step = j->call->tokens > 1 ? shared : BITCC_MAX_FLOAT_TILES / unit * unit;
  for (int32_t tile = begin; tile < end; tile += step)
    for (int32_t token = 0; token < j->call->tokens; token++)
      multiply_token(j->call, tile, bitcc_min(step, end - tile), token);
}

static void convert_task(void *argument, size_t index) {
  const job *j = argument;
  const bitcc_layer *layer = &j->call->node->layer;
  int32_t begin = (int32_t)index * j->per_task;
  int32_t end = bitcc_min(begin + j->per_task, j->call->tokens);
  for (int32_t token = begin; token < end; token++) {
    float *out = j->call->converted + (size_t)token * (size_t)layer->k_padded;
    const float *x = bitcc_load_x(j->call, token, 0, layer->k, out);
    if (x != out)
      memcpy(out, x, (size_t)layer->k * sizeof *out);
    memset(out + layer->k, 0, (size_t)(layer->k_padded - layer->k) * sizeof *out);
  }
}

static OrtStatus *convert(bitcc_call *call) {
  job j = {call, TASK_ELEMENTS / call->node->layer.k + 1};
  return bitcc_parallel(call, convert_task, &j, (size_t)bitcc_divide_up(call->tokens, j.per_task));
}

static OrtStatus *multiply(const bitcc_call *call) {
  int32_t unit = call->node->kernels->float_tiles;
  job j = {call, bitcc_tiles_per_task(call, bitcc_worth_tasks(call), unit)};
  size_t tasks = (size_t)bitcc_divide_up(call->node->layer.tiles, j.per_task);
  return bitcc_parallel(call, multiply_task, &j, tasks);
}

static OrtStatus *run_band(bitcc_call *call) {
  call->floats = call->converted;
  if (call->converted == NULL)
    call->floats = (const float *)(const void *)call->x;
  OrtStatus *status = call->converted == NULL ? NULL : convert(call);
  return status != NULL ? status : multiply(call);
}

static OrtStatus *run(bitcc_node *node, bitcc_call *call, int64_t tokens) {
  size_t token_bytes = (size_t)node->layer.k_padded * sizeof *call->converted;
  if (node->x_type == ORT_FLOAT && node->layer.k == node->layer.k_padded)
    return bitcc_each_band(call, tokens, BITCC_MAX_BAND, run_band);
  int32_t band = (int32_t)(BAND_BYTES / token_bytes);
  band = band < MIN_BAND ? MIN_BAND : band;
  band = tokens < band ? (int32_t)tokens : band;
  bitcc_scratch *scratch;
  call->converted = bitcc_take_scratch(node, (size_t)band * token_bytes, &scratch);
  if (call->converted == NULL)
    return bitcc_node_error(node, "out of memory for %d tokens", band);
  OrtStatus *status = bitcc_each_band(call, tokens, band, run_band);
  bitcc_give_scratch(node, scratch);
  return status;
}

const bitcc_kind bitcc_ternary_linear = {"TernaryLinear", 3, bitcc_read_ternary_linear, run,
                                         false};
