/* One call of a node, and what the ops share in it. */
#ifndef BITCC_CALL_H
#define BITCC_CALL_H

#include "layer.h"

/* What clamping took away from the activations of a token, which is 1, 2 or -1 each. A few are normal: the largest
 * activation is 127 or -127. With more of them, products of pairs are not for its block of tokens. */
enum { BITCC_MAX_EXCESSES = 8 };
typedef struct {
  int32_t product; /* of its own pairs */
  int32_t count;
  bool too_many; /* of any token of the block that begins here */
  int32_t column[BITCC_MAX_EXCESSES], by[BITCC_MAX_EXCESSES];
} bitcc_excesses;

/* A call works on one band of tokens after another, so that its memory is bounded. */
struct bitcc_call {
  const bitcc_node *node;
  const OrtKernelContext *context;
  const bitcc_weights *weights;
  const char *x; /* of the band's first token, [tokens][k] of the node's type */
  char *y;       /* [tokens][n] */
  int32_t tokens;
  /* BitLinear, for each token: */
  int8_t *q;      /* [k_padded]; there is room for a multiple of gemm_unit tokens */
  int32_t *sums;  /* of q */
  float *inverse; /* of the quantization scale; NaN poisons all outputs of the token */
  int32_t absmax; /* of all tokens, as the kernel gives it, if they share a scale */
  /* With products of pairs, else NULL: activations as `gemm_pairs` reads them, in blocks of tokens one after the
   * other; then `sums` are what is to be taken away from such products, but for tokens without. */
  uint8_t *pairs;
  bitcc_excesses *excesses;   /* of each token */
  const int32_t *pairs_start; /* [rows]: where the accumulators of each token begin */
  /* TernaryLinear: [k_padded] for each token, zeros beyond k. */
  const float *floats;
  float *converted; /* memory for that, NULL where X itself is it */
};

static inline size_t bitcc_x_bytes(OrtElementType type) { return type == ORT_FLOAT ? 4 : 2; }

/* Sets `absmax` to that of the band's tokens if it is larger. */
OrtStatus *bitcc_find_absmax(bitcc_call *call);
/* Tokens of the band, in tasks or here; a token is quantized once. */
OrtStatus *bitcc_quantize_all(const bitcc_call *call);
void bitcc_quantize(const bitcc_call *call, int32_t token, int32_t tokens);
/* Quantizes the band's tokens and multiplies them. */
OrtStatus *bitcc_multiply(bitcc_call *call);

/* Whether products of pairs are faster than others; and what accumulators begin with then, [rows], found by the
 * first call that needs it. */
bool bitcc_wants_pairs(const bitcc_node *node, int64_t tokens);
OrtStatus *bitcc_find_pairs_start(bitcc_node *node, const int32_t **out);
/* A block of tokens for `gemm_pairs`, from `q`. */
void bitcc_pair(const bitcc_call *call, int32_t token, int32_t tokens);
/* Vectors of `t2` in the order that `pairs` has: [tiles][count][64], the first of them number `first`. */
typedef struct {
  const uint8_t *w;
  int32_t tiles, first, count;
} bitcc_columns;
/* Those of tiles that begin at w: all, or in layout `t5` at most so many from `first` on, repacked to `panel`. */
enum {
  BITCC_REPACKED = 240, /* whole steps of repack_t5 and gemm_pairs */
  BITCC_REPACKED_BYTES = BITCC_MAX_PANEL_TILES * BITCC_REPACKED * BITCC_VECTOR_BYTES,
};
bitcc_columns bitcc_take_columns(const bitcc_node *node, const uint8_t *w, int32_t tiles,
                                 int32_t first, uint8_t *panel);
/* Adds the products of a block of tokens with these columns to acc, [tokens][rows of the tiles]. */
void bitcc_add_pairs(const bitcc_call *call, int32_t token, int32_t tokens,
                     const bitcc_columns *columns, int32_t *acc);

/* y of rows [row, row + rows) of tokens [token, token + tokens) from acc [tokens][rows]. */
enum { BITCC_MAX_FINISH_ROWS = 1024 };
void bitcc_finish(const bitcc_call *call, int32_t token, int32_t tokens, int32_t row, int32_t rows,
                  const int32_t *acc);

/* Elements k .. k + count - 1 of a token in float32: in place, or converted into `buffer`. */
const float *bitcc_load_x(const bitcc_call *call, int32_t token, int32_t k, int32_t count,
                          float *restrict buffer);
/* What the norm multiplies a token with, 1 without a norm. `buffer` has room for `chunk` elements. */
float bitcc_norm_scale(const bitcc_call *call, int32_t token, float *buffer, int32_t chunk);
/* The same as bitcc_load_x with the norm applied, then always in `buffer`. */
const float *bitcc_load_normalized(const bitcc_call *call, int32_t token, int32_t k, int32_t count,
                                   float scale, float *buffer);
/* Where row `row` of a token's output is. */
void *bitcc_y(const bitcc_call *call, int32_t token, int32_t row);
/* float32 to the type of Y, which is another one. */
void bitcc_to_half_type(void *out, const float *restrict y, OrtElementType type, int32_t count);

/* Where a tile of packed weights is. */
static inline const uint8_t *bitcc_tile(const bitcc_layer *layer, const uint8_t *w, int32_t tile) {
  return w + (size_t)tile * (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
}

/* `step` for one band of `tokens` after another, each of at most `band`. */
OrtStatus *bitcc_each_band(bitcc_call *call, int64_t tokens, int32_t band,
                           OrtStatus *(*step)(bitcc_call *));
/* A band of tokens that need no memory of their own. */
enum { BITCC_MAX_BAND = 1 << 16 };

/* fn(argument, i) for i in [0, tasks) on onnxruntime's own threads. */
OrtStatus *bitcc_parallel(const bitcc_call *call, void (*fn)(void *, size_t), void *argument,
                          size_t tasks);
/* How many tasks the whole matrix times the band's tokens is worth: at least 1. */
int32_t bitcc_worth_tasks(const bitcc_call *call);
/* The layer's tiles in at most `tasks` runs of so many tiles, a multiple of `unit`. */
int32_t bitcc_tiles_per_task(const bitcc_call *call, int32_t tasks, int32_t unit);

static inline int32_t bitcc_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t bitcc_max(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t bitcc_divide_up(int32_t a, int32_t b) { return a / b + (a % b != 0); }
static inline int32_t bitcc_round_up(int32_t a, int32_t b) { return bitcc_divide_up(a, b) * b; }

#endif
