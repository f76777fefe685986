/* Known answers of the kernels that read packed weights. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "library.h"
#include "self_test.h"

enum {
  K_PADDED = 128,
  K_BLOCKS = K_PADDED / 16,
  TILES = 5, /* odd, and tested from tile 1 on: no multiple of anything */
  FIRST = 1,
  STRIDE = K_BLOCKS * BITCC_VECTOR_BYTES,
  ROWS = BITCC_TILE_ROWS,
  T5_BLOCKS = 5,
  T5_COLUMNS = T5_BLOCKS * BITCC_T5_VECTOR_COLUMNS,
  T5_BYTES = TILES * T5_BLOCKS * BITCC_VECTOR_BYTES,
};

typedef struct {
  uint8_t w[TILES * STRIDE];
  int8_t rows[TILES * ROWS][K_PADDED]; /* w, unpacked by the definition of the layout */
  int8_t q[BITCC_MAX_TOKENS * K_PADDED];
  int32_t sums[BITCC_MAX_TOKENS];
} pattern;

static void fill(pattern *p, int32_t tokens) {
  uint32_t state = 1;
  for (size_t i = 0; i < sizeof p->w; i++)
    p->w[i] = (uint8_t)next(&state);
  for (int32_t row = 0; row < TILES * ROWS; row++)
    for (int32_t k = 0; k < K_PADDED; k++) {
      int32_t vector = row / ROWS * K_BLOCKS + k / 16;
      int32_t byte = p->w[vector * BITCC_VECTOR_BYTES + 4 * (row % ROWS) + k % 4];
      p->rows[row][k] = (int8_t)((byte >> (2 * (k % 16 / 4)) & 3) - 1);
    }
  for (int32_t t = 0; t < tokens; t++) {
    p->sums[t] = 0;
    for (int32_t k = 0; k < K_PADDED; k++) {
      /* the first token has the extreme */
      int8_t q = (int8_t)(t == 0 ? -128 : (int)(next(&state) & 255) - 128);
      p->q[t * K_PADDED + k] = q;
      p->sums[t] += q;
    }
  }
}

static int32_t dot(const int8_t *row, const int8_t *q) {
  int32_t total = 0;
  for (int32_t k = 0; k < K_PADDED; k++)
    total += row[k] * q[k];
  return total;
}

/* Minus the sum of each token's activations: what begins so becomes sums over weights. */
static void start(const pattern *p, int32_t *acc, int32_t tokens, int32_t rows) {
  for (int32_t i = 0; i < tokens * rows; i++)
    acc[i] = -p->sums[i / rows];
}

/* Of the tiles from `tile` on. */
static bool are_products(const pattern *p, const int32_t *acc, int32_t tile, int32_t tokens) {
  int32_t rows = (TILES - tile) * ROWS;
  for (int32_t i = 0; i < tokens * rows; i++)
    if (acc[i] != dot(p->rows[tile * ROWS + i % rows], p->q + i / rows * K_PADDED))
      return false;
  return true;
}

static bool gemv_is_right(const bitcc_kernels *kernels, const pattern *p) {
  int32_t acc[TILES * ROWS];
  start(p, acc, 1, TILES * ROWS);
  kernels->gemv(p->q, p->w, acc, K_BLOCKS, FIRST, TILES);
  return are_products(p, acc, FIRST, 1);
}

static bool gemm_few_is_right(const bitcc_kernels *kernels, const pattern *p) {
  int32_t acc[BITCC_MAX_TOKENS * TILES * ROWS];
  for (int32_t tokens = 2; tokens <= kernels->few_tokens; tokens++) {
    start(p, acc, tokens, (TILES - FIRST) * ROWS);
    kernels->gemm_few(p->q, p->w, acc, K_BLOCKS, FIRST, TILES, tokens);
    if (!are_products(p, acc, FIRST, tokens))
      return false;
  }
  return true;
}

/* Of half of the columns. */
static bool unpack_is_right(const bitcc_kernels *kernels, const pattern *p) {
  enum { COUNT = K_BLOCKS / 2 };
  uint8_t panel[TILES * ROWS * COUNT * 16];
  kernels->unpack(p->w, panel, K_BLOCKS, COUNT, TILES);
  for (int32_t i = 0; i < (int32_t)sizeof panel; i++) {
    int32_t four = i / (4 * ROWS), row = four / (4 * COUNT) * ROWS + i / 4 % ROWS;
    if (panel[i] != p->rows[row][four % (4 * COUNT) * 4 + i % 4] + 1)
      return false;
  }
  return true;
}

