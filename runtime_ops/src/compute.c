/* A call of the op: shapes, output, memory, then band by band of tokens. */
#include "call.h"

/* Quantized activations of one band: they stay in L2 while all weights pass by, and memory for a
 * call is bounded. But a band is never so short that reading the weights costs more than
 * computing. */
enum { BAND_BYTES = 2 << 20, MIN_BAND = 64 };

static int32_t band_tokens(const bitcc_node *node, int64_t tokens) {
  int32_t block = node->kernels->gemm_tokens, band = BAND_BYTES / node->layer.k_padded;
  band = band < MIN_BAND ? MIN_BAND : band;
  band = (band + block - 1) / block * block;
  return tokens < band ? (int32_t)tokens : band;
}

OrtStatus *bitcc_parallel(const bitcc_call *call, void (*fn)(void *, size_t), void *argument,
                          size_t tasks) {
  if (tasks > 1)
    return call->node->api->KernelContext_ParallelFor(call->context, fn, tasks, 0, argument);
  if (tasks == 1)
    fn(argument, 0);
  return NULL;
}

static OrtStatus *multiply_bands(bitcc_node *node, bitcc_call *call, int64_t tokens) {
  const bitcc_layer *layer = &node->layer;
  int32_t band = band_tokens(node, tokens);
  size_t rows = (size_t)band + (size_t)node->kernels->gemm_tokens; /* room for padding */
  bitcc_scratch *scratch;
  call->q = bitcc_take_scratch(
      node, rows * ((size_t)layer->k_padded + sizeof *call->sums + sizeof *call->inverse),
      &scratch);
  if (call->q == NULL)
    return bitcc_node_error(node, "out of memory for %zu quantized tokens", rows);
  call->sums = (int32_t *)(void *)(call->q + rows * (size_t)layer->k_padded);
  call->inverse = (float *)(void *)(call->sums + rows);
  OrtStatus *status = NULL;
  for (int64_t done = 0; status == NULL && done < tokens; done += call->tokens) {
    call->tokens = (int32_t)(tokens - done < band ? tokens - done : band);
    status = bitcc_quantize_tokens(call);
    if (status == NULL)
      status = bitcc_multiply(call);
    call->x += (size_t)call->tokens * (size_t)layer->k * bitcc_x_bytes(node->x_type);
    call->y += (size_t)call->tokens * (size_t)layer->n * bitcc_x_bytes(node->x_type);
  }
  bitcc_give_scratch(node, scratch);
  return status;
}

/* No overflow: the product is at most the elements of X, which is in memory, or there are none. */
static int64_t count_tokens(const bitcc_tensor *x) {
  int64_t tokens = 1;
  for (size_t i = 0; i + 1 < x->rank; i++)
    if (x->dims[i] == 0)
      return 0;
  for (size_t i = 0; i + 1 < x->rank; i++)
    tokens *= x->dims[i];
  return tokens;
}

/* X, and Y of the same shape but for the last dimension; *tokens is how many rows of K they are.
 */
static OrtStatus *open_tensors(const bitcc_node *node, OrtKernelContext *context, bitcc_call *call,
                               int64_t *tokens) {
  const OrtValue *value;
  OrtValue *output;
  bitcc_tensor x;
  void *y = NULL;
  OrtStatus *status = node->api->KernelContext_GetInput(context, 0, &value);
  if (status == NULL)
    status = bitcc_read_tensor(node, "X", value, &x);
  if (status != NULL)
    return status;
  if (x.rank == 0)
    return bitcc_node_error(node, "X is a scalar, expected [..., %d]", node->layer.k);
  if (x.type != node->x_type || x.dims[x.rank - 1] != node->layer.k)
    return bitcc_node_error(node, "the last dimension of X is %lld, expected K = %d",
                            (long long)x.dims[x.rank - 1], node->layer.k);
  *tokens = count_tokens(&x);
  x.dims[x.rank - 1] = node->layer.n;
  status = node->api->KernelContext_GetOutput(context, 0, x.dims, x.rank, &output);
  if (status == NULL)
    status = node->api->GetTensorMutableData(output, &y);
  call->x = x.data;
  call->y = y;
  return status;
}

static OrtStatus *read_call_weights(const bitcc_node *node, const OrtKernelContext *context,
                                    bitcc_weights *out) {
  const OrtValue *inputs[3];
  for (size_t i = 0; i < 3; i++) {
    OrtStatus *status = node->api->KernelContext_GetInput(context, i + 1, &inputs[i]);
    if (status != NULL)
      return status;
  }
  return bitcc_read_weights(node, inputs, out);
}

OrtStatus *bitcc_compute(void *kernel, OrtKernelContext *context) {
  bitcc_node *node = kernel;
  bitcc_weights weights = {NULL, NULL, NULL};
  bitcc_call call = {.node = node, .context = context, .weights = &weights};
  int64_t tokens = 0;
  OrtStatus *status = open_tensors(node, context, &call, &tokens);
  if (status == NULL && !node->constant)
    status = read_call_weights(node, context, &weights);
  if (node->constant)
    call.weights = &node->weights;
  if (status == NULL && tokens > 0)
    status = multiply_bands(node, &call, tokens);
  bitcc_free_weights(&weights);
  return status;
}
