/* bitcc::BitLinear for the CUDAExecutionProvider. What a node is, and all that is checked about
 * it, is as on the CPU: onnxruntime keeps the inputs after X in host memory, where they are read.
 */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

enum { INPUT_X };

static const char *provider(const OrtCustomOp *op) {
  (void)op;
  return "CUDAExecutionProvider";
}

static OrtMemType memory_type(const OrtCustomOp *op, size_t index) {
  (void)op;
  return index == INPUT_X ? ORT_MEMORY_DEFAULT : ORT_MEMORY_CPU_INPUT;
}

static OrtStatus *upload_constants(bitcc_node *node) {
  struct bitcc_on_gpu *here = node->on_gpu;
  CUdeviceptr *block = &here->weights.block;
  OrtStatus *status =
      bitcc_try(node, here->gpu->driver, cuMemAlloc, block, bitcc_weights_bytes(&node->layer));
  if (status == NULL)
    status = bitcc_upload_weights(node, here->gpu, NULL, &node->weights, *block, &here->weights);
  bitcc_free_weights(&node->weights);
  return status;
}

static OrtStatus *move_to_gpu(bitcc_node *node) {
  node->on_gpu = calloc(1, sizeof *node->on_gpu);
  if (node->on_gpu == NULL)
    return bitcc_node_error(node, "%s", "out of memory");
  OrtStatus *status = bitcc_take_gpu(node, &node->on_gpu->gpu);
  return status == NULL && node->constant ? upload_constants(node) : status;
}

/* cuMemFree waits for all that reads the weights. What fails here has nowhere to be told. */
static void free_constants(const struct bitcc_on_gpu *here) {
  CUcontext left;
  CUresult entered = here->gpu->driver->cuCtxPushCurrent(here->gpu->context);
  here->gpu->driver->cuMemFree(here->weights.block);
  if (entered == 0)
    here->gpu->driver->cuCtxPopCurrent(&left);
}

static void destroy(void *kernel) {
  bitcc_node *node = kernel;
  struct bitcc_on_gpu *here = node->on_gpu;
  if (here != NULL && here->weights.block != 0)
    free_constants(here);
  if (here != NULL && here->gpu != NULL)
    bitcc_give_gpu(here->gpu);
  free(here);
  bitcc_destroy_node(node);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **out) {
  void *node;
  OrtStatus *status = bitcc_create_node(op, api, info, &node);
  if (status != NULL)
    return status;
  status = move_to_gpu(node);
  if (status == NULL)
    *out = node;
  else
    destroy(node);
  return status;
}

/* Weights that are no constants are copied at each call. */
static OrtStatus *run_with(const bitcc_call *call, CUstream stream, int64_t tokens) {
  const bitcc_node *node = call->node;
  const bitcc_gpu *gpu = node->on_gpu->gpu;
  bitcc_cuda_family matmul = bitcc_matmul_for(gpu, &node->layer, tokens);
  if (node->constant)
    return bitcc_run_on_gpu(call, gpu, stream, &node->on_gpu->weights, tokens, matmul);
  CUdeviceptr block = 0;
  bitcc_gpu_weights weights;
  OrtStatus *status =
      bitcc_take_memory(node, gpu, stream, bitcc_weights_bytes(&node->layer), &block);
  if (status != NULL)
    return status;
  status = bitcc_upload_weights(node, gpu, stream, call->weights, block, &weights);
  if (status == NULL)
    status = bitcc_run_on_gpu(call, gpu, stream, &weights, tokens, matmul);
  return bitcc_first(node, status, bitcc_give_memory(node, gpu, stream, block));
}

static OrtStatus *run(bitcc_node *node, bitcc_call *call, int64_t tokens) {
  void *stream = NULL;
  OrtStatus *status = node->api->KernelContext_GetGPUComputeStream(call->context, &stream);
  if (status == NULL)
    status = bitcc_enter_gpu(node, node->on_gpu->gpu);
  if (status != NULL)
    return status;
  status = run_with(call, stream, tokens);
  return bitcc_first(node, status, bitcc_leave_gpu(node, node->on_gpu->gpu));
}

static const bitcc_kind on_gpu = {"BitLinear", 4, bitcc_read_bit_linear, run, .t2_only = true};

OrtStatus *bitcc_fill_cuda_ops(const bitcc_op ops[BITCC_CPU_OPS], bitcc_op *cuda, size_t *count) {
  const char *wanted = getenv("BITCC_CUDA");
  if (wanted != NULL && strcmp(wanted, "off") == 0)
    return NULL;
  if (wanted != NULL && wanted[0] != '\0')
    return bitcc_error(ops->api, ORT_INVALID_ARGUMENT, "bitcc: BITCC_CUDA=%s; known is: off",
                       wanted);
  for (size_t i = 0; i < BITCC_CUDA_ELEMENTS; i++) {
    cuda[i] = ops[i];
    cuda[i].kind = &on_gpu;
    cuda[i].base.GetExecutionProviderType = provider;
    cuda[i].base.GetInputMemoryType = memory_type;
    cuda[i].base.CreateKernelV2 = create;
    cuda[i].base.KernelDestroy = destroy;
  }
  *count = BITCC_CUDA_ELEMENTS;
  return NULL;
}
