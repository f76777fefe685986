/* Products of pairs (kernel.h): what is to be added to them, and the tokens that they are not for. */
#include <stdlib.h>
#include <string.h>

#include "call.h"

/* With fewer rows pairing the activations takes longer than it saves. */
enum { MIN_ROWS = 256 };
/* With fewer tokens repacking weights of `t5` is not worth it, the less so where they come from memory. */
enum { MIN_TOKENS = 2, MIN_TOKENS_T5 = 24 };
/* The first column of a vector that is one of a pair; all after it are, too. */
enum { FIRST_PAIRED = 8, LOW = BITCC_PAIR_LOW, HIGH = BITCC_PAIR_HIGH };
/* So many vectors of `t5` are as many of `t2`. */
enum { GROUP_T5 = 4, GROUP_T2 = 5, REPACKED_T5 = BITCC_REPACKED / GROUP_T2 * GROUP_T5 };
/* Vectors of `t5` whose activations are brought in the order of `t2` at a time: K is padded to some of these. */
enum { REORDERED = 16, REORDERED_COLUMNS = REORDERED * BITCC_T5_VECTOR_COLUMNS };

bool bitcc_wants_pairs(const bitcc_node *node, int64_t tokens) {
  int32_t least = node->layer.format == BITCC_T5 ? MIN_TOKENS_T5 : MIN_TOKENS;
  return node->kernels->gemm_pairs != NULL && node->constant && tokens >= least &&
         node->layer.rows >= MIN_ROWS;
}

bitcc_columns bitcc_take_columns(const bitcc_node *node, const uint8_t *w, int32_t tiles,
                                 int32_t first, uint8_t *panel) {
  const bitcc_layer *layer = &node->layer;
  int32_t all = layer->k_padded / BITCC_VECTOR_COLUMNS;
  if (layer->format == BITCC_T2)
    return (bitcc_columns){w, tiles, 0, all};
  int32_t vector = first / GROUP_T2 * GROUP_T5, count = bitcc_min(BITCC_REPACKED, all - first);
  int32_t vectors = bitcc_min(REPACKED_T5, layer->k_blocks - vector);
  node->kernels->repack_t5(w + vector * BITCC_VECTOR_BYTES, panel, layer->k_blocks, vectors, count,
                           tiles);
  return (bitcc_columns){panel, tiles, first, count};
}

/* All that `gemm_pairs` adds for a token of zeros, but for the product of its shifts, is made of codes alone; it
 * adds as much for every token. */
static bool find_start(const bitcc_node *node, int32_t *out) {
  enum { TOKENS = 2, TILES = BITCC_MAX_PANEL_TILES };
  const bitcc_layer *layer = &node->layer;
  int32_t product[TOKENS], clamped[TOKENS], all = layer->k_padded / BITCC_VECTOR_COLUMNS;
  size_t size = (size_t)TOKENS * (size_t)layer->k_padded;
  bool repacks = layer->format == BITCC_T5;
  uint8_t *panel = repacks ? malloc(BITCC_REPACKED_BYTES) : NULL, *pairs = calloc(2, size);
  bool found = (panel != NULL || !repacks) && pairs != NULL;
  if (found) /* from the zeros behind */
    node->kernels->pair((int8_t *)pairs + size, pairs, product, clamped, layer->k_padded, all,
                        TOKENS);
  for (int32_t tile = 0, tiles; found && tile < layer->tiles; tile += tiles) {
    int32_t acc[TOKENS * TILES * BITCC_TILE_ROWS] = {0};
    tiles = bitcc_min(TILES, layer->tiles - tile);
    const uint8_t *w = bitcc_tile(layer, node->weights.w, tile);
    bitcc_columns some = {0};
    for (int32_t first = 0; first < all; first += some.count) {
      some = bitcc_take_columns(node, w, tiles, first, panel);
      node->kernels->gemm_pairs(pairs + first * TOKENS * BITCC_VECTOR_COLUMNS, some.w, acc,
                                some.count, 0, tiles, TOKENS);
    }
    for (int32_t i = 0; i < tiles * BITCC_TILE_ROWS; i++)
      out[tile * BITCC_TILE_ROWS + i] = product[0] - acc[i];
  }
  free(pairs);
  free(panel);
  return found;
}

/* Without memory for it a call could go on, but would be slow without saying so. */
OrtStatus *bitcc_find_pairs_start(bitcc_node *node, const int32_t **out) {
  size_t size = (size_t)node->layer.rows * sizeof **out;
  int32_t *known = atomic_load(&node->pairs_start);
  *out = known;
  if (known != NULL)
    return NULL;
  int32_t *found = malloc(size);
  if (found == NULL || !find_start(node, found)) {
    free(found);
    return bitcc_node_error(node, "out of memory for %zu bytes of sums of weights", size);
  }
  *out = found;
  if (!atomic_compare_exchange_strong(&node->pairs_start, &known, found)) {
    free(found); /* another call was first */
    *out = known;
  }
  return NULL;
}

/* Written to be vectorized. */
static bool is_any_beyond(const int8_t *q) {
  int32_t beyond = 0;
  for (int32_t i = 0; i < BITCC_VECTOR_COLUMNS - FIRST_PAIRED; i++)
    beyond |= (q[i] < LOW) | (q[i] > HIGH);
  return beyond != 0;
}

