/* Tokens to int8: an absolute maximum of each token or of all, a scale and the rounding. The scale
 * is computed here, in float32 and in the order that the graph had, so that it is the same on every
 * ISA. */
#include <math.h>

#include "call.h"
#include "half.h"

/* Elements of a float16 or bfloat16 token that are converted at a time: no memory is asked for. A
 * multiple of BITCC_K_ALIGNMENT. */
enum { CHUNK = 4096 };
/* Elements worth a task, ~10 us, and tokens whose `sums` share no cache line with other tasks. */
enum { TASK_ELEMENTS = 1 << 15, TASK_TOKENS = 16 };
/* Beyond every bound of codes, in float16 too, and within what the kernels take. */
static const float LARGEST = 1 << 15;

typedef struct {
  bitcc_call *call;
  int32_t tokens_per_task;
  atomic_int absmax; /* a maximum is the same in any order */
} job;

static float rounded(const bitcc_layer *layer, float value) {
  if (layer->act_type == ORT_FLOAT16)
    return bitcc_from_half(bitcc_to_half(value));
  if (layer->act_type == ORT_BFLOAT16)
    return bitcc_from_bfloat16(bitcc_to_bfloat16(value));
  return value;
}

/* Codes are x * factor / divisor. */
typedef struct {
  float factor, divisor;
} scaling;

static scaling scaling_of(const bitcc_layer *layer, float absmax) {
  float larger = absmax > layer->act_floor ? absmax : layer->act_floor;
  float c = rounded(layer, larger + layer->act_eps);
  switch (layer->act_scale) {
  case BITCC_STEP:
    return (scaling){1.0f, rounded(layer, c / layer->qmax)};
  case BITCC_PRODUCT_FIRST:
    return (scaling){layer->qmax, c};
  case BITCC_QUOTIENT:
    return (scaling){rounded(layer, layer->qmax / c), 1.0f};
  default:
    return (scaling){rounded(layer, rounded(layer, 1.0f / c) * layer->qmax), 1.0f};
  }
}

static void round_all(float *x, const bitcc_layer *layer, int32_t count) {
  if (layer->act_type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      x[i] = bitcc_from_half(bitcc_to_half(x[i]));
  else if (layer->act_type == ORT_BFLOAT16)
    for (int32_t i = 0; i < count; i++)
      x[i] = bitcc_from_bfloat16(bitcc_to_bfloat16(x[i]));
}

/* x * factor / divisor as it is before it is rounded to an integer. */
static void scale_all(float *out, const float *x, const bitcc_layer *layer, scaling by,
                      int32_t count) {
  for (int32_t i = 0; i < count; i++)
    out[i] = x[i] * by.factor;
  round_all(out, layer, count);
  if (by.divisor == 1.0f)
    return;
  for (int32_t i = 0; i < count; i++) {
    float quotient = out[i] / by.divisor; /* infinite where the product is */
    out[i] = quotient > LARGEST ? LARGEST : quotient < -LARGEST ? -LARGEST : quotient;
  }
  round_all(out, layer, count);
}

/* The codes of x times infinity, or x / 0. False if one of them would be NaN. */
static bool saturate(int8_t *q, const float *x, const bitcc_layer *layer, float factor,
                     int32_t count, int32_t *sum) {
  for (int32_t i = 0; i < count; i++) {
    if (x[i] == 0.0f || rounded(layer, x[i] * factor) == 0.0f)
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
  return layer->act_type != ORT_FLOAT || layer->act_scale == BITCC_PRODUCT_FIRST;
}

/* Elements of a token that are read at a time. */
static int32_t chunk_of(const bitcc_call *call) {
  return is_buffered(call) || is_scaled_here(&call->node->layer) ? CHUNK : call->node->layer.k;
}

static int32_t absmax_bits(const bitcc_call *call, int32_t token, float norm, float *buffer) {
  int32_t largest = 0, chunk = chunk_of(call);
  for (int32_t k = 0, count; k < call->node->layer.k; k += count) {
    int32_t bits;
    count = bitcc_min(call->node->layer.k - k, chunk);
    const float *x = bitcc_load_normalized(call, token, k, count, norm, buffer);
    call->node->kernels->absmax(x, &bits, count);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/* Codes and their sum of elements that are in float32; false if they make the token NaN. `buffer` may
 * be where they are. */
static bool quantize_chunk(const bitcc_call *call, int8_t *q, const float *x, float *buffer,
                           scaling by, int32_t count, int32_t padded, int32_t *sum) {
  const bitcc_layer *layer = &call->node->layer;
  const bitcc_kernels *kernels = call->node->kernels;
  *sum = 0;
  if (by.divisor == 0.0f || isinf(by.factor)) {
    memset(q + count, 0, (size_t)(padded - count));
    return saturate(q, x, layer, by.factor, count, sum);
  }
  if (is_scaled_here(layer)) {
    scale_all(buffer, x, layer, by, count);
    kernels->quantize(buffer, q, sum, count, padded, 1.0f, layer->act_min, layer->act_max);
  } else if (layer->act_scale == BITCC_STEP) {
    kernels->quantize_divide(x, q, sum, count, padded, by.divisor, layer->act_min, layer->act_max);
  } else {
    kernels->quantize(x, q, sum, count, padded, by.factor, layer->act_min, layer->act_max);
  }
  return true;
}

static void quantize_token(bitcc_call *call, int32_t token) {
  float buffer[CHUNK];
  const bitcc_layer *layer = &call->node->layer;
  int32_t chunk = chunk_of(call), absmax = call->absmax;
  int8_t *q = call->q + (size_t)token * (size_t)layer->k_padded;
  float norm = bitcc_norm_scale(call, token, buffer, chunk);
  if (!layer->per_tensor)
    absmax = absmax_bits(call, token, norm, buffer);
  float *inverse = &call->inverse[token];
  scaling by = scaling_of(layer, bitcc_float((uint32_t)absmax));
  *inverse = by.divisor / by.factor;
  bool usable = (uint32_t)absmax < 255u << 23 && isfinite(*inverse);
  bool loaded = is_buffered(call) && layer->k <= chunk && !layer->per_tensor; /* by absmax_bits */
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
    *inverse = NAN;
    call->sums[token] = 0;
    memset(q, 0, (size_t)layer->k_padded);
  }
}

static int32_t end_of_task(const job *j, int32_t begin) {
  return begin + bitcc_min(j->call->tokens - begin, j->tokens_per_task);
}

static void quantize_task(void *argument, size_t index) {
  const job *j = argument;
  int32_t begin = (int32_t)index * j->tokens_per_task, end = end_of_task(j, begin);
  for (int32_t token = begin; token < end; token++)
    quantize_token(j->call, token);
}

static void absmax_task(void *argument, size_t index) {
  job *j = argument;
  float buffer[CHUNK];
  int32_t begin = (int32_t)index * j->tokens_per_task, end = end_of_task(j, begin);
  int known = atomic_load(&j->absmax);
  for (int32_t token = begin; token < end; token++) {
    float norm = bitcc_norm_scale(j->call, token, buffer, CHUNK);
    int32_t bits = absmax_bits(j->call, token, norm, buffer);
    while (bits > known && !atomic_compare_exchange_weak(&j->absmax, &known, bits))
      ;
  }
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

OrtStatus *bitcc_quantize_tokens(bitcc_call *call) {
  job j = {.call = call};
  return each_task(&j, quantize_task);
}
