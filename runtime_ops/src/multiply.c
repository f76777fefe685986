/* Quantized tokens times weights, in tasks of tiles x tokens. */
#include <stdalign.h>
#include <string.h>

#include "call.h"

/* Tiles that gemm_few reads side by side, and those of one gemv call. */
enum { GROUP = BITCC_MAX_PANEL_TILES, GEMV_TILES = BITCC_MAX_FINISH_ROWS / BITCC_TILE_ROWS };
/* Tokens that share weights written down; their accumulators are 32 KB. */
enum { MAX_TOKENS = 128, ACCUMULATORS = MAX_TOKENS * GROUP * BITCC_TILE_ROWS };
enum { UNPACKED_BYTES = 4 * BITCC_VECTOR_BYTES };
/* Vectors of `t5` of a tile are unpacked in multiples of 16, whole steps of gemm; so many fit. */
enum { T5_STEP = 16, T5_MOST = BITCC_MAX_PANEL_VECTORS * 4 / 5 / T5_STEP * T5_STEP };
/* From so many tokens on as many as of `t2`, though a quarter longer then: fewer sums to load and store. With
 * fewer tokens it counts more that small panels are written faster. */
enum { T5_LONG_PANEL_TOKENS = 64 };
enum { LINE = 64 };
/* Enough tasks for any machine to balance: tokens are not split for more, nor to fewer than this.
 */
enum { ENOUGH_TASKS = 16, MIN_TOKENS = 32 };
/* Activations that a task with all tiles quantizes itself: for more there are tasks of their own. */
enum { QUANTIZED_HERE = 1 << 15 };
/* Blocks of tokens that one task pairs: some microseconds. */
enum { PAIRED_BLOCKS = 4 };

static_assert((int)GEMV_TILES * BITCC_TILE_ROWS <= ACCUMULATORS, "gemv");
static_assert(T5_MOST >= T5_STEP, "panels of t5");
static_assert((int)MAX_TOKENS % BITCC_MAX_TOKENS == 0, "rounding up to units of tokens");