/* Of `columns` activations, which are those from `first` on. */
static void find_excesses(const int8_t *q, int32_t first, int32_t columns, bitcc_excesses *out) {
  for (int32_t k = FIRST_PAIRED; k < columns; k += BITCC_VECTOR_COLUMNS) {
    if (!is_any_beyond(q + k))
      continue;
    for (int32_t i = k; i < k + BITCC_VECTOR_COLUMNS - FIRST_PAIRED; i++) {
      int32_t by = q[i] - (q[i] < LOW ? LOW : q[i] > HIGH ? HIGH : q[i]);
      if (by != 0 && out->count < BITCC_MAX_EXCESSES) {
        out->column[out->count] = first + i;
        out->by[out->count] = by;
      }
      out->count += by != 0;
    }
  }
}

/* Activations of vectors [begin, begin + REORDERED) of `t5`, or the last ones, to the columns of repack_t5. */
static int32_t reorder(const bitcc_layer *layer, const int8_t *q, int32_t begin, int8_t *out) {
  enum { LAST = BITCC_T5_VECTOR_COLUMNS - BITCC_VECTOR_COLUMNS };
  int32_t left = bitcc_min(REORDERED, layer->k_blocks - begin);
  int32_t first = begin * BITCC_T5_VECTOR_COLUMNS;
  int32_t columns = bitcc_min(REORDERED_COLUMNS, layer->k_padded - first);
  memset(out, 0, (size_t)columns);
  q += first;
  for (int32_t i = 0; i < left; i++, q += BITCC_T5_VECTOR_COLUMNS) {
    int32_t number = i % GROUP_T5, in_group = bitcc_min(GROUP_T5, left - (i - number));
    int8_t *group = out + i / GROUP_T5 * GROUP_T2 * BITCC_VECTOR_COLUMNS;
    memcpy(group + number * BITCC_VECTOR_COLUMNS, q, BITCC_VECTOR_COLUMNS);
    memcpy(group + in_group * BITCC_VECTOR_COLUMNS + number * LAST, q + BITCC_VECTOR_COLUMNS, LAST);
  }
  return columns;
}

/* Columns from `first` on, which are `columns` of each token and `stride` apart in q. */
static void pair_columns(const bitcc_call *call, int32_t token, int32_t tokens, const int8_t *q,
                         int32_t stride, int32_t first, int32_t columns) {
  int32_t product[BITCC_MAX_PAIR_TOKENS], clamped[BITCC_MAX_PAIR_TOKENS];
  size_t begin = (size_t)token * (size_t)call->node->layer.k_padded;
  call->node->kernels->pair(q, call->pairs + begin + (size_t)first * (size_t)tokens, product,
                            clamped, stride, columns / BITCC_VECTOR_COLUMNS, tokens);
  for (int32_t i = 0; i < tokens; i++) {
    call->excesses[token + i].product += product[i];
    if (clamped[i] != 0)
      find_excesses(q + (size_t)i * (size_t)stride, first, columns, &call->excesses[token + i]);
  }
}

void bitcc_pair(const bitcc_call *call, int32_t token, int32_t tokens) {
  int8_t some[BITCC_MAX_PAIR_TOKENS * REORDERED_COLUMNS];
  const bitcc_layer *layer = &call->node->layer;
  const int8_t *q = call->q + (size_t)token * (size_t)layer->k_padded;
  int32_t most = 0;
  for (int32_t i = 0; i < tokens; i++)
    call->excesses[token + i] = (bitcc_excesses){0};
  if (layer->format == BITCC_T2)
    pair_columns(call, token, tokens, q, layer->k_padded, 0, layer->k_padded);
  else
    for (int32_t begin = 0, columns = 0; begin < layer->k_blocks; begin += REORDERED) {
      for (int32_t i = 0; i < tokens; i++)
        columns = reorder(layer, q + (size_t)i * (size_t)layer->k_padded, begin,
                          some + i * REORDERED_COLUMNS);
      pair_columns(call, token, tokens, some, REORDERED_COLUMNS, begin * BITCC_T5_VECTOR_COLUMNS,
                   columns);
    }
  for (int32_t i = 0; i < tokens; i++)
    most = bitcc_max(most, call->excesses[token + i].count);
  call->excesses[token].too_many = most > BITCC_MAX_EXCESSES;
  for (int32_t i = 0; i < tokens && most <= BITCC_MAX_EXCESSES; i++)
    call->sums[token + i] += call->excesses[token + i].product;
}

void bitcc_add_pairs(const bitcc_call *call, int32_t token, int32_t tokens,
                     const bitcc_columns *some, int32_t *acc) {
  const bitcc_kernels *kernels = call->node->kernels;
  size_t first = (size_t)some->first * (size_t)tokens * BITCC_VECTOR_COLUMNS;
  const uint8_t *pairs = call->pairs + (size_t)token * (size_t)call->node->layer.k_padded + first;
  kernels->gemm_pairs(pairs, some->w, acc, some->count, 0, some->tiles, tokens);
  for (int32_t i = 0; i < tokens; i++, acc += some->tiles * BITCC_TILE_ROWS) {
    const bitcc_excesses *excesses = &call->excesses[token + i];
    for (int32_t j = 0; j < excesses->count; j++) {
      int32_t column = excesses->column[j] - some->first * BITCC_VECTOR_COLUMNS;
      if (column >= 0 && column < some->count * BITCC_VECTOR_COLUMNS)
        kernels->add_column(some->w, acc, column, excesses->by[j], some->count, some->tiles);
    }
  }
}
