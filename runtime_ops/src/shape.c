/* Shape inference: Y is X with its last dimension replaced by N; symbolic dimensions stay. */
#include "layer.h"

/* N, or -1 where it cannot be read: then the node cannot be created either, and that says why. */
static int64_t attribute_n(const OrtApi *api, const OrtShapeInferContext *context) {
  const OrtOpAttr *attribute = NULL;
  int64_t n = -1;
  size_t read;
  OrtStatus *status = api->ShapeInferContext_GetAttribute(context, "N", &attribute);
  if (status == NULL)
    status = api->ReadOpAttr(attribute, ORT_ATTRIBUTE_INT, &n, sizeof n, &read);
  if (status == NULL)
    return n;
  api->ReleaseStatus(status);
  return -1;
}

/* A dimension without a size and a name, as of a Reshape to -1: onnxruntime would take it for one
   of size -1, which no node behind can have, and refuse the model. */
static bool has_nameless(const int64_t *dims, const char **symbols, size_t rank) {
  for (size_t i = 0; i < rank; i++)
    if (dims[i] < 0 && (symbols[i] == NULL || symbols[i][0] == '\0'))
      return true;
  return false;
}

static OrtStatus *set_output(const OrtApi *api, OrtShapeInferContext *context, OrtElementType type,
                             const int64_t *dims, const char **symbols, size_t rank) {
  OrtTensorTypeAndShapeInfo *shape;
  OrtStatus *status = api->CreateTensorTypeAndShapeInfo(&shape);
  if (status != NULL)
    return status;
  status = api->SetTensorElementType(shape, type);
  if (status == NULL)
    status = api->SetDimensions(shape, dims, rank);
  if (status == NULL)
    status = api->SetSymbolicDimensions(shape, symbols, rank);
  if (status == NULL)
    status = api->ShapeInferContext_SetOutputTypeShape(context, 0, shape);
  api->ReleaseTensorTypeAndShapeInfo(shape);
  return status;
}

/* onnxruntime asks one struct of an op for nodes of all its types: the type is that of this X. */
OrtStatus *bitcc_infer_shape(const OrtCustomOp *op, OrtShapeInferContext *context) {
  const OrtApi *api = ((const bitcc_op *)op)->api;
  OrtTensorTypeAndShapeInfo *x; /* borrowed */
  OrtElementType type = ORT_UNDEFINED;
  int64_t dims[BITCC_MAX_RANK];
  const char *symbols[BITCC_MAX_RANK];
  size_t rank = 0;
  OrtStatus *status = api->ShapeInferContext_GetInputTypeShape(context, 0, &x);
  if (status == NULL)
    status = api->GetDimensionsCount(x, &rank);
  /* No dimensions: a scalar or an unknown rank, which cannot be told apart. */
  if (status != NULL || rank == 0 || rank > BITCC_MAX_RANK)
    return status;
  status = api->GetTensorElementType(x, &type);
  if (status == NULL)
    status = api->GetDimensions(x, dims, rank);
  if (status == NULL)
    status = api->GetSymbolicDimensions(x, symbols, rank);
  if (status != NULL)
    return status;
  int64_t n = attribute_n(api, context);
  if (n < 1)
    return NULL;
  dims[rank - 1] = n;
  symbols[rank - 1] = "";
  if (has_nameless(dims, symbols, rank))
    return NULL;
  return set_output(api, context, type, dims, symbols, rank);
}
