/* Tokens to int8: an absolute maximum of each token or of all, a scale and the rounding. */
#include <math.h>

#include "call.h"
#include "half.h"
#include "scaling.h"

/* Elements of a float16 or bfloat16 token that are converted at a time: no memory is asked for. A
 * multiple of BITCC_K_ALIGNMENT. */
enum { CHUNK = 4096 };
/* Elements of the tokens that the kernels take together: they stay in L1 between two kernels. */
enum { BLOCK_ELEMENTS = 4096 };
/* Elements worth a task, ~10 us, and tokens whose `sums` share no cache line with other tasks. */
enum { TASK_ELEMENTS = 1 << 15, TASK_TOKENS = 16 };

typedef struct {
  const bitcc_call *call;
  int32_t tokens_per_task;
  atomic_int absmax; /* a maximum is the same in any order */
} job;

/* The codes of x times infinity, or x / 0. False if one of them would be NaN. */
static bool saturate(int8_t *q, const float *x, const bitcc_layer *layer, float factor,
                     int32_t count, int32_t *sum) {
  for (int32_t i = 0; i < count; i++) {
    if (x[i] == 0.0f || bitcc_rounded(layer, x[i] * factor) == 0.0f)
      return false;
    q[i] = (int8_t)(x[i] < 0.0f ? layer->act_min : layer->act_max);
    *sum += q[i];
  }
  return true;
}

/* Whether tokens are converted or normalized into a buffer before they are quantized. */
static bool is_buffered(const bitcc_call *call) {
  return call->node->x_type != ORT_FLOAT || call->node->layer.has_norm;
}

/* Whether the kernels do not scale as the layer does. */
static bool is_scaled_here(const bitcc_layer *layer) {
  return layer->act_type != ORT_FLOAT || layer->act_scale == BITCC_SCALE_PRODUCT ||
         layer->act_scale == BITCC_SCALE_NORMALIZED;
}

/* Whether the kernels take tokens where they are, and as many at a time as wanted. */
static bool is_direct(const bitcc_call *call) {
  return !is_buffered(call) && !is_scaled_here(&call->node->layer);
}

/* Tokens that are quantized at a time. */
static int32_t block_of(const bitcc_call *call) {
  int32_t tokens = BLOCK_ELEMENTS / call->node->layer.k + 1;
  return is_direct(call) ? bitcc_min(tokens, BITCC_BLOCK_TOKENS) : 1;
}

/* Elements of a token that are read at a time. */
static int32_t chunk_of(const bitcc_call *call) {
  return is_direct(call) ? call->node->layer.k : CHUNK;
}

/* Of each token of a block. */
static void absmax_bits(const bitcc_call *call, int32_t token, int32_t tokens, float norm,
                        float *buffer, int32_t *bits) {
  bitcc_absmax_fn *absmax = call->node->kernels->absmax;
  int32_t chunk = chunk_of(call), k = call->node->layer.k;
  absmax(bitcc_load_normalized(call, token, 0, bitcc_min(k, chunk), norm, buffer), bits,
         bitcc_min(k, chunk), tokens);
  for (int32_t done = chunk, count, more; done < k; done += count) {
    count = bitcc_min(k - done, chunk);
    absmax(bitcc_load_normalized(call, token, done, count, norm, buffer), &more, count, 1);
    bits[0] = more > bits[0] ? more : bits[0];
  }
}

static bitcc_quantize_fn *kernel_of(const bitcc_call *call) {
  const bitcc_kernels *kernels = call->node->kernels;
  const bitcc_layer *layer = &call->node->layer;
  bool divides = bitcc_divides(layer) && !is_scaled_here(layer);
  return divides ? kernels->quantize_divide : kernels->quantize;
}

/* Whether a token's outputs are not all NaN. No branches, here and below: this is asked of many tokens. */
static bool is_usable(int32_t absmax, float inverse) {
  return ((uint32_t)absmax < 255u << 23) & (fabsf(inverse) < INFINITY);
}

/* Whether a scale is beyond what the kernels take. */
static bool is_extreme(float factor, float divisor) {
  return (divisor == 0.0f) | (fabsf(factor) == INFINITY);
}

/* Codes and their sum of elements that are in float32; false if they make the token NaN. `buffer` may
 * be where they are. */
static bool quantize_chunk(const bitcc_call *call, int8_t *q, const float *x, float *buffer,
                           bitcc_scaling by, int32_t count, int32_t padded, int32_t *sum) {
  const bitcc_layer *layer = &call->node->layer;
  float scale = bitcc_divides(layer) ? by.divisor : by.factor;
  *sum = 0;
  if (is_extreme(by.factor, by.divisor)) {
    memset(q + count, 0, (size_t)(padded - count));
    return saturate(q, x, layer, by.factor, count, sum);
  }
  if (is_scaled_here(layer)) {
    bitcc_scale_all(buffer, x, layer, by, count);
    x = buffer;
    scale = 1.0f;
  }
  kernel_of(call)(x, q, sum, &scale, count, padded, layer->act_min, layer->act_max, 1);
  return true;
}

