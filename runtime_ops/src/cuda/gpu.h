/* A GPU with the kernels of this library on it, and what the files of the launcher share. */
#ifndef BITCC_GPU_H
#define BITCC_GPU_H

#include "bitcc/cuda.h"
#include "bitcc/cuda_api.h"
#include "call.h"

/* One for each CUDA context, for as long as nodes use it. */
typedef struct bitcc_gpu bitcc_gpu;
struct bitcc_gpu {
  const bitcc_cuda_driver *driver;
  CUcontext context;
  CUmodule module;
  CUfunction functions[BITCC_CUDA_FAMILIES][BITCC_CUDA_ELEMENTS];
  int processors;    /* SMs */
  CUmemoryPool pool; /* NULL where the GPU has none */
  int32_t nodes;
  bitcc_gpu *next;
};

/* bitcc_weights on a GPU, all in one block. */
typedef struct {
  CUdeviceptr block, w, scale, bias, gain;
} bitcc_gpu_weights;

/* What a node has on its GPU. */
struct bitcc_on_gpu {
  bitcc_gpu *gpu;
  bitcc_gpu_weights weights; /* of a node whose weights are constant */
};

/* driver.c */
OrtStatus *bitcc_open_driver(const bitcc_node *node, bitcc_cuda_driver *out);
/* NULL for 0, else an error about the node with the driver's words. */
OrtStatus *bitcc_driver_status(const bitcc_node *node, const bitcc_cuda_driver *driver,
                               const char *function, CUresult result);
#define bitcc_try(node, driver, function, ...)                                                    \
  bitcc_driver_status(node, driver, #function, (driver)->function(__VA_ARGS__))
/* The first of two errors; the other one is released. */
OrtStatus *bitcc_first(const bitcc_node *node, OrtStatus *first, OrtStatus *second);

/* gpu.c: the GPU whose context is current, to be given back. */
OrtStatus *bitcc_take_gpu(const bitcc_node *node, bitcc_gpu **out);
void bitcc_give_gpu(bitcc_gpu *gpu);
/* Make its context the current one, and the one before it again. */
OrtStatus *bitcc_enter_gpu(const bitcc_node *node, const bitcc_gpu *gpu);
OrtStatus *bitcc_leave_gpu(const bitcc_node *node, const bitcc_gpu *gpu);

/* gpu_memory.c: memory for work on a stream. */
OrtStatus *bitcc_take_memory(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                             size_t bytes, CUdeviceptr *out);
/* Waits for the stream where the GPU has no pool. Nothing for 0. */
OrtStatus *bitcc_give_memory(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                             CUdeviceptr memory);
/* Where the weights of `block` lie, and their copy: all of it is there on return. */
size_t bitcc_weights_bytes(const bitcc_layer *layer);
OrtStatus *bitcc_upload_weights(const bitcc_node *node, const bitcc_gpu *gpu, CUstream stream,
                                const bitcc_weights *weights, CUdeviceptr block,
                                bitcc_gpu_weights *out);

/* gpu_run.c: all of Y from X by one of the matmuls, on a stream; the context is current. */
bitcc_cuda_family bitcc_matmul_for(const bitcc_gpu *gpu, const bitcc_layer *layer, int64_t tokens);
bitcc_cuda_element bitcc_element_of(OrtElementType type);
OrtStatus *bitcc_run_on_gpu(const bitcc_call *call, const bitcc_gpu *gpu, CUstream stream,
                            const bitcc_gpu_weights *weights, int64_t tokens,
                            bitcc_cuda_family matmul);

/* gpu_self_test.c: runs every kernel against plain C; the context is current. */
OrtStatus *bitcc_gpu_self_test(const bitcc_node *node, const bitcc_gpu *gpu);

/* images.c: the best for a GPU of that capability, NULL if there is none. */
const bitcc_cuda_image *bitcc_choose_image(int32_t capability);

#endif
