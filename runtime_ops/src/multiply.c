/* Quantized tokens times weights, in tasks of tiles x tokens. */
#include <stdalign.h>
#include <string.h>

#include "call.h"

/* Tiles that gemm_few reads side by side, and those of one gemv call. */
enum { GROUP = BITCC_MAX_PANEL_TILES, GEMV_TILES = BITCC_MAX_FINISH_ROWS / BITCC_TILE_ROWS };
/* Tokens that share weights written down; their accumulators are 32 KB. */
enum { MAX_TOKENS = 128, ACCUMULATORS = MAX_TOKENS * GROUP * BITCC_TILE_ROWS };
enum { UNPACKED_BYTES = 4 * BITCC_VECTOR_BYTES };
/* Vectors of `t5` of a tile that are unpacked at once: whole steps of gemm. */
enum { T5_PANEL_VECTORS = 16 };
enum { LINE = 64 };
/* Enough tasks for any machine to balance: tokens are not split for more, nor to fewer than this.
 */
enum { ENOUGH_TASKS = 16, MIN_TOKENS = 32 };

static_assert((int)GEMV_TILES * BITCC_TILE_ROWS <= ACCUMULATORS, "gemv");
static_assert(T5_PANEL_VECTORS * 5 / 4 <= (int)BITCC_MAX_PANEL_VECTORS, "panels of t5");
static_assert((int)MAX_TOKENS % BITCC_MAX_TOKENS == 0, "rounding up to units of tokens");

typedef struct {
  const bitcc_call *call;
  int32_t tiles_per_task, tile_tasks;
  int32_t tokens_per_task, token_tasks;
} job;

/* Some tiles and some tokens. Kernels get a pointer to their first tile and begin at 0: no index in
 * them can pass 2^31. */
typedef struct {
  const int8_t *q;
  const uint8_t *w;
  int32_t tiles, tokens;
} part;

/* Weights are codes - 1: the accumulators begin at minus the sum of the activations. */
static void start(int32_t *restrict acc, const int32_t *restrict sums, const part *p) {
  int32_t rows = p->tiles * BITCC_TILE_ROWS;
  for (int32_t i = 0; i < p->tokens; i++)
    for (int32_t row = 0; row < rows; row++)
      acc[i * rows + row] = -sums[i];
}

/* The next of as many blocks as `tokens` take with at most `most` in each; all nearly as large, and
 * multiples of `unit` but for the last one. */
static int32_t next_block(int32_t tokens, int32_t most, int32_t unit) {
  int32_t even = bitcc_divide_up(tokens, bitcc_divide_up(tokens, most));
  return bitcc_min(tokens, bitcc_round_up(even, unit));
}

/* Rows of Y are far apart: stores to them would wait for one line, and one page, after the other. */
static void prefetch_y(const bitcc_call *call, int32_t token, int32_t tile, const part *p) {
  size_t bytes = (size_t)(p->tiles * BITCC_TILE_ROWS) * bitcc_x_bytes(call->node->x_type);
  for (int32_t i = 0; i < p->tokens; i++) {
    const char *y = bitcc_y(call, token + i, tile * BITCC_TILE_ROWS);
    for (size_t byte = 0; byte < bytes; byte += LINE)
      __builtin_prefetch(y + byte, 1);
  }
}

static void multiply_few(const bitcc_call *call, const part *p, int32_t *acc) {
  const bitcc_kernels *kernels = call->node->kernels;
  const bitcc_layer *layer = &call->node->layer;
  for (int32_t done = 0, tokens; done < p->tokens; done += tokens) {
    tokens = next_block(p->tokens - done, kernels->few_tokens, 1);
    kernels->gemm_few(p->q + (size_t)done * (size_t)layer->k_padded, p->w,
                      acc + done * p->tiles * BITCC_TILE_ROWS, layer->k_blocks, 0, p->tiles,
                      tokens);
  }
}

/* Vectors [0, count) of each tile into a panel; how many vectors of gemm they are. */
static int32_t unpack(const bitcc_kernels *kernels, const bitcc_layer *layer, const uint8_t *w,
                      int32_t count, int32_t tiles, uint8_t *panel) {
  if (layer->format == BITCC_T2) {
    kernels->unpack(w, panel, layer->k_blocks, count, tiles);
    return count;
  }
  int32_t columns = count * BITCC_T5_VECTOR_COLUMNS;
  int32_t blocks =
      bitcc_divide_up(columns, BITCC_K_ALIGNMENT) * (BITCC_K_ALIGNMENT / BITCC_VECTOR_COLUMNS);
  int32_t stride = blocks * UNPACKED_BYTES;
  if (columns % BITCC_K_ALIGNMENT != 0)
    memset(panel, 0, (size_t)(tiles * stride));
  kernels->unpack_t5(w, panel, layer->k_blocks, count, stride, tiles);
  return blocks;
}

