/* A call of an op: shapes, weights, output; the rest is the op's own. */
#include "call.h"

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
  const OrtValue *inputs[BITCC_MAX_WEIGHTS];
  for (size_t i = 0; i < node->kind->weights; i++) {
    OrtStatus *status = node->api->KernelContext_GetInput(context, i + 1, &inputs[i]);
    if (status != NULL)
      return status;
  }
  return bitcc_read_weights(node, inputs, out);
}

OrtStatus *bitcc_compute(void *kernel, OrtKernelContext *context) {
  bitcc_node *node = kernel;
  bitcc_weights weights = {NULL};
  bitcc_call call = {.node = node, .context = context, .weights = &weights};
  int64_t tokens = 0;
  OrtStatus *status = open_tensors(node, context, &call, &tokens);
  if (status == NULL && !node->constant)
    status = read_call_weights(node, context, &weights);
  if (node->constant)
    call.weights = &node->weights;
  if (status == NULL && tokens > 0)
    status = node->kind->run(node, &call, tokens);
  bitcc_free_weights(&weights);
  return status;
}
