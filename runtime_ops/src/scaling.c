#include "scaling.h"

#include "half.h"

/* Beyond every bound of codes, in float16 too, and within what the kernels take. */
static const float LARGEST = 1 << 15;

typedef enum { NONE, OVER_QMAX, TIMES_INVERSE_QMAX, PLUS_EPS, INVERT, TIMES_QMAX, QMAX_OVER } step;

/* The way from c to the scale. */
typedef struct {
  bool divides; /* x is divided by it, not multiplied with it */
  step steps[2];
} way;

static const way WAYS[BITCC_SCALE_FORMS] = {
    [BITCC_SCALE_RECIPROCAL] = {false, {INVERT, TIMES_QMAX}},
    [BITCC_SCALE_DIVIDE] = {false, {QMAX_OVER, NONE}},
    [BITCC_SCALE_QUOTIENT] = {true, {OVER_QMAX, NONE}},
    [BITCC_SCALE_PRODUCT] = {true, {NONE, NONE}},
    [BITCC_SCALE_STEP_PRODUCT] = {true, {TIMES_INVERSE_QMAX, NONE}},
    [BITCC_SCALE_NORMALIZED] = {true, {NONE, NONE}},
    [BITCC_SCALE_STEP_SUM] = {true, {OVER_QMAX, PLUS_EPS}},
    [BITCC_SCALE_STEP_RECIPROCAL] = {false, {OVER_QMAX, INVERT}},
};

bool bitcc_divides(const bitcc_layer *layer) { return WAYS[layer->act_scale].divides; }

float bitcc_factor_after(const bitcc_layer *layer) {
  return layer->act_scale == BITCC_SCALE_NORMALIZED ? layer->qmax : 1.0f;
}

float bitcc_rounded(const bitcc_layer *layer, float value) {
  if (layer->act_type == ORT_FLOAT16)
    return bitcc_from_half(bitcc_to_half(value));
  if (layer->act_type == ORT_BFLOAT16)
    return bitcc_from_bfloat16(bitcc_to_bfloat16(value));
  return value;
}

/* One loop for each type: compilers vectorise them. */
static void round_all(float *x, const bitcc_layer *layer, int32_t count) {
  if (layer->act_type == ORT_FLOAT16)
    for (int32_t i = 0; i < count; i++)
      x[i] = bitcc_from_half(bitcc_to_half(x[i]));
  else if (layer->act_type == ORT_BFLOAT16)
    for (int32_t i = 0; i < count; i++)
      x[i] = bitcc_from_bfloat16(bitcc_to_bfloat16(x[i]));
}

static void take(step step, float *scale, const bitcc_layer *layer, int32_t count) {
  float qmax = layer->qmax, eps = layer->act_eps, inverse = bitcc_rounded(layer, 1.0f / qmax);
  switch (step) {
  case NONE:
    return;
  case OVER_QMAX:
    for (int32_t i = 0; i < count; i++)
      scale[i] /= qmax;
    break;
  case TIMES_INVERSE_QMAX:
    for (int32_t i = 0; i < count; i++)
      scale[i] *= inverse;
    break;
  case PLUS_EPS:
    for (int32_t i = 0; i < count; i++)
      scale[i] += eps;
    break;
  case INVERT:
    for (int32_t i = 0; i < count; i++)
      scale[i] = 1.0f / scale[i];
    break;
  case TIMES_QMAX:
    for (int32_t i = 0; i < count; i++)
      scale[i] *= qmax;
    break;
  case QMAX_OVER:
    for (int32_t i = 0; i < count; i++)
      scale[i] = qmax / scale[i];
    break;
  }
  round_all(scale, layer, count);
}

void bitcc_find_scalings(bitcc_scalings *by, const bitcc_layer *layer, const int32_t *absmax,
                         int32_t count) {
  const way *way = &WAYS[layer->act_scale];
  float *scale = way->divides ? by->divisor : by->factor;
  float *other = way->divides ? by->factor : by->divisor;
  /* BITCC_SCALE_STEP_SUM has a step for eps */
  float eps = layer->act_scale == BITCC_SCALE_STEP_SUM ? 0.0f : layer->act_eps;
  float fixed = layer->act_scale == BITCC_SCALE_PRODUCT ? layer->qmax : 1.0f;
  for (int32_t i = 0; i < count; i++) {
    float magnitude = bitcc_float((uint32_t)absmax[i]);
    scale[i] = (magnitude > layer->act_floor ? magnitude : layer->act_floor) + eps;
    other[i] = fixed;
  }
  round_all(scale, layer, count);
  for (size_t i = 0; i < sizeof way->steps / sizeof *way->steps; i++)
    take(way->steps[i], scale, layer, count);
}

void bitcc_scale_all(float *out, const float *x, const bitcc_layer *layer, bitcc_scaling by,
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
  if (layer->act_scale != BITCC_SCALE_NORMALIZED)
    return;
  for (int32_t i = 0; i < count; i++)
    out[i] *= layer->qmax; /* |x / c| is 1 at most, or little more where c was rounded */
  round_all(out, layer, count);
}
