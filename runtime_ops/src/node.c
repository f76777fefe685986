/* Making and freeing a kernel. */
#include <stdlib.h>

#include "layer.h"

static OrtStatus *read_name(bitcc_node *node, const OrtKernelInfo *info) {
  size_t size = 0;
  OrtStatus *status = node->api->KernelInfo_GetNodeName(info, NULL, &size);
  if (status != NULL)
    return status;
  node->name = malloc(size);
  if (node->name == NULL)
    return bitcc_error(node->api, ORT_FAIL, "bitcc: out of memory");
  return node->api->KernelInfo_GetNodeName(info, node->name, &size);
}

/* The weights, if all of them are constant: W is used where it lies, in the mapped file at best.
 */
static OrtStatus *read_constants(bitcc_node *node, const OrtKernelInfo *info) {
  const OrtValue *inputs[BITCC_MAX_WEIGHTS];
  for (size_t i = 0; i < node->kind->weights; i++) {
    int is_constant = 0;
    inputs[i] = NULL;
    OrtStatus *status =
        node->api->KernelInfoGetConstantInput_tensor(info, i + 1, &is_constant, &inputs[i]);
    if (status != NULL)
      return status;
    if (!is_constant || inputs[i] == NULL)
      return NULL;
  }
  node->constant = true;
  return bitcc_read_weights(node, inputs, &node->weights);
}

OrtStatus *bitcc_create_node(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                             void **out) {
  const bitcc_op *self = (const bitcc_op *)op;
  bitcc_node *node = calloc(1, sizeof *node);
  if (node == NULL)
    return bitcc_error(api, ORT_FAIL, "bitcc: out of memory");
  atomic_init(&node->spare, NULL);
  atomic_init(&node->pairs_start, NULL);
  node->api = api;
  node->kernels = self->kernels;
  node->kind = self->kind;
  node->x_type = self->x_type;
  OrtStatus *status = read_name(node, info);
  if (status == NULL)
    status = node->kind->read_layer(node, info, &node->layer);
  if (status == NULL)
    status = read_constants(node, info);
  if (status != NULL) {
    bitcc_destroy_node(node);
    return status;
  }
  *out = node;
  return NULL;
}

void bitcc_destroy_node(void *kernel) {
  bitcc_node *node = kernel;
  bitcc_free_weights(&node->weights);
  free(atomic_load(&node->spare));
  free(atomic_load(&node->pairs_start));
  free(node->name);
  free(node);
}
