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

/* What x is multiplied with or divided by, and in *inverse what takes the result back. */
static float scale_of(const bitcc_layer *layer, float absmax, float *inverse) {
  float c = (absmax > layer->act_floor ? absmax : layer->act_floor) + layer->act_eps;
  if (layer->act_scale == BITCC_STEP) {
    float step = c / layer->qmax;
    *inverse = step;
    return step;
  }
  float reciprocal = 1.0f / c;
  float scale =
      layer->act_scale == BITCC_RECIPROCAL_TIMES ? reciprocal * layer->qmax : layer->qmax / c;
  *inverse = 1.0f / scale;
  return scale;
}

/* Elements of a token that are read at a time. */
static int32_t chunk_of(const bitcc_call *call) {
  return call->node->x_type == ORT_FLOAT ? call->node->layer.k : CHUNK;
}

static int32_t absmax_bits(const bitcc_call *call, int32_t token, float *buffer) {
  int32_t largest = 0, chunk = chunk_of(call);
  for (int32_t k = 0, count; k < call->node->layer.k; k += count) {
    int32_t bits, left = call->node->layer.k - k;
    count = left < chunk ? left : chunk;
    call->node->kernels->absmax(bitcc_load_x(call, token, k, count, buffer), &bits, count);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

static void quantize_token(bitcc_call *call, int32_t token) {
  float buffer[CHUNK], inverse;
  const bitcc_layer *layer = &call->node->layer;
  const bitcc_kernels *kernels = call->node->kernels;
  int32_t chunk = chunk_of(call);
  int8_t *q = call->q + (size_t)token * (size_t)layer->k_padded;
  uint32_t bits = (uint32_t)(layer->per_tensor ? call->absmax : absmax_bits(call, token, buffer));
  float scale = scale_of(layer, bitcc_float(bits), &inverse);
  call->sums[token] = 0;
  call->inverse[token] = inverse;
  if (bits >= 255u << 23 || !isfinite(scale) || scale == 0.0f || !isfinite(inverse)) {
    call->inverse[token] = NAN;
    memset(q, 0, (size_t)layer->k_padded);
    return;
  }
  bitcc_quantize_fn *quantize =
      layer->act_scale == BITCC_STEP ? kernels->quantize_divide : kernels->quantize;
  /* by absmax_bits */
  bool loaded = call->node->x_type != ORT_FLOAT && layer->k <= chunk && !layer->per_tensor;
  for (int32_t k = 0, count; k < layer->k; k += count) {
    int32_t sum, left = layer->k - k;
    count = left < chunk ? left : chunk;
    const float *x = loaded ? buffer : bitcc_load_x(call, token, k, count, buffer);
    quantize(x, q + k, &sum, count, left == count ? layer->k_padded - k : count, scale,
             layer->act_min, layer->act_max);
    call->sums[token] += sum;
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
    int32_t bits = absmax_bits(j->call, token, buffer);
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
