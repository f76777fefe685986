/* Quantized tokens times weights, in tasks of tiles x token blocks. */
#include "call.h"

/* Tasks for any machine to balance: token blocks are not split for more. */
enum { ENOUGH_TASKS = 16 };
/* Tiles of one gemv call, which reads so many streams: its variants are made for 4. */
enum { GEMV_STREAMS = 4, GEMV_TILES = BITCC_MAX_FINISH_ROWS / BITCC_TILE_ROWS };
/* Token blocks of one task at least: a tile's weights are read from L1 by all but the first. */
enum { MIN_BLOCKS = 4 };

typedef struct {
  const bitcc_call *call;
  bitcc_split split;
  int32_t tiles_per_task, tile_tasks;
  int32_t blocks_per_task, block_tasks;
} job;

bitcc_split bitcc_split_tokens(const bitcc_kernels *kernels, int32_t tokens) {
  int32_t rest = tokens % kernels->gemm_tokens;
  bitcc_split split = {tokens / kernels->gemm_tokens, 0, rest};
  if (tokens == 1) {
    split.blocks = 0;
    split.single = 1;
  } else if (3 * rest > 2 * kernels->gemm_tokens) {
    /* gemv unpacks the weights for each token: two thirds of a block cost it a whole one. */
    split.blocks++;
    split.padding = kernels->gemm_tokens - rest;
    split.single = 0;
  }
  return split;
}

static void multiply_block(const bitcc_call *call, int32_t tile, int32_t tiles, int32_t block) {
  int32_t acc[BITCC_MAX_ACCUMULATORS];
  const bitcc_layer *layer = &call->node->layer;
  const bitcc_kernels *kernels = call->node->kernels;
  int32_t tokens = kernels->gemm_tokens, first = block * tokens;
  size_t tile_bytes = (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
  kernels->gemm(call->q + (size_t)first * (size_t)layer->k_padded,
                call->weights->w + (size_t)tile * tile_bytes, call->sums + first, acc,
                layer->k_blocks, 0, tiles);
  int32_t valid = bitcc_min(tokens, call->tokens - first);
  for (int32_t t = 0; t < tiles; t++)
    for (int32_t i = 0; i < valid; i++)
      bitcc_finish(call, first + i, (tile + t) * BITCC_TILE_ROWS, BITCC_TILE_ROWS,
                   acc + (t * tokens + i) * BITCC_TILE_ROWS);
}

/* Kernels get a pointer to their first tile and begin at 0: no index in them can pass 2^31. */
static void multiply_token(const bitcc_call *call, int32_t tile, int32_t tiles, int32_t token) {
  int32_t acc[GEMV_TILES * BITCC_TILE_ROWS];
  const bitcc_layer *layer = &call->node->layer;
  size_t tile_bytes = (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
  call->node->kernels->gemv(call->q + (size_t)token * (size_t)layer->k_padded,
                            call->weights->w + (size_t)tile * tile_bytes, acc, layer->k_blocks, 0,
                            tiles, call->sums[token]);
  bitcc_finish(call, token, tile * BITCC_TILE_ROWS, tiles * BITCC_TILE_ROWS, acc);
}

/* Tiles outside, tokens inside: the weights of a few tiles stay in L1 for all tokens. */
static void multiply_task(void *argument, size_t index) {
  const job *j = argument;
  const bitcc_call *call = j->call;
  int32_t step = call->node->kernels->gemm_tiles;
  int32_t begin = (int32_t)index % j->tile_tasks * j->tiles_per_task;
  int32_t end = bitcc_min(begin + j->tiles_per_task, call->node->layer.tiles);
  int32_t first = (int32_t)index / j->tile_tasks * j->blocks_per_task;
  int32_t last = bitcc_min(first + j->blocks_per_task, j->split.blocks);
  for (int32_t tile = begin; tile < end; tile += step)
    for (int32_t block = first; block < last; block++)
      multiply_block(call, tile, bitcc_min(step, end - tile), block);
  if (last < j->split.blocks)
    return;
  step = j->split.single == 1 ? GEMV_TILES : GEMV_STREAMS;
  for (int32_t tile = begin; tile < end; tile += step)
    for (int32_t token = call->tokens - j->split.single; token < call->tokens; token++)
      multiply_token(call, tile, bitcc_min(step, end - tile), token);
}

/* Tasks are runs of whole gemm and gemv groups of tiles; if there are few, blocks are split too.
 */
static job plan(const bitcc_call *call) {
  const bitcc_layer *layer = &call->node->layer;
  job j = {.call = call, .split = bitcc_split_tokens(call->node->kernels, call->tokens)};
  int32_t unit = call->node->kernels->gemm_tiles;
  while (unit % GEMV_STREAMS != 0)
    unit += call->node->kernels->gemm_tiles;
  int32_t tasks = bitcc_worth_tasks(call);
  j.tiles_per_task = bitcc_tiles_per_task(call, tasks, unit);
  j.tile_tasks = bitcc_divide_up(layer->tiles, j.tiles_per_task);
  int32_t block_tasks =
      bitcc_min(bitcc_min(tasks, ENOUGH_TASKS) / j.tile_tasks, j.split.blocks / MIN_BLOCKS);
  j.blocks_per_task =
      block_tasks > 1 ? bitcc_divide_up(j.split.blocks, block_tasks) : j.split.blocks;
  j.block_tasks = j.split.blocks == 0 ? 1 : bitcc_divide_up(j.split.blocks, j.blocks_per_task);
  return j;
}

OrtStatus *bitcc_multiply(bitcc_call *call) {
  job j = plan(call);
  return bitcc_parallel(call, multiply_task, &j, (size_t)j.tile_tasks * (size_t)j.block_tasks);
}
