#include "layer.h"

static OrtStatus *read_shape(const bitcc_node *node, const char *input,
                             const OrtTensorTypeAndShapeInfo *info, bitcc_tensor *out) {
  const OrtApi *api = node->api;
  OrtStatus *status = api->GetTensorElementType(info, &out->type);
  if (status == NULL)
    status = api->GetDimensionsCount(info, &out->rank);
  if (status != NULL)
    return status;
  if (out->rank > BITCC_MAX_RANK)
    return bitcc_node_error(node, "%s has %zu dimensions, more than %d", input, out->rank,
                            BITCC_MAX_RANK);
  return api->GetDimensions(info, out->dims, out->rank);
}

OrtStatus *bitcc_read_tensor(const bitcc_node *node, const char *input, const OrtValue *value,
                             bitcc_tensor *out) {
  OrtTensorTypeAndShapeInfo *info;
  if (value == NULL)
    return bitcc_node_error(node, "input %s is missing", input);
  OrtStatus *status = node->api->GetTensorTypeAndShape(value, &info);
  if (status != NULL)
    return status;
  status = read_shape(node, input, info, out);
  node->api->ReleaseTensorTypeAndShapeInfo(info);
  if (status != NULL)
    return status;
  /* The API has no call for constant data; nothing is written through this pointer. */
  void *data;
  status = node->api->GetTensorMutableData((OrtValue *)(uintptr_t)value, &data);
  out->data = data;
  return status;
}
