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
  const bitcc_call *call;
  const int8_t *q;
  const uint8_t *w;
  int32_t tile, tiles; /* the first one, and how many */
  int32_t token, tokens;
} part;

static int32_t rows_of(const part *p) { return p->tiles * BITCC_TILE_ROWS; }

/* Weights are codes - 1: the accumulators of tokens [begin, end) of the part begin at minus the sum of
 * the activations. */
static void start(const part *p, int32_t *acc, int32_t begin, int32_t end) {
  int32_t rows = rows_of(p);
  for (int32_t i = begin; i < end; i++) {
    int32_t *restrict out = acc + i * rows, value = -p->call->sums[p->token + i];
    for (int32_t row = 0; row < rows; row++)
      out[row] = value;
  }
}

/* Where block i ends of as many as `tokens` are taken in: all nearly as large, and multiples of `unit`
 * but for the last one. */
static int32_t block_end(int32_t tokens, int32_t blocks, int32_t unit, int32_t i) {
  return bitcc_min(tokens, bitcc_round_up(tokens * (i + 1) / blocks, unit));
}

/* Rows of Y are far apart: stores to them would wait for one line, and one page, after the other. */
static void prefetch_y(const part *p, int32_t begin, int32_t end) {
  size_t bytes = (size_t)rows_of(p) * bitcc_x_bytes(p->call->node->x_type);
  for (int32_t i = begin; i < end; i++) {
    const char *y = bitcc_y(p->call, p->token + i, p->tile * BITCC_TILE_ROWS);
    for (size_t byte = 0; byte < bytes; byte += LINE)
      __builtin_prefetch(y + byte, 1);
  }
}

static void finish(const part *p, const int32_t *acc, int32_t begin, int32_t end) {
  int32_t rows = rows_of(p);
  for (int32_t i = begin; i < end; i++)
    bitcc_finish(p->call, p->token + i, p->tile * BITCC_TILE_ROWS, rows, acc + i * rows);
}

static void multiply_one(const part *p, int32_t *acc) {
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  bitcc_gemv_fn *gemv = layer->format == BITCC_T5 ? kernels->gemv_t5 : kernels->gemv;
  start(p, acc, 0, 1);
  prefetch_y(p, 0, 1);
  gemv(p->q, p->w, acc, layer->k_blocks, 0, p->tiles);
  finish(p, acc, 0, 1);
}

static void multiply_few(const part *p, int32_t *acc) {
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  int32_t blocks = bitcc_divide_up(p->tokens, kernels->few_tokens);
  for (int32_t i = 0, begin = 0, end; i < blocks; i++, begin = end) {
    end = block_end(p->tokens, blocks, 1, i);
    start(p, acc, begin, end);
    prefetch_y(p, begin, end);
    const int8_t *q = p->q + (size_t)begin * (size_t)layer->k_padded;
    int32_t *out = acc + begin * rows_of(p);
    if (layer->format == BITCC_T5)
      kernels->gemm_few_t5(q, p->w, out, layer->k_padded, layer->k_blocks, 0, p->tiles,
                           end - begin);
    else
      kernels->gemm_few(q, p->w, out, layer->k_blocks, 0, p->tiles, end - begin);
    finish(p, acc, begin, end);
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

/* Columns outside, tokens inside: unpacked weights stay in L1 for all tokens, and what else is needed
 * of a token is touched when its turn comes, not at once for all. Y is asked for a little at a time: a
 * core waits for no more than some lines at once. */
static void multiply_unpacked(const part *p, int32_t *acc) {
  alignas(64) uint8_t panel[GROUP * BITCC_MAX_PANEL_VECTORS * UNPACKED_BYTES];
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  bool is_t5 = layer->format == BITCC_T5;
  int32_t step = is_t5 ? T5_PANEL_VECTORS : kernels->panel_vectors;
  int32_t blocks = bitcc_divide_up(p->tokens, kernels->gemm_tokens);
  int32_t panels = bitcc_divide_up(layer->k_blocks, step);
  for (int32_t panel_number = 0; panel_number < panels; panel_number++) {
    int32_t vector = panel_number * step;
    bool is_last = panel_number == panels - 1;
    const int8_t *q = p->q + vector * (is_t5 ? BITCC_T5_VECTOR_COLUMNS : BITCC_VECTOR_COLUMNS);
    int32_t count = unpack(kernels, layer, p->w + vector * BITCC_VECTOR_BYTES,
                           bitcc_min(step, layer->k_blocks - vector), p->tiles, panel);
    for (int32_t i = 0, begin = 0, end; i < blocks; i++, begin = end) {
      end = block_end(p->tokens, blocks, kernels->gemm_unit, i);
      if (vector == 0)
        start(p, acc, begin, end);
      prefetch_y(p, begin + (end - begin) * panel_number / panels,
                 begin + (end - begin) * (panel_number + 1) / panels);
      kernels->gemm(q + (size_t)begin * (size_t)layer->k_padded, panel, acc + begin * rows_of(p),
                    layer->k_padded, count, p->tiles, end - begin);
      if (is_last)
        finish(p, acc, begin, end);
    }
  }
}

/* So few that weights are not written down unpacked. `t5` takes twice as long to decode as `t2`. */
static bool are_few(const bitcc_node *node, int32_t tokens) {
  int32_t blocks = node->kernels->few_blocks;
  if (node->layer.format == BITCC_T5)
    blocks = bitcc_divide_up(blocks, 2);
  return tokens <= blocks * node->kernels->few_tokens;
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
  part p = {.call = call,
            .q = call->q + (size_t)first * (size_t)layer->k_padded,
            .token = first,
            .tokens = bitcc_min(j->tokens_per_task, call->tokens - first)};
  bool few = are_few(call->node, p.tokens);
  int32_t step = p.tokens == 1 ? GEMV_TILES : few ? GROUP : kernels->panel_tiles;
  if (!few)
    kernels->gemm_begin(state);
  for (p.tile = begin; p.tile < end; p.tile += step) {
    p.tiles = bitcc_min(step, end - p.tile);
    p.w = call->weights->w + (size_t)p.tile * (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
    (p.tokens == 1 ? multiply_one : few ? multiply_few : multiply_unpacked)(&p, acc);
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
