/* bitcc::BitLinear: band by band, quantize the tokens and multiply them. */
#include <stdalign.h>

#include "call.h"

/* Quantized activations of one band, as they are read for products: they stay in L2 while all weights pass by, and
 * memory for a call is bounded. But a band is never so short that reading the weights costs more than
 * computing. */
enum { BAND_BYTES = 2 << 20, MIN_BAND = 64 };

/* So little is on the stack: that is in L1 from the nodes before, and memory of a node's own is not. */
enum { ON_STACK = 16 << 10 };

static int32_t band_tokens(const bitcc_node *node, int64_t tokens) {
  int32_t band = BAND_BYTES / node->layer.k_padded;
  band = band < MIN_BAND ? MIN_BAND : band;
  return tokens < band ? (int32_t)tokens : band;
}

/* The scale of all tokens has to be known before the first of them is quantized. */
static OrtStatus *find_absmax(bitcc_call *call, int64_t tokens) {
  bitcc_call all = *call;
  OrtStatus *status = bitcc_each_band(&all, tokens, BITCC_MAX_BAND, bitcc_find_absmax);
  call->absmax = all.absmax;
  return status;
}

static OrtStatus *run(bitcc_node *node, bitcc_call *call, int64_t tokens) {
  const bitcc_layer *layer = &node->layer;
  OrtStatus *status = layer->per_tensor ? find_absmax(call, tokens) : NULL;
  if (status == NULL && bitcc_wants_pairs(node, tokens))
    status = bitcc_find_pairs_start(node, &call->pairs_start);
  if (status != NULL)
    return status;
  int32_t band = band_tokens(node, tokens);
  size_t rows = (size_t)bitcc_round_up(band, node->kernels->gemm_unit);
  size_t k = (size_t)layer->k_padded, each = k + sizeof *call->sums + sizeof *call->inverse;
  if (call->pairs_start != NULL)
    each += k + sizeof *call->excesses;
  size_t size = rows * each;
  alignas(64) int8_t on_stack[ON_STACK];
  bitcc_scratch *scratch = NULL;
  call->q = size <= sizeof on_stack ? on_stack : bitcc_take_scratch(node, size, &scratch);
  if (call->q == NULL)
    return bitcc_node_error(node, "out of memory for %zu quantized tokens", rows);
  call->sums = (int32_t *)(void *)(call->q + rows * k);
  call->inverse = (float *)(void *)(call->sums + rows);
  if (call->pairs_start != NULL) {
    call->excesses = (bitcc_excesses *)(void *)(call->inverse + rows);
    call->pairs = (uint8_t *)(call->excesses + rows);
  }
  status = bitcc_each_band(call, tokens, band, bitcc_multiply);
  if (scratch != NULL)
    bitcc_give_scratch(node, scratch);
  return status;
}

const bitcc_kind bitcc_bit_linear = {"BitLinear", 4, bitcc_read_bit_linear, run, false};