/* One token, whatever it is. `loaded`: all of it is in `buffer`. */
static void quantize_token(const bitcc_call *call, int32_t token, bitcc_scaling by, float norm,
                           float *buffer, bool usable, bool loaded) {
  const bitcc_layer *layer = &call->node->layer;
  int32_t chunk = chunk_of(call);
  int8_t *q = call->q + (size_t)token * (size_t)layer->k_padded;
  call->sums[token] = 0;
  for (int32_t k = 0, count; usable && k < layer->k; k += count) {
    int32_t sum, left = layer->k - k;
    count = bitcc_min(left, chunk);
    const float *x =
        loaded ? buffer : bitcc_load_normalized(call, token, k, count, norm, buffer);
    int32_t padded = left == count ? layer->k_padded - k : count;
    usable = quantize_chunk(call, q + k, x, buffer, by, count, padded, &sum);
    call->sums[token] += sum;
  }
  if (!usable) {
    call->inverse[token] = NAN;
    call->sums[token] = 0;
    memset(q, 0, (size_t)layer->k_padded);
  }
}

/* Mostly one call of each kernel for all of them. */
static void quantize_block(const bitcc_call *call, int32_t token, int32_t tokens) {
  float buffer[CHUNK], *inverse = call->inverse + token;
  int32_t bits[BITCC_BLOCK_TOKENS];
  bitcc_scalings by;
  const bitcc_layer *layer = &call->node->layer;
  float norm = bitcc_norm_scale(call, token, buffer, CHUNK);
  if (!layer->per_tensor)
    absmax_bits(call, token, tokens, norm, buffer, bits);
  else
    for (int32_t i = 0; i < tokens; i++)
      bits[i] = call->absmax;
  bitcc_find_scalings(&by, layer, bits, tokens);
  bool simple = is_direct(call);
  float after = bitcc_factor_after(layer);
  for (int32_t i = 0; i < tokens; i++) {
    inverse[i] = by.divisor[i] / (by.factor[i] * after);
    simple &= is_usable(bits[i], inverse[i]) & !is_extreme(by.factor[i], by.divisor[i]);
  }
  if (simple) {
    kernel_of(call)(bitcc_load_x(call, token, 0, layer->k, buffer),
                    call->q + (size_t)token * (size_t)layer->k_padded, call->sums + token,
                    bitcc_divides(layer) ? by.divisor : by.factor, layer->k,
                    layer->k_padded, layer->act_min, layer->act_max, tokens);
    return;
  }
  bool loaded = is_buffered(call) && layer->k <= CHUNK && !layer->per_tensor; /* by absmax_bits */
  for (int32_t i = 0; i < tokens; i++)
    quantize_token(call, token + i, (bitcc_scaling){by.factor[i], by.divisor[i]}, norm, buffer,
                   is_usable(bits[i], inverse[i]), loaded);
}

static int32_t end_of_task(const job *j, int32_t begin) {
  return begin + bitcc_min(j->call->tokens - begin, j->tokens_per_task);
}

void bitcc_quantize(const bitcc_call *call, int32_t token, int32_t tokens) {
  int32_t block = block_of(call), end = token + tokens;
  for (; token < end; token += block)
    quantize_block(call, token, bitcc_min(block, end - token));
}

static void quantize_task(void *argument, size_t index) {
  const job *j = argument;
  int32_t begin = (int32_t)index * j->tokens_per_task, end = end_of_task(j, begin);
  bitcc_quantize(j->call, begin, end - begin);
}

static void absmax_task(void *argument, size_t index) {
  job *j = argument;
  float buffer[CHUNK];
  int32_t bits[BITCC_BLOCK_TOKENS];
  int32_t begin = (int32_t)index * j->tokens_per_task, end = end_of_task(j, begin);
  int32_t block = block_of(j->call), largest = 0;
  for (int32_t token = begin; token < end; token += block) {
    int32_t tokens = bitcc_min(block, end - token);
    float norm = bitcc_norm_scale(j->call, token, buffer, CHUNK);
    absmax_bits(j->call, token, tokens, norm, buffer, bits);
    for (int32_t i = 0; i < tokens; i++)
      largest = bits[i] > largest ? bits[i] : largest;
  }
  int known = atomic_load(&j->absmax);
  while (largest > known && !atomic_compare_exchange_weak(&j->absmax, &known, largest))
    ;
}

static OrtStatus *each_task(job *j, void (*task)(void *, size_t)) {
  int32_t per_task = TASK_ELEMENTS / j->call->node->layer.k / TASK_TOKENS * TASK_TOKENS;
  j->tokens_per_task = per_task > TASK_TOKENS ? per_task : TASK_TOKENS;
  size_t tasks = (size_t)bitcc_divide_up(j->call->tokens, j->tokens_per_task);
  return bitcc_parallel(j->call, task, j, tasks);
}

OrtStatus *bitcc_find_absmax(bitcc_call *call) {
  job j = {.call = call};
  atomic_init(&j.absmax, call->absmax);
  OrtStatus *status = each_task(&j, absmax_task);
  call->absmax = atomic_load(&j.absmax);
  return status;
}

OrtStatus *bitcc_quantize_all(const bitcc_call *call) {
  job j = {.call = call};
  return each_task(&j, quantize_task);
}