/* Columns outside, tokens inside: unpacked weights stay in L1 for all tokens. */
static void multiply_unpacked(const bitcc_call *call, const part *p, int32_t *acc) {
  alignas(64) uint8_t panel[GROUP * BITCC_MAX_PANEL_VECTORS * UNPACKED_BYTES];
  const bitcc_kernels *kernels = call->node->kernels;
  const bitcc_layer *layer = &call->node->layer;
  bool is_t5 = layer->format == BITCC_T5;
  int32_t step = is_t5 ? T5_PANEL_VECTORS : kernels->panel_vectors;
  for (int32_t vector = 0; vector < layer->k_blocks; vector += step) {
    const int8_t *q = p->q + vector * (is_t5 ? BITCC_T5_VECTOR_COLUMNS : BITCC_VECTOR_COLUMNS);
    int32_t count = unpack(kernels, layer, p->w + vector * BITCC_VECTOR_BYTES,
                           bitcc_min(step, layer->k_blocks - vector), p->tiles, panel);
    for (int32_t done = 0, tokens; done < p->tokens; done += tokens) {
      tokens = next_block(p->tokens - done, kernels->gemm_tokens, kernels->gemm_unit);
      kernels->gemm(q + (size_t)done * (size_t)layer->k_padded, panel,
                    acc + done * p->tiles * BITCC_TILE_ROWS, layer->k_padded, count, p->tiles,
                    tokens);
    }
  }
}

/* So few that weights are not written down unpacked. */
static bool are_few(const bitcc_node *node, int32_t tokens) {
  int32_t few = node->kernels->few_blocks * node->kernels->few_tokens;
  return tokens == 1 || (node->layer.format == BITCC_T2 && tokens <= few);
}

static void multiply_part(const bitcc_call *call, const part *p, int32_t *acc) {
  const bitcc_kernels *kernels = call->node->kernels;
  const bitcc_layer *layer = &call->node->layer;
  bool is_t5 = layer->format == BITCC_T5;
  if (p->tokens == 1)
    (is_t5 ? kernels->gemv_t5 : kernels->gemv)(p->q, p->w, acc, layer->k_blocks, 0, p->tiles);
  else if (are_few(call->node, p->tokens))
    multiply_few(call, p, acc);
  else
    multiply_unpacked(call, p, acc);
}

/* Tiles outside, tokens inside: each weight comes from memory once. */
static void multiply_task(void *argument, size_t index) {
  alignas(64) int32_t acc[ACCUMULATORS];
  uint8_t state[BITCC_STATE_BYTES];
  const job *j = argument;
  const bitcc_call *call = j->call;
  const bitcc_kernels *kernels = call->node->kernels;
  const bitcc_layer *layer = &call->node->layer;
  int32_t begin = (int32_t)index % j->tile_tasks * j->tiles_per_task;
  int32_t end = bitcc_min(begin + j->tiles_per_task, layer->tiles);
  int32_t first = (int32_t)index / j->tile_tasks * j->tokens_per_task;
  part p = {.q = call->q + (size_t)first * (size_t)layer->k_padded,
            .tokens = bitcc_min(j->tokens_per_task, call->tokens - first)};
  bool few = are_few(call->node, p.tokens);
  int32_t step = p.tokens == 1 ? GEMV_TILES : few ? GROUP : kernels->panel_tiles;
  if (!few)
    kernels->gemm_begin(state);
  for (int32_t tile = begin; tile < end; tile += step) {
    p.tiles = bitcc_min(step, end - tile);
    p.w = call->weights->w + (size_t)tile * (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
    start(acc, call->sums + first, &p);
    prefetch_y(call, first, tile, &p);
    multiply_part(call, &p, acc);
    int32_t rows = p.tiles * BITCC_TILE_ROWS;
    for (int32_t i = 0; i < p.tokens; i++)
      bitcc_finish(call, first + i, tile * BITCC_TILE_ROWS, rows, acc + i * rows);
  }
  if (!few)
    kernels->gemm_end(state);
}

/* Tasks are runs of whole groups of tiles; if there are few, tokens are split too. */
static job plan(const bitcc_call *call) {
  job j = {.call = call};
  int32_t tasks = bitcc_worth_tasks(call);
  j.tiles_per_task = bitcc_tiles_per_task(call, tasks, GROUP);
  j.tile_tasks = bitcc_divide_up(call->node->layer.tiles, j.tiles_per_task);
  int32_t wanted =
      bitcc_min(bitcc_min(tasks, ENOUGH_TASKS) / j.tile_tasks, call->tokens / MIN_TOKENS);
  int32_t needed = bitcc_divide_up(call->tokens, MAX_TOKENS);
  j.tokens_per_task = bitcc_divide_up(call->tokens, wanted > needed ? wanted : needed);
  j.token_tasks = bitcc_divide_up(call->tokens, j.tokens_per_task);
  return j;
}

OrtStatus *bitcc_multiply(bitcc_call *call) {
  job j = plan(call);
  return bitcc_parallel(call, multiply_task, &j, (size_t)j.tile_tasks * (size_t)j.token_tasks);
}