static bool gemm_is_right(const bitcc_kernels *kernels, const pattern *p) {
  uint8_t panel[4 * sizeof p->w], state[BITCC_STATE_BYTES];
  int32_t acc[BITCC_MAX_TOKENS * TILES * ROWS];
  bool right = true;
  kernels->gemm_begin(state);
  for (int32_t tokens = 1; right && tokens <= kernels->gemm_tokens; tokens++) {
    start(p, acc, tokens, TILES * ROWS);
    for (int32_t vector = 0; vector < K_BLOCKS; vector += 4) {
      kernels->unpack(p->w + vector * BITCC_VECTOR_BYTES, panel, K_BLOCKS, 4, TILES);
      kernels->gemm(p->q + vector * BITCC_VECTOR_COLUMNS, panel, acc, K_PADDED, 4, TILES, tokens);
    }
    right = are_products(p, acc, 0, tokens);
  }
  kernels->gemm_end(state);
  return right;
}

/* Whole numbers, and scales that are powers of two: sums are exact in any order. Groups of three
 * vectors of the eight, so that the last one is shorter. */
static bool gemv_float_is_right(const bitcc_kernels *kernels, const pattern *p) {
  enum { GROUP = 3, GROUPS = (K_BLOCKS + GROUP - 1) / GROUP, STEP = TILES * ROWS + 1 };
  float x[K_PADDED], scale[GROUPS * STEP], acc[TILES * ROWS];
  uint32_t state = 4;
  for (int32_t k = 0; k < K_PADDED; k++)
    x[k] = (float)(int32_t)(next(&state) & 255) - 128.0f;
  for (int32_t i = 0; i < GROUPS * STEP; i++)
    scale[i] = (float)(1 << i % 5) / 4.0f;
  kernels->gemv_float(x, p->w, scale, acc, K_BLOCKS, GROUP, STEP, FIRST, TILES);
  for (int32_t row = FIRST * ROWS; row < TILES * ROWS; row++) {
    float total = 0.0f;
    for (int32_t k = 0; k < K_PADDED; k++)
      total += scale[k / (16 * GROUP) * STEP + row] * x[k] * (float)p->rows[row][k];
    if (acc[row - FIRST * ROWS] != total)
      return false;
  }
  return true;
}

/* Of column k, as `pair` leaves it. */
static int32_t clamped_to(int8_t q, int32_t k) {
  int32_t low = k % 16 < 8 ? -128 : BITCC_PAIR_LOW, high = k % 16 < 8 ? 127 : BITCC_PAIR_HIGH;
  return q < low ? low : q > high ? high : q;
}

/* Some of the columns, and tokens that are further apart. */
static bool pair_is_right(const bitcc_kernels *kernels, const pattern *p, int32_t tokens,
                          int32_t k_blocks) {
  static const int32_t shifts[] = {0, 0, 127, -1};
  uint8_t pairs[BITCC_MAX_PAIR_TOKENS * K_PADDED];
  int32_t product[BITCC_MAX_PAIR_TOKENS], clamped[BITCC_MAX_PAIR_TOKENS];
  kernels->pair(p->q, pairs, product, clamped, K_PADDED, k_blocks, tokens);
  for (int32_t t = 0; t < tokens; t++) {
    bool is_clamped = false;
    int32_t sum = 0;
    for (int32_t k = 0; k < 16 * k_blocks; k++) {
      const uint8_t *at = pairs + (k / 16 * tokens + t) * 16 + k % 16;
      int8_t q = p->q[t * K_PADDED + k];
      if (*at != (uint8_t)(clamped_to(q, k) + shifts[k % 16 / 4]))
        return false;
      is_clamped |= clamped_to(q, k) != q;
      sum += k % 16 / 4 == 2 ? at[0] * (int8_t)at[4] : 0;
    }
    if (product[t] != sum || (clamped[t] != 0) != is_clamped)
      return false;
  }
  return true;
}

/* What `gemm_pairs` adds for one row and the activations of one token. */
static int32_t dot_of_pairs(const int8_t *row, const int8_t *q) {
  int32_t total = 0;
  for (int32_t k = 0; k < K_PADDED; k++) {
    if (k % 16 < 8)
      total += q[k] * (row[k] + 1);
    else if (k % 16 < 12)
      total += (clamped_to(q[k], k) + 127 + row[k + 4] + 1) *
               (clamped_to(q[k + 4], k + 4) - 1 + row[k] + 1);
  }
  return total;
}

