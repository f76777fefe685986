/* The scale of a token's codes: in the order that the graph had, each result rounded to the type
 * that it had there, so that it is the same on every ISA. */
#ifndef BITCC_SCALING_H
#define BITCC_SCALING_H

#include "layer.h"

/* Tokens that are scaled at a time. */
enum { BITCC_BLOCK_TOKENS = 16 };

/* Codes are x * factor / divisor * `bitcc_factor_after(layer)`. */
typedef struct {
  float factor, divisor;
} bitcc_scaling;

/* The same of some tokens. */
typedef struct {
  float factor[BITCC_BLOCK_TOKENS], divisor[BITCC_BLOCK_TOKENS];
} bitcc_scalings;

/* From the absolute maxima of `count` tokens, as the kernel gives them. */
void bitcc_find_scalings(bitcc_scalings *by, const bitcc_layer *layer, const int32_t *absmax,
                         int32_t count);
/* Whether the scale is the divisor. */
bool bitcc_divides(const bitcc_layer *layer);
float bitcc_factor_after(const bitcc_layer *layer);
/* The scaled x as it is before it is rounded to an integer. `out` may be `x`. */
void bitcc_scale_all(float *out, const float *x, const bitcc_layer *layer, bitcc_scaling by,
                     int32_t count);
/* A result of the quantizer in the type that it had in the graph. */
float bitcc_rounded(const bitcc_layer *layer, float value);

#endif
