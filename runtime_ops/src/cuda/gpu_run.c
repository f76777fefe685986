/* The launches of a call: as bit_linear.c, but that the steps of a band are kernels. */
#include "gpu.h"

/* Quantized activations of one band: memory for a call is bounded. Tests take less. */
#if !defined(BITCC_GPU_BAND_BYTES)
#define BITCC_GPU_BAND_BYTES (256 << 20)
#endif
/* Up to so many outputs for each SM its blocks are too few for `gemm`, and those of `gemm` for
 * `gemm_many`: measured on an H100. */
enum { FEW_OUTPUTS = 4 << 10, GEMM_OUTPUTS = 24 << 10 };

typedef struct {
  bitcc_call base; /* first: steps get a pointer to it; of its memory only x and y are used */
  const bitcc_gpu *gpu;
  const bitcc_gpu_weights *weights;
  CUstream stream;
  CUdeviceptr q, inverse, sums, absmax;
  bitcc_cuda_family matmul;
} gpu_call;

static CUdeviceptr address(const void *pointer) { return (CUdeviceptr)(uintptr_t)pointer; }

bitcc_cuda_element bitcc_element_of(OrtElementType type) {
  return type == ORT_FLOAT     ? BITCC_CUDA_float
         : type == ORT_FLOAT16 ? BITCC_CUDA_float16
                               : BITCC_CUDA_bfloat16;
}

static OrtStatus *launch(const gpu_call *c, bitcc_cuda_family family, int32_t blocks_x,
                         int32_t blocks_y, void **arguments) {
  const bitcc_node *node = c->base.node;
  bitcc_cuda_element element = bitcc_element_of(node->x_type);
  unsigned threads = (unsigned)bitcc_cuda_kernels[family][element].threads;
  return bitcc_try(node, c->gpu->driver, cuLaunchKernel, c->gpu->functions[family][element],
                   (unsigned)blocks_x, (unsigned)blocks_y, 1, threads, 1, 1, 0, c->stream,
                   arguments, NULL);
}

/* What `absmax` and `quantize` begin with. */
typedef struct {
  CUdeviceptr x, gain, absmax;
  int32_t k, has_norm;
  float norm_eps;
} of_token;

static of_token token_arguments(const gpu_call *c) {
  const bitcc_layer *layer = &c->base.node->layer;
  return (of_token){address(c->base.x), c->weights->gain, c->absmax,
                    layer->k,           layer->has_norm,  layer->norm_eps};
}

static OrtStatus *find_absmax(bitcc_call *call) {
  const gpu_call *c = (const gpu_call *)call;
  of_token t = token_arguments(c);
  void *arguments[] = {&t.x, &t.gain, &t.absmax, &t.k, &t.has_norm, &t.norm_eps};
  return launch(c, BITCC_CUDA_absmax, call->tokens, 1, arguments);
}

static OrtStatus *quantize(const gpu_call *c) {
  of_token t = token_arguments(c);
  gpu_call own = *c; /* arguments are not const */
  bitcc_layer layer = c->base.node->layer;
  int32_t per_tensor = layer.per_tensor, act_scale = (int32_t)layer.act_scale,
          act_type = (int32_t)layer.act_type;
  void *arguments[] = {&t.x,           &t.gain,          &t.absmax,      &t.k,
                       &t.has_norm,    &t.norm_eps,      &own.q,         &own.inverse,
                       &own.sums,      &layer.k_blocks,  &per_tensor,    &act_scale,
                       &act_type,      &layer.act_floor, &layer.act_eps, &layer.qmax,
                       &layer.act_min, &layer.act_max};
  return launch(c, BITCC_CUDA_quantize, c->base.tokens, 1, arguments);
}

bitcc_cuda_family bitcc_matmul_for(const bitcc_gpu *gpu, const bitcc_layer *layer,
                                   int64_t tokens) {
  int64_t each = tokens * layer->n / gpu->processors;
  return tokens == 1             ? BITCC_CUDA_gemv
         : each < FEW_OUTPUTS  ? BITCC_CUDA_gemm_few
         : each < GEMM_OUTPUTS ? BITCC_CUDA_gemm
                               : BITCC_CUDA_gemm_many;
}

static OrtStatus *multiply(const gpu_call *c) {
  gpu_call own = *c;
  bitcc_gpu_weights weights = *c->weights;
  bitcc_layer layer = c->base.node->layer;
  CUdeviceptr y = address(c->base.y);
  int32_t bias_first = layer.bias_before_scale;
  void *arguments[] = {&own.q,          &weights.w, &own.inverse,     &own.sums, &weights.scale,
                       &weights.bias,   &y,         &own.base.tokens, &layer.n,  &layer.tiles,
                       &layer.k_blocks, &bias_first};
  const bitcc_cuda_kernel *kernel =
      &bitcc_cuda_kernels[c->matmul][bitcc_element_of(c->base.node->x_type)];
  return launch(c, c->matmul, bitcc_divide_up(layer.rows, kernel->rows),
                bitcc_divide_up(own.base.tokens, kernel->tokens), arguments);
}

static OrtStatus *run_band(bitcc_call *call) {
  const gpu_call *c = (const gpu_call *)call;
  OrtStatus *status = quantize(c);
  return status != NULL ? status : multiply(c);
}

static OrtStatus *run_bands(gpu_call *c, int64_t tokens, int32_t band) {
  OrtStatus *status = NULL;
  if (c->base.node->layer.per_tensor) {
    gpu_call all = *c;
    status = bitcc_try(c->base.node, c->gpu->driver, cuMemsetD32Async, c->absmax, 0, 1, c->stream);
    if (status == NULL)
      status = bitcc_each_band(&all.base, tokens, band, find_absmax);
  }
  return status != NULL ? status : bitcc_each_band(&c->base, tokens, band, run_band);
}

OrtStatus *bitcc_run_on_gpu(const bitcc_call *call, const bitcc_gpu *gpu, CUstream stream,
                            const bitcc_gpu_weights *weights, int64_t tokens,
                            bitcc_cuda_family matmul) {
  gpu_call c = {
      .base = *call, .gpu = gpu, .weights = weights, .stream = stream, .matmul = matmul};
  size_t k_padded = (size_t)call->node->layer.k_padded;
  int32_t most = bitcc_min(BITCC_GPU_BAND_BYTES / call->node->layer.k_padded, BITCC_MAX_BAND);
  int32_t band = tokens < most ? (int32_t)tokens : most;
  size_t codes = (size_t)band * k_padded, each = (size_t)band * sizeof(int32_t);
  OrtStatus *status =
      bitcc_take_memory(call->node, gpu, stream, codes + 2 * each + sizeof(int32_t), &c.q);
  if (status != NULL)
    return status;
  c.inverse = c.q + codes;
  c.sums = c.inverse + each;
  c.absmax = c.sums + each;
  CUdeviceptr memory = c.q;
  status = run_bands(&c, tokens, band);
  return bitcc_first(call->node, status, bitcc_give_memory(call->node, gpu, stream, memory));
}
