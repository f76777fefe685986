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

/* What x is multiplied with or divided by, and in *inverse what takes the result back. */
static float scale_of(const bitcc_layer *layer, float absmax, float *inverse) {
  float larger = absmax > layer->act_floor ? absmax : layer->act_floor;
  float c = rounded(layer, larger + layer->act_eps);
  if (layer->act_scale == BITCC_STEP) {
    float step = rounded(layer, c / layer->qmax);
    *inverse = step;
    return step;
  }
  float scale = layer->act_scale == BITCC_RECIPROCAL_TIMES
                    ? rounded(layer, 1.0f / c) * layer->qmax
                    : layer->qmax / c;
  scale = rounded(layer, scale);
  *inverse = 1.0f / scale;
  return scale;
}

/* x times or by the scale, rounded to a half type. */
static void scale_in_half(float *out, const float *x, const bitcc_layer *layer, float scale,
                          int32_t count) {
  if (layer->act_scale == BITCC_STEP)
    for (int32_t i = 0; i < count; i++)
      out[i] = x[i] / scale;
  else
    for (int32_t i = 0; i < count; i++)
      out[i] = x[i] * scale;
  if (layer->act_type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      out[i] = bitcc_from_half(bitcc_to_half(out[i]));
  else
    for (int32_t i = 0; i < count; i++)
      out[i] = bitcc_from_bfloat16(bitcc_to_bfloat16(out[i]));
}

/* The codes of x times infinity, or x / 0. False if one of them would be NaN. */
static bool saturate(int8_t *q, const float *x, const bitcc_layer *layer, int32_t count,
                     int32_t *sum) {
  for (int32_t i = 0; i < count; i++) {
    if (x[i] == 0.0f)
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

/* Elements of a token that are read at a time. */
static int32_t chunk_of(const bitcc_call *call) {
  bool whole = !is_buffered(call) && call->node->layer.act_type == ORT_FLOAT;
  return whole ? call->node->layer.k : CHUNK;
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
                           float scale, int32_t count, int32_t padded, int32_t *sum) {
  const bitcc_layer *layer = &call->node->layer;
  bool divides = layer->act_scale == BITCC_STEP;
  *sum = 0;
  if (divides ? scale == 0.0f : isinf(scale)) {
    memset(q + count, 0, (size_t)(padded - count));
    return saturate(q, x, layer, count, sum);
  }
  bitcc_quantize_fn *quantize =
      divides ? call->node->kernels->quantize_divide : call->node->kernels->quantize;
  if (layer->act_type != ORT_FLOAT) {
    scale_in_half(buffer, x, layer, scale, count);
    x = buffer;
    scale = 1.0f;
  }
  quantize(x, q, sum, count, padded, scale, layer->act_min, layer->act_max);
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
  float scale = scale_of(layer, bitcc_float((uint32_t)absmax), inverse);
  bool usable = (uint32_t)absmax < 255u << 23 && isfinite(*inverse);
  bool loaded = is_buffered(call) && layer->k <= chunk && !layer->per_tensor; /* by absmax_bits */
  call->sums[token] = 0;
  for (int32_t k = 0, count; usable && k < layer->k; k += count) {
    int32_t sum, left = layer->k - k;
    count = bitcc_min(left, chunk);
    const float *x =
        loaded ? buffer : bitcc_load_normalized(call, token, k, count, norm, buffer);
    int32_t padded = left == count ? layer->k_padded - k : count;
    usable = quantize_chunk(call, q + k, x, buffer, scale, count, padded, &sum);
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
