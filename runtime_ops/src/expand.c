/* Weights in layout `t5` for kernels that read `t2`. */
#include "layer.h"

enum { CODES = 5, CODE_BITS = 2, KNOWN_BYTES = 243, ALL_ONES = 0x155 };

/* The five codes of each byte, the first one in the lowest bits. */
static void fill(uint16_t codes[256]) {
  for (int32_t byte = 0; byte < 256; byte++) {
    int32_t escaped = byte - 192;
    int32_t v = escaped < 0 ? byte % 64 : 64 + escaped / 3;
    int32_t last = escaped < 0 ? byte / 64 : escaped % 3;
    int32_t bits = v / 27 | v / 9 % 3 << 2 | v / 3 % 3 << 4 | v % 3 << 6 | last << 8;
    codes[byte] = (uint16_t)(byte < KNOWN_BYTES ? bits : ALL_ONES);
  }
}

/* Down the vectors of a tile, byte i of each is a stream of codes: ten bits from every byte of
 * `t5`, eight to every byte of `t2`. What `t2` has beyond the last vector of `t5` is padding. */
static void expand_tile(const uint16_t codes[256], const uint8_t *w, int32_t w_blocks,
                        uint8_t *out, int32_t k_blocks) {
  uint32_t bits[BITCC_VECTOR_BYTES] = {0};
  int32_t have = 0;
  for (int32_t taken = 0, block = 0; block < k_blocks; block++, have -= 8) {
    while (have < 8) {
      const uint8_t *vector = w + (size_t)taken * BITCC_VECTOR_BYTES;
      for (int32_t i = 0; i < BITCC_VECTOR_BYTES; i++)
        bits[i] |= (uint32_t)(taken < w_blocks ? codes[vector[i]] : ALL_ONES) << have;
      have += CODES * CODE_BITS;
      taken++;
    }
    for (int32_t i = 0; i < BITCC_VECTOR_BYTES; i++) {
      out[(size_t)block * BITCC_VECTOR_BYTES + (size_t)i] = (uint8_t)bits[i];
      bits[i] >>= 8;
    }
  }
}

void bitcc_expand_t5(const bitcc_layer *layer, const uint8_t *w, uint8_t *out) {
  uint16_t codes[256];
  fill(codes);
  size_t w_bytes = (size_t)layer->w_blocks * BITCC_VECTOR_BYTES;
  size_t out_bytes = (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
  for (size_t tile = 0; tile < (size_t)layer->tiles; tile++)
    expand_tile(codes, w + tile * w_bytes, layer->w_blocks, out + tile * out_bytes,
                layer->k_blocks);
}
