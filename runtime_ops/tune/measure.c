/* Times kernels for `bitcc tune`: a library whose table of variants are candidates.
 *
 * Its two functions have the calling convention of TVM's modules, so that they can be called here
 * and through an RPC server alike; nothing of TVM is linked.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "library.h"

/* TVMFFIAny of tvm/ffi/c_api.h: the part of it that numbers need. */
typedef struct {
  int32_t type;
  uint32_t padding;
  union {
    int64_t whole;
    double real;
  } value;
} any;
enum { INT = 1, FLOAT = 3 }; /* of `type` */

BITCC_EXPORT int __tvm_ffi_check(void *self, const any *arguments, int32_t count, any *result);
BITCC_EXPORT int __tvm_ffi_measure(void *self, const any *arguments, int32_t count, any *result);

/* A matrix of 1024 x 2560, which caches hold, and so many of them that no cache does. */
enum { TILES = 64, K_BLOCKS = 160, MATRICES = 192 };
/* The same matrix in layout `t5`: shorter, in the same memory. */
enum { T5_BLOCKS = K_BLOCKS * BITCC_VECTOR_COLUMNS / BITCC_T5_VECTOR_COLUMNS };
static const size_t MATRIX = (size_t)TILES * K_BLOCKS * BITCC_VECTOR_BYTES;
/* How the shim calls the kernels: multiply.c. */
enum { GROUP = BITCC_MAX_PANEL_TILES, MANY = 128 };
enum { GEMV, GEMM_FEW, GEMM, GEMV_FLOAT, GEMV_T5, GEMM_PAIRS }; /* the order that the search counts in */

typedef struct {
  uint8_t *w;
  int8_t *q;
  float *x, *scale, *y;
  int32_t *acc;
  size_t next; /* matrix that is not in a cache */
} operands;

/* Once for all calls, which come one after the other. NULL if there is no memory. */
static operands *get_operands(void) {
  static operands o;
  if (o.w != NULL)
    return &o;
  size_t columns = (size_t)K_BLOCKS * BITCC_VECTOR_COLUMNS, rows = (size_t)TILES * BITCC_TILE_ROWS;
  o.q = malloc(MANY * columns);
  o.x = calloc(columns, sizeof *o.x);
  o.scale = calloc(rows, sizeof *o.scale);
  o.y = calloc(rows, sizeof *o.y);
  o.acc = calloc(MANY * rows, sizeof *o.acc);
  o.w = malloc(MATRICES * MATRIX);
  if (o.q == NULL || o.x == NULL || o.scale == NULL || o.y == NULL || o.acc == NULL || o.w == NULL)
    return NULL;
  memset(o.q, 3, MANY * columns);
  memset(o.w, 0x61, MATRICES * MATRIX); /* codes 1, 0, 2 and 1: pages of its own */
  return &o;
}

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* Many tokens with some tiles, unpacked panel by panel. */
static void multiply_unpacked(const bitcc_kernels *kernels, const uint8_t *w, int32_t tiles,
                              operands *o) {
  alignas(64) uint8_t panel[GROUP * BITCC_MAX_PANEL_VECTORS * 4 * BITCC_VECTOR_BYTES];
  uint8_t state[BITCC_STATE_BYTES];
  int32_t columns = K_BLOCKS * BITCC_VECTOR_COLUMNS;
  kernels->gemm_begin(state);
  for (int32_t vector = 0, count; vector < K_BLOCKS; vector += count) {
    count = smaller(kernels->panel_vectors, K_BLOCKS - vector);
    kernels->unpack(w + vector * BITCC_VECTOR_BYTES, panel, K_BLOCKS, count, tiles);
    for (int32_t done = 0, tokens; done < MANY; done += tokens) {
      tokens = smaller(kernels->gemm_tokens, MANY - done);
      kernels->gemm(o->q + done * columns + vector * BITCC_VECTOR_COLUMNS, panel,
                    o->acc + done * tiles * BITCC_TILE_ROWS, columns, count, tiles, tokens);
    }
  }
  kernels->gemm_end(state);
}

static void run(const bitcc_kernels *kernels, int64_t family, int32_t tokens, const uint8_t *w,
                operands *o) {
  const size_t tile = (size_t)K_BLOCKS * BITCC_VECTOR_BYTES;
  int32_t step = family == GEMM ? kernels->panel_tiles : GROUP;
  if (family == GEMV)
    kernels->gemv(o->q, w, o->acc, K_BLOCKS, 0, TILES);
  else if (family == GEMV_T5)
    kernels->gemv_t5(o->q, w, o->acc, T5_BLOCKS, 0, TILES);
  else if (family == GEMV_FLOAT)
    kernels->gemv_float(o->x, w, o->scale, o->y, K_BLOCKS, K_BLOCKS, 0, 0, TILES);
  else
    for (int32_t first = 0, tiles; first < TILES; first += tiles) {
      tiles = smaller(step, TILES - first);
      if (family == GEMM)
        multiply_unpacked(kernels, w + (size_t)first * tile, tiles, o);
      else if (family == GEMM_PAIRS)
        kernels->gemm_pairs((const uint8_t *)o->q, w + (size_t)first * tile, o->acc, K_BLOCKS, 0,
                            tiles, tokens);
      else
        kernels->gemm_few(o->q, w + (size_t)first * tile, o->acc, K_BLOCKS, 0, tiles, tokens);
    }
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static const bitcc_kernels *variant(int64_t index) {
  for (int64_t i = 0; bitcc_variants[i].isa != NULL; i++)
    if (i == index)
      return &bitcc_variants[i];
  return NULL;
}

/* check(variant): 0 if it computes what it has to, 1 if not, 2 if this CPU cannot run it. */
int __tvm_ffi_check(void *self, const any *arguments, int32_t count, any *result) {
  (void)self;
  const bitcc_kernels *kernels = count == 1 ? variant(arguments[0].value.whole) : NULL;
  *result = (any){.type = INT, .value.whole = 1};
  if (kernels != NULL && (kernels->cpu & ~bitcc_cpu_features()) != 0)
    result->value.whole = 2;
  else if (kernels != NULL)
    result->value.whole = bitcc_self_test(kernels) != NULL;
  return 0;
}

/* measure(variant, family, tokens, whether weights come from memory, seconds): the seconds of one
 * run, of as many as take that long; negative if it cannot be done. */
int __tvm_ffi_measure(void *self, const any *arguments, int32_t count, any *result) {
  (void)self;
  operands *o = get_operands();
  const bitcc_kernels *kernels = count == 5 ? variant(arguments[0].value.whole) : NULL;
  *result = (any){.type = FLOAT, .value.real = -1.0};
  if (o == NULL || kernels == NULL)
    return 0;
  if (arguments[1].value.whole == GEMV_T5 && kernels->gemv_t5 == NULL)
    return 0;
  if (arguments[1].value.whole == GEMM_PAIRS && kernels->gemm_pairs == NULL)
    return 0;
  double start = now(), end = start + arguments[4].value.real, time;
  int64_t runs = 0;
  do {
    o->next = arguments[3].value.whole ? (o->next + 1) % MATRICES : 0;
    run(kernels, arguments[1].value.whole, (int32_t)arguments[2].value.whole,
        o->w + o->next * MATRIX, o);
    time = now();
    runs++;
  } while (time < end);
  result->value.real = (time - start) / (double)runs;
  return 0;
}