static bool gemm_pairs_is_right(const bitcc_kernels *kernels, const pattern *p) {
  enum { COUNT = (TILES - FIRST) * ROWS };
  uint8_t pairs[BITCC_MAX_PAIR_TOKENS * K_PADDED];
  int32_t product[BITCC_MAX_PAIR_TOKENS], clamped[BITCC_MAX_PAIR_TOKENS];
  int32_t acc[BITCC_MAX_PAIR_TOKENS * COUNT], expected[BITCC_MAX_PAIR_TOKENS * COUNT];
  for (int32_t i = 0; i < kernels->pair_tokens * COUNT; i++)
    expected[i] = dot_of_pairs(p->rows[FIRST * ROWS + i % COUNT], p->q + i / COUNT * K_PADDED);
  for (int32_t tokens = 2; tokens <= kernels->pair_tokens; tokens++) {
    kernels->pair(p->q, pairs, product, clamped, K_PADDED, K_BLOCKS, tokens);
    memset(acc, 0, sizeof acc);
    kernels->gemm_pairs(pairs, p->w, acc, K_BLOCKS, FIRST, TILES, tokens);
    for (int32_t i = 0; i < tokens * COUNT; i++)
      if (acc[i] != expected[i])
        return false;
  }
  return true;
}

static bool add_column_is_right(const bitcc_kernels *kernels, const pattern *p) {
  int32_t acc[TILES * ROWS] = {0};
  for (int32_t k = 0; k < K_PADDED; k++)
    kernels->add_column(p->w, acc, k, k + 1, K_BLOCKS, TILES);
  for (int32_t row = 0; row < TILES * ROWS; row++) {
    int32_t total = 0;
    for (int32_t k = 0; k < K_PADDED; k++)
      total += (k + 1) * (p->rows[row][k] + 1);
    if (acc[row] != total)
      return false;
  }
  return true;
}

static const char *wrong_with_pairs(const bitcc_kernels *kernels, const pattern *p) {
  for (int32_t tokens = 1; tokens <= kernels->pair_tokens; tokens++)
    if (!pair_is_right(kernels, p, tokens, tokens % 2 == 0 ? K_BLOCKS : K_BLOCKS / 2))
      return "pair";
  if (!gemm_pairs_is_right(kernels, p))
    return "gemm_pairs";
  return add_column_is_right(kernels, p) ? NULL : "add_column";
}

/* Every byte in turn, and codes by the definition of the layout. */
static void fill_t5(pattern *p) {
  for (int32_t i = 0; i < T5_BYTES; i++) {
    int32_t byte = 7 * i % 256, given = byte < 243 ? byte : 104; /* of five codes 1 */
    int32_t v = given < 192 ? given % 64 : 64 + (given - 192) / 3;
    int32_t last = given < 192 ? given / 64 : given % 3;
    int32_t codes[] = {v / 27, v / 9 % 3, v / 3 % 3, v % 3, last};
    int32_t vector = i / BITCC_VECTOR_BYTES, n = i % BITCC_VECTOR_BYTES / 4;
    int8_t *row = p->rows[vector / T5_BLOCKS * ROWS + n];
    p->w[i] = (uint8_t)byte;
    for (int32_t j = 0; j < 5; j++)
      row[vector % T5_BLOCKS * BITCC_T5_VECTOR_COLUMNS + 4 * j + i % 4] = (int8_t)(codes[j] - 1);
  }
  for (int32_t row = 0; row < TILES * ROWS; row++)
    memset(p->rows[row] + T5_COLUMNS, 0, K_PADDED - T5_COLUMNS);
}

/* Columns that are not there add no activations. */
static void start_t5(const pattern *p, int32_t *acc, int32_t tokens, int32_t rows) {
  start(p, acc, tokens, rows);
  for (int32_t i = 0; i < tokens * rows; i++)
    for (int32_t k = T5_COLUMNS; k < K_PADDED; k++)
      acc[i] += p->q[i / rows * K_PADDED + k];
}

