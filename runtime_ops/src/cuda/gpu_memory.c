/* Memory of a GPU: for the work of a call, and for weights. */
#include "gpu.h"

OrtStatus *bitcc_take_memory(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                             size_t bytes, CUdeviceptr *out) {
  if (gpu->pool == NULL)
    return bitcc_try(node, gpu->driver, cuMemAlloc, out, bytes);
  return bitcc_try(node, gpu->driver, cuMemAllocFromPoolAsync, out, bytes, gpu->pool, stream);
}

OrtStatus *bitcc_give_memory(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                             CUdeviceptr memory) {
  if (memory == 0)
    return NULL;
  if (gpu->pool != NULL)
    return bitcc_try(node, gpu->driver, cuMemFreeAsync, memory, stream);
  OrtStatus *status = bitcc_try(node, gpu->driver, cuStreamSynchronize, stream);
  return bitcc_first(node, status, bitcc_try(node, gpu->driver, cuMemFree, memory));
}

static size_t w_bytes(const bitcc_layer *layer) {
  return (size_t)layer->tiles * (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
}

/* Scale, bias and gain, which are one block on the host too. */
static size_t float_bytes(const bitcc_layer *layer) {
  return (2 * (size_t)layer->rows + (size_t)layer->k) * sizeof(float);
}

size_t bitcc_weights_bytes(const bitcc_layer *layer) {
  return w_bytes(layer) + float_bytes(layer);
}

OrtStatus *bitcc_upload_weights(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                                const bitcc_weights *weights, CUdeviceptr block,
                                bitcc_gpu_weights *out) {
  const bitcc_layer *layer = &node->layer;
  size_t row_bytes = (size_t)layer->rows * sizeof(float);
  out->block = out->w = block;
  out->scale = block + w_bytes(layer);
  out->bias = out->scale + row_bytes;
  out->gain = out->bias + row_bytes;
  OrtStatus *status =
      bitcc_try(node, gpu->driver, cuMemcpyHtoDAsync, out->w, weights->w, w_bytes(layer), stream);
  if (status == NULL)
    status = bitcc_try(node, gpu->driver, cuMemcpyHtoDAsync, out->scale, weights->scale,
                       float_bytes(layer), stream);
  /* what was copied may be gone when this returns, and other streams may read the copy */
  return bitcc_first(node, status, bitcc_try(node, gpu->driver, cuStreamSynchronize, stream));
}
