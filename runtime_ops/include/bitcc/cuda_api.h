/* The part of NVIDIA's driver API that bitcc uses, declared by ourselves.
 *
 * Its functions are looked up in libcuda.so.1 when a session has a node for a GPU: the library
 * neither needs the CUDA toolkit to be built nor a GPU to be loaded. Names, values and structs are
 * those of cuda.h of CUDA 11.2, which later drivers keep; `_v2` is what that header means by the
 * name without it.
 */
#ifndef BITCC_CUDA_API_H
#define BITCC_CUDA_API_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

typedef int CUresult; /* 0 is success */
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream; /* NULL is the default stream of the context */
typedef struct CUmemPoolHandle_st *CUmemoryPool;

typedef enum {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED = 115,
} CUdevice_attribute;
enum { CU_MEM_ALLOCATION_TYPE_PINNED = 1, CU_MEM_LOCATION_TYPE_DEVICE = 1 };
typedef enum { CU_MEMPOOL_ATTR_RELEASE_THRESHOLD = 4 } CUmemPool_attribute; /* uint64_t */

typedef struct {
  int allocType, handleTypes;
  struct {
    int type, id;
  } location;
  void *win32SecurityAttributes;
  unsigned char reserved[64];
} CUmemPoolProps;
static_assert(sizeof(CUmemPoolProps) == 88, "as in cuda.h");

/* F(name, symbol, parameters) */
#define BITCC_CUDA_FUNCTIONS(F)                                                                   \
  F(cuInit, "cuInit", (unsigned flags))                                                           \
  F(cuGetErrorString, "cuGetErrorString", (CUresult, const char **))                              \
  F(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))                                            \
  F(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (CUcontext))                                         \
  F(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (CUcontext *))                                         \
  F(cuCtxGetDevice, "cuCtxGetDevice", (CUdevice *))                                               \
  F(cuCtxSynchronize, "cuCtxSynchronize", (void))                                                 \
  F(cuDeviceGetName, "cuDeviceGetName", (char *, int size, CUdevice))                             \
  F(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *, CUdevice_attribute, CUdevice))          \
  F(cuModuleLoadData, "cuModuleLoadData", (CUmodule *, const void *image))                        \
  F(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                 \
  F(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *name))       \
  F(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                         \
  F(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                     \
  F(cuMemPoolCreate, "cuMemPoolCreate", (CUmemoryPool *, const CUmemPoolProps *))                 \
  F(cuMemPoolSetAttribute, "cuMemPoolSetAttribute", (CUmemoryPool, CUmemPool_attribute, void *))  \
  F(cuMemPoolDestroy, "cuMemPoolDestroy", (CUmemoryPool))                                         \
  F(cuMemAllocFromPoolAsync, "cuMemAllocFromPoolAsync",                                           \
    (CUdeviceptr *, size_t, CUmemoryPool, CUstream))                                              \
  F(cuMemFreeAsync, "cuMemFreeAsync", (CUdeviceptr, CUstream))                                    \
  F(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t, CUstream))     \
  F(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))           \
  F(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr, unsigned value, size_t count, CUstream))  \
  F(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                       \
  F(cuLaunchKernel, "cuLaunchKernel",                                                             \
    (CUfunction, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,             \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream, void **arguments,       \
     void **extra))

typedef struct {
#define BITCC_CUDA_MEMBER(name, symbol, parameters) CUresult(*name) parameters;
  BITCC_CUDA_FUNCTIONS(BITCC_CUDA_MEMBER)
#undef BITCC_CUDA_MEMBER
} bitcc_cuda_driver;

#endif