static bool gemv_t5_is_right(const bitcc_kernels *kernels, const pattern *p) {
  int32_t acc[TILES * ROWS];
  start_t5(p, acc, 1, (TILES - FIRST) * ROWS);
  kernels->gemv_t5(p->q, p->w, acc, T5_BLOCKS, FIRST, TILES);
  return are_products(p, acc, FIRST, 1);
}

static bool gemm_few_t5_is_right(const bitcc_kernels *kernels, const pattern *p) {
  int32_t acc[BITCC_MAX_TOKENS * TILES * ROWS];
  for (int32_t tokens = 2; tokens <= kernels->few_tokens; tokens++) {
    start_t5(p, acc, tokens, (TILES - FIRST) * ROWS);
    kernels->gemm_few_t5(p->q, p->w, acc, K_PADDED, T5_BLOCKS, FIRST, TILES, tokens);
    if (!are_products(p, acc, FIRST, tokens))
      return false;
  }
  return true;
}

/* All vectors but the last one. */
static bool unpack_t5_is_right(const bitcc_kernels *kernels, const pattern *p) {
  enum { GROUPS = 5 * (T5_BLOCKS - 1), TILE = (GROUPS + 1) * BITCC_VECTOR_BYTES };
  uint8_t panel[TILES * TILE];
  kernels->unpack_t5(p->w, panel, T5_BLOCKS, T5_BLOCKS - 1, TILE, TILES);
  for (int32_t i = 0; i < TILES * TILE; i++) {
    int32_t group = i % TILE / BITCC_VECTOR_BYTES, n = i % BITCC_VECTOR_BYTES / 4;
    if (group < GROUPS && panel[i] != p->rows[i / TILE * ROWS + n][4 * group + i % 4] + 1)
      return false;
  }
  return true;
}

/* The first vectors of each tile, with more room than they need. */
static bool repack_t5_is_right(const bitcc_kernels *kernels, const pattern *p, int32_t count) {
  enum { BLOCKS = 8, OUT = BLOCKS * BITCC_VECTOR_BYTES, GROUP = 4 * BITCC_T5_VECTOR_COLUMNS };
  uint8_t out[TILES * OUT];
  memset(out, 0xff, sizeof out);
  kernels->repack_t5(p->w, out, T5_BLOCKS, count, BLOCKS, TILES);
  for (int32_t row = 0; row < TILES * ROWS; row++)
    for (int32_t k = 0; k < BLOCKS * 16; k++) {
      const uint8_t *vector = out + row / ROWS * OUT + k / 16 * BITCC_VECTOR_BYTES;
      int32_t code = vector[4 * (row % ROWS) + k % 4] >> (2 * (k % 16 / 4)) & 3;
      int32_t left = count - k / GROUP * 4, in_group = left > 4 ? 4 : left > 0 ? left : 0;
      int32_t in = k % GROUP, lasts = in - 16 * in_group; /* columns of the group */
      int32_t column = lasts < 0 ? in / 16 * 20 + in % 16 : lasts / 4 * 20 + 16 + lasts % 4;
      int32_t expected = lasts < 4 * in_group ? p->rows[row][k / GROUP * GROUP + column] + 1 : 0;
      if (code != expected)
        return false;
    }
  return true;
}

const char *bitcc_self_test_products(const bitcc_kernels *kernels) {
  pattern p;
  int32_t few = kernels->few_tokens, many = kernels->gemm_tokens;
  fill(&p, few > many ? few : many);
  if (!gemv_is_right(kernels, &p))
    return "gemv";
  if (!gemm_few_is_right(kernels, &p))
    return "gemm_few";
  if (!unpack_is_right(kernels, &p))
    return "unpack";
  if (!gemm_is_right(kernels, &p))
    return "gemm";
  if (!gemv_float_is_right(kernels, &p))
    return "gemv_float";
  const char *wrong = kernels->pair == NULL ? NULL : wrong_with_pairs(kernels, &p);
  if (wrong != NULL || kernels->gemv_t5 == NULL)
    return wrong;
  fill_t5(&p);
  if (!gemv_t5_is_right(kernels, &p))
    return "gemv_t5";
  if (!gemm_few_t5_is_right(kernels, &p))
    return "gemm_few_t5";
  for (int32_t count = 1; count <= T5_BLOCKS && kernels->repack_t5 != NULL; count++)
    if (!repack_t5_is_right(kernels, &p, count))
      return "repack_t5";
  return unpack_t5_is_right(kernels, &p) ? NULL : "unpack_t5";
}