typedef struct {
  const bitcc_call *call;
  int32_t tiles_per_task, tile_tasks;
  int32_t tokens_per_task, token_tasks;
  int32_t blocks; /* of tokens of a task, with products of pairs */
  bool quantizes; /* each task its own tokens */
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

static void clear(const part *p, int32_t *acc, int32_t tokens) {
  memset(acc, 0, (size_t)(tokens * rows_of(p)) * sizeof *acc);
}

/* The blocks that tokens are taken in: all nearly as large, the first `larger` of them by one unit. */
typedef struct {
  int32_t count, tokens, larger, unit;
} blocking;

/* Blocks of at most `most` tokens, a multiple of `unit`, as are all blocks but for the last one. */
static blocking split(int32_t tokens, int32_t most, int32_t unit) {
  int32_t count = bitcc_divide_up(tokens, most), units = bitcc_divide_up(tokens, unit);
  return (blocking){count, units / count * unit, units % count, unit};
}

/* Where block i of as many tokens begins, and the one before ends. */
static int32_t block_begin(const blocking *b, int32_t i, int32_t tokens) {
  return bitcc_min(tokens, i * b->tokens + bitcc_min(i, b->larger) * b->unit);
}

/* Rows of Y are far apart: stores to them would wait for one line, and one page, after the other. */
static void prefetch_y(const part *p, int32_t begin, int32_t end) {
  size_t size = bitcc_x_bytes(p->call->node->x_type), bytes = (size_t)rows_of(p) * size;
  const char *y = bitcc_y(p->call, p->token + begin, p->tile * BITCC_TILE_ROWS);
  for (int32_t i = begin; i < end; i++, y += (size_t)p->call->node->layer.n * size)
    for (size_t byte = 0; byte < bytes; byte += LINE)
      __builtin_prefetch(y + byte, 1);
}

/* Vectors [begin, end) of as many tiles as the part has, from `tile` of it on, where there are any: into
 * L2, as L1 is full of the panel that is in use. */
static void prefetch_w(const part *p, int32_t tile, int32_t begin, int32_t end) {
  const bitcc_layer *layer = &p->call->node->layer;
  int32_t tiles = bitcc_min(tile + p->tiles, layer->tiles - p->tile);
  end = bitcc_min(end, layer->k_blocks);
  for (; tile < tiles; tile++)
    for (int32_t vector = begin; vector < end; vector++) {
      size_t offset = (size_t)tile * (size_t)layer->k_blocks + (size_t)vector;
      __builtin_prefetch(p->w + offset * BITCC_VECTOR_BYTES, 0, 2);
    }
}

/* Tokens [begin, end) from accumulators [end - begin][rows]. */
static void finish(const part *p, const int32_t *acc, int32_t begin, int32_t end) {
  bitcc_finish(p->call, p->token + begin, end - begin, p->tile * BITCC_TILE_ROWS, rows_of(p), acc);
}

static void multiply_one(const part *p, int32_t *acc) {
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  bitcc_gemv_fn *gemv = layer->format == BITCC_T5 ? kernels->gemv_t5 : kernels->gemv;
  clear(p, acc, 1);
  prefetch_y(p, 0, 1);
  gemv(p->q, p->w, acc, layer->k_blocks, 0, p->tiles);
  finish(p, acc, 0, 1);
}

/* Tokens [begin, end) of a part without products of pairs, and all columns. */
static void multiply_block(const part *p, int32_t *acc, int32_t begin, int32_t end) {
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  const int8_t *q = p->q + (size_t)begin * (size_t)layer->k_padded;
  clear(p, acc, end - begin);
  if (layer->format == BITCC_T5)
    kernels->gemm_few_t5(q, p->w, acc, layer->k_padded, layer->k_blocks, 0, p->tiles, end - begin);
  else
    kernels->gemm_few(q, p->w, acc, layer->k_blocks, 0, p->tiles, end - begin);
}

static void multiply_few(const part *p, int32_t *acc) {
  blocking blocks = split(p->tokens, p->call->node->kernels->few_tokens, 1);
  for (int32_t i = 0; i < blocks.count; i++) {
    int32_t begin = block_begin(&blocks, i, p->tokens);
    int32_t end = block_begin(&blocks, i + 1, p->tokens);
    prefetch_y(p, begin, end);
    multiply_block(p, acc, begin, end);
    finish(p, acc, begin, end);
  }
}

/* Blocks of tokens for products of pairs. */
static blocking split_pairs(const bitcc_call *call, int32_t tokens) {
  return split(tokens, call->node->kernels->pair_tokens, 1);
}

/* Products of pairs with some of the columns, or all. */
static void multiply_columns(const part *p, const bitcc_columns *some, int32_t *acc) {
  const int32_t *start = p->call->pairs_start + p->tile * BITCC_TILE_ROWS;
  int32_t all = p->call->node->layer.k_padded / BITCC_VECTOR_COLUMNS, rows = rows_of(p);
  bool is_last = some->first + some->count == all;
  blocking blocks = split_pairs(p->call, p->tokens);
  for (int32_t i = 0; i < blocks.count; i++) {
    int32_t begin = block_begin(&blocks, i, p->tokens);
    int32_t end = block_begin(&blocks, i + 1, p->tokens);
    int32_t *sums = some->count == all ? acc : acc + begin * rows;
    if (is_last)
      prefetch_y(p, begin, end);
    for (int32_t j = 0; j < end - begin && some->first == 0; j++)
      memcpy(sums + j * rows, start, (size_t)rows * sizeof *sums);
    if (!p->call->excesses[p->token + begin].too_many)
      bitcc_add_pairs(p->call, p->token + begin, end - begin, some, sums);
    else if (is_last)
      multiply_block(p, sums, begin, end);
    if (is_last)
      finish(p, sums, begin, end);
  }
}

static void multiply_pairs(const part *p, int32_t *acc) {
  bitcc_columns all = bitcc_take_columns(p->call->node, p->w, p->tiles, 0, NULL);
  multiply_columns(p, &all, acc);
}

/* Columns outside, tokens inside: repacked weights stay in a cache for all tokens. */
static void multiply_repacked(const part *p, int32_t *acc) {
  alignas(64) uint8_t panel[BITCC_REPACKED_BYTES];
  const bitcc_node *node = p->call->node;
  int32_t all = node->layer.k_padded / BITCC_VECTOR_COLUMNS;
  bitcc_columns some = {0};
  for (int32_t first = 0; first < all; first += some.count) {
    some = bitcc_take_columns(node, p->w, p->tiles, first, panel);
    multiply_columns(p, &some, acc);
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

/* Vectors of a tile that are unpacked at once. */
static int32_t panel_vectors(const bitcc_node *node, int32_t tokens) {
  int32_t vectors = node->kernels->panel_vectors;
  if (node->layer.format == BITCC_T2)
    return vectors;
  return tokens < T5_LONG_PANEL_TOKENS ? T5_STEP
                                       : bitcc_min(bitcc_round_up(vectors, T5_STEP), T5_MOST);
}

/* Columns outside, tokens inside: unpacked weights stay in L1 for all tokens, and what else is needed
 * of a token is touched when its turn comes, not at once for all. Y and the weights of the next panel
 * are asked for a little at a time: a core waits for no more than some lines at once. */
static void multiply_unpacked(const part *p, int32_t *acc) {
  alignas(64) uint8_t panel[GROUP * BITCC_MAX_PANEL_VECTORS * UNPACKED_BYTES];
  const bitcc_kernels *kernels = p->call->node->kernels;
  const bitcc_layer *layer = &p->call->node->layer;
  int32_t columns = layer->format == BITCC_T5 ? BITCC_T5_VECTOR_COLUMNS : BITCC_VECTOR_COLUMNS;
  int32_t step = panel_vectors(p->call->node, p->tokens);
  blocking blocks = split(p->tokens, kernels->gemm_tokens, kernels->gemm_unit);
  int32_t panels = bitcc_divide_up(layer->k_blocks, step);
  int32_t prefetched = bitcc_divide_up(kernels->gemm_tokens, panels); /* of each block */
  int32_t share = bitcc_divide_up(step, blocks.count);                /* of the next panel */
  for (int32_t panel_number = 0; panel_number < panels; panel_number++) {
    int32_t vector = panel_number * step;
    bool is_last = panel_number == panels - 1;
    const int8_t *q = p->q + vector * columns;
    int32_t next_tile = is_last ? p->tiles : 0, next_vector = is_last ? 0 : vector + step;
    int32_t count = unpack(kernels, layer, p->w + vector * BITCC_VECTOR_BYTES,
                           bitcc_min(step, layer->k_blocks - vector), p->tiles, panel);
    for (int32_t i = 0; i < blocks.count; i++) {
      int32_t begin = block_begin(&blocks, i, p->tokens);
      int32_t end = block_begin(&blocks, i + 1, p->tokens);
      int32_t *sums = panels == 1 ? acc : acc + begin * rows_of(p);
      if (panel_number == 0)
        clear(p, sums, end - begin);
      int32_t first = bitcc_min(end, begin + prefetched * panel_number);
      prefetch_y(p, first, bitcc_min(end, first + prefetched));
      prefetch_w(p, next_tile, next_vector + share * i,
                 next_vector + bitcc_min(share * (i + 1), step));
      kernels->gemm(q + (size_t)begin * (size_t)layer->k_padded, panel, sums, layer->k_padded,
                    count, p->tiles, end - begin);
      if (is_last)
        finish(p, sums, begin, end);
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

/* Whether a task with so many tokens multiplies pairs: one token, such as the last of many, has nothing to gain. */
static bool are_paired(const bitcc_call *call, int32_t tokens) {
  return call->pairs != NULL && tokens > 1;
}

/* Blocks [begin, end), counted through all token tasks. */
static void pair_blocks(const job *j, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; i++) {
    int32_t first = i / j->blocks * j->tokens_per_task, block = i % j->blocks;
    int32_t tokens = bitcc_min(j->tokens_per_task, j->call->tokens - first);
    blocking blocks = split_pairs(j->call, tokens);
    int32_t from = block_begin(&blocks, block, tokens);
    int32_t to = block_begin(&blocks, block + 1, tokens);
    if (block < blocks.count && are_paired(j->call, tokens))
      bitcc_pair(j->call, first + from, to - from);
  }
}

static void pair_task(void *argument, size_t index) {
  const job *j = argument;
  int32_t begin = (int32_t)index * PAIRED_BLOCKS, all = j->token_tasks * j->blocks;
  pair_blocks(j, begin, bitcc_min(begin + PAIRED_BLOCKS, all));
}

typedef void multiply_fn(const part *p, int32_t *acc);

/* How so many tokens are multiplied. */
static multiply_fn *way(const bitcc_call *call, int32_t tokens) {
  if (tokens == 1)
    return multiply_one;
  if (are_paired(call, tokens))
    return call->node->layer.format == BITCC_T5 ? multiply_repacked : multiply_pairs;
  return are_few(call->node, tokens) ? multiply_few : multiply_unpacked;
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
  if (j->quantizes)
    bitcc_quantize(call, first, p.tokens);
  if (j->quantizes && call->pairs != NULL)
    pair_blocks(j, (int32_t)index * j->blocks, ((int32_t)index + 1) * j->blocks);
  multiply_fn *multiply = way(call, p.tokens);
  bool unpacked = multiply == multiply_unpacked;
  int32_t step = p.tokens == 1 ? GEMV_TILES : unpacked ? kernels->panel_tiles : GROUP;
  if (unpacked)
    kernels->gemm_begin(state);
  for (p.tile = begin; p.tile < end; p.tile += step) {
    p.tiles = bitcc_min(step, end - p.tile);
    p.w = bitcc_tile(layer, call->weights->w, p.tile);
    multiply(&p, acc);
  }
  if (unpacked)
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
  j.tokens_per_task = bitcc_round_up(j.tokens_per_task, call->node->kernels->gemm_unit);
  j.token_tasks = bitcc_divide_up(call->tokens, j.tokens_per_task);
  j.blocks = call->pairs == NULL ? 0 : split_pairs(call, j.tokens_per_task).count;
  j.quantizes =
      j.tile_tasks == 1 && j.tokens_per_task * call->node->layer.k_padded <= QUANTIZED_HERE;
  return j;
}

OrtStatus *bitcc_multiply(bitcc_call *call) {
  job j = plan(call);
  OrtStatus *status = j.quantizes ? NULL : bitcc_quantize_all(call);
  if (status == NULL && call->pairs != NULL && !j.quantizes) {
    int32_t tasks = bitcc_divide_up(j.token_tasks * j.blocks, PAIRED_BLOCKS);
    status = bitcc_parallel(call, pair_task, &j, (size_t)tasks);
  }
  if (status != NULL)
    return status;
  return bitcc_parallel(call, multiply_task, &j, (size_t)j.tile_tasks * (size_t)j.token_tasks);
}
