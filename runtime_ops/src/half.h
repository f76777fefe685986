/* float16 and bfloat16 to and from float32, correctly rounded (ties to even), without branches so
 * that compilers vectorise the loops around them. Nothing reads or makes a subnormal float32 on
 * the way, hence the results are the same when the machine flushes those to zero. */
#ifndef BITCC_HALF_H
#define BITCC_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t bitcc_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float bitcc_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float bitcc_from_half(uint16_t half) {
  uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  /* Exponent field + 224, so that 31 becomes 255 and stays Inf or NaN; then undo 224 - 112. */
  float normal = bitcc_float((magnitude << 13) + (224u << 23)) * 0x1p-112f;
  /* 0.5 + m * 2^-24 has m in its lowest bits. */
  float subnormal = bitcc_float(magnitude | 126u << 23) - 0.5f;
  return bitcc_float(sign | bitcc_bits(magnitude < 0x0400u ? subnormal : normal));
}

static inline uint16_t bitcc_to_half(float value) {
  uint32_t bits = bitcc_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  /* Rounding may carry into the exponent: the next binade, or Inf from 65520 on. */
  uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  /* The addition rounds to multiples of 2^-24, the step of subnormal float16. */
  uint32_t subnormal = bitcc_bits(bitcc_float(magnitude) + 0.5f) - (126u << 23);
  uint32_t half = magnitude < 113u << 23 ? subnormal : normal;
  half = magnitude >= 143u << 23 ? 0x7c00u : half;
  half = magnitude > 255u << 23 ? 0x7e00u : half;
  return (uint16_t)(sign | half);
}

static inline float bitcc_from_bfloat16(uint16_t value) {
  return bitcc_float((uint32_t)value << 16);
}

static inline uint16_t bitcc_to_bfloat16(float value) {
  uint32_t bits = bitcc_bits(value);
  uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)((bits & 0x7fffffffu) > 255u << 23 ? bits >> 16 | 0x0040u : rounded);
}

#endif
