/* One call of a node on a band of tokens: quantize them, then multiply. */
#ifndef BITCC_CALL_H
#define BITCC_CALL_H

#include "layer.h"

typedef struct {
  const bitcc_node *node;
  const OrtKernelContext *context;
  const bitcc_weights *weights;
  const char *x; /* of the band's first token, [tokens][k] of the node's type */
  char *y;       /* [tokens][n] */
  int32_t tokens;
  /* For each token, and for those that pad the last block: */
  int8_t *q;      /* [k_padded] */
  int32_t *sums;  /* of q */
  float *inverse; /* of the quantization scale; NaN poisons all outputs of the token */
} bitcc_call;

/* Tokens in blocks that gemm takes at once, the last one perhaps padded, then the others by gemv.
 */
typedef struct {
  int32_t blocks, padding, single;
} bitcc_split;
bitcc_split bitcc_split_tokens(const bitcc_kernels *kernels, int32_t tokens);

static inline size_t bitcc_x_bytes(OrtElementType type) { return type == ORT_FLOAT ? 4 : 2; }

OrtStatus *bitcc_quantize_tokens(bitcc_call *call);
OrtStatus *bitcc_multiply(bitcc_call *call);

/* y of rows [row, row + count) of a token from its accumulators. */
enum { BITCC_MAX_FINISH_ROWS = 1024 };
void bitcc_finish(const bitcc_call *call, int32_t token, int32_t row, int32_t count,
                  const int32_t *acc);

/* fn(argument, i) for i in [0, tasks) on onnxruntime's own threads. */
OrtStatus *bitcc_parallel(const bitcc_call *call, void (*fn)(void *, size_t), void *argument,
                          size_t tasks);

#endif
