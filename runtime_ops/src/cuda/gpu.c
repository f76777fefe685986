/* Loading the kernels, once for each context: a model has hundreds of nodes, and a process may
 * have several sessions. Contexts belong to the process, and so does the list of them. */
#include <pthread.h>
#include <stdlib.h>

#include "gpu.h"

static struct {
  pthread_mutex_t lock;
  bool is_open;
  bitcc_cuda_driver driver;
  bitcc_gpu *first;
} known = {.lock = PTHREAD_MUTEX_INITIALIZER};

static OrtStatus *load_image(const bitcc_node *node, bitcc_gpu *gpu, CUdevice device) {
  char name[128] = "", images[256];
  int major = 0, minor = 0;
  OrtStatus *status = bitcc_try(node, gpu->driver, cuDeviceGetAttribute, &major,
                                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  if (status == NULL)
    status = bitcc_try(node, gpu->driver, cuDeviceGetAttribute, &minor,
                       CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
  if (status == NULL)
    status = bitcc_try(node, gpu->driver, cuDeviceGetName, name, (int)sizeof name, device);
  if (status != NULL)
    return status;
  const bitcc_cuda_image *image = bitcc_choose_image(10 * major + minor);
  if (image != NULL)
    return bitcc_try(node, gpu->driver, cuModuleLoadData, &gpu->module, image->begin);
  bitcc_list_images(images, sizeof images, "");
  return bitcc_node_error(node, "this library has no code for %s, which is sm_%d%d; it has: %s",
                          name, major, minor, images);
}

static OrtStatus *find_functions(const bitcc_node *node, bitcc_gpu *gpu) {
  OrtStatus *status = NULL;
  for (int f = 0; f < BITCC_CUDA_FAMILIES; f++)
    for (int e = 0; status == NULL && e < BITCC_CUDA_ELEMENTS; e++)
      status = bitcc_try(node, gpu->driver, cuModuleGetFunction, &gpu->functions[f][e],
                         gpu->module, bitcc_cuda_kernels[f][e].name);
  return status;
}

static OrtStatus *count_processors(const bitcc_node *node, bitcc_gpu *gpu, CUdevice device) {
  OrtStatus *status = bitcc_try(node, gpu->driver, cuDeviceGetAttribute, &gpu->processors,
                                CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
  if (status == NULL && gpu->processors < 1)
    return bitcc_node_error(node, "the driver says that the GPU has %d SMs", gpu->processors);
  return status;
}

/* Memory of calls comes from a pool of the library's own, which keeps what it once had. */
static OrtStatus *make_pool(const bitcc_node *node, bitcc_gpu *gpu, CUdevice device) {
  int has_pools = 0;
  uint64_t kept = UINT64_MAX;
  CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                               .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
  OrtStatus *status = bitcc_try(node, gpu->driver, cuDeviceGetAttribute, &has_pools,
                                CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device);
  if (status != NULL || !has_pools)
    return status;
  status = bitcc_try(node, gpu->driver, cuMemPoolCreate, &gpu->pool, &properties);
  if (status == NULL)
    status = bitcc_try(node, gpu->driver, cuMemPoolSetAttribute, gpu->pool,
                       CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &kept);
  return status;
}

/* What fails here has nowhere to be told, and what can be given back is. */
static void unload(bitcc_gpu *gpu) {
  gpu->driver->cuCtxSynchronize(); /* nothing may still run */
  if (gpu->pool != NULL)
    gpu->driver->cuMemPoolDestroy(gpu->pool);
  if (gpu->module != NULL)
    gpu->driver->cuModuleUnload(gpu->module);
}

static OrtStatus *load(const bitcc_node *node, CUcontext context, bitcc_gpu **out) {
  CUdevice device = 0;
  bitcc_gpu *gpu = calloc(1, sizeof *gpu);
  if (gpu == NULL)
    return bitcc_node_error(node, "out of memory for %d kernels", BITCC_CUDA_FAMILIES);
  gpu->driver = &known.driver;
  gpu->context = context;
  OrtStatus *status = bitcc_try(node, gpu->driver, cuCtxGetDevice, &device);
  if (status == NULL)
    status = count_processors(node, gpu, device);
  if (status == NULL)
    status = load_image(node, gpu, device);
  if (status == NULL)
    status = find_functions(node, gpu);
  if (status == NULL)
    status = make_pool(node, gpu, device);
  if (status == NULL)
    status = bitcc_gpu_self_test(node, gpu);
  if (status != NULL) {
    unload(gpu);
    free(gpu);
    return status;
  }
  *out = gpu;
  return NULL;
}

static OrtStatus *find_or_load(const bitcc_node *node, bitcc_gpu **out) {
  CUcontext context = NULL;
  OrtStatus *status = known.is_open ? NULL : bitcc_open_driver(node, &known.driver);
  known.is_open = status == NULL;
  if (status == NULL)
    status = bitcc_try(node, &known.driver, cuCtxGetCurrent, &context);
  if (status != NULL)
    return status;
  if (context == NULL)
    return bitcc_node_error(node, "%s", "no CUDA context is current where the session is made");
  bitcc_gpu *gpu = known.first;
  while (gpu != NULL && gpu->context != context)
    gpu = gpu->next;
  if (gpu == NULL) {
    status = load(node, context, &gpu);
    if (status != NULL)
      return status;
    gpu->next = known.first;
    known.first = gpu;
  }
  gpu->nodes++;
  *out = gpu;
  return NULL;
}

OrtStatus *bitcc_take_gpu(const bitcc_node *node, bitcc_gpu **out) {
  pthread_mutex_lock(&known.lock);
  OrtStatus *status = find_or_load(node, out);
  pthread_mutex_unlock(&known.lock);
  return status;
}

static void forget(bitcc_gpu *gpu) {
  bitcc_gpu **link = &known.first;
  while (*link != gpu)
    link = &(*link)->next;
  *link = gpu->next;
  CUresult entered = gpu->driver->cuCtxPushCurrent(gpu->context);
  unload(gpu);
  if (entered == 0)
    gpu->driver->cuCtxPopCurrent(&gpu->context);
  free(gpu);
}

void bitcc_give_gpu(bitcc_gpu *gpu) {
  pthread_mutex_lock(&known.lock);
  if (--gpu->nodes == 0)
    forget(gpu);
  pthread_mutex_unlock(&known.lock);
}

OrtStatus *bitcc_enter_gpu(const bitcc_node *node, const bitcc_gpu *gpu) {
  return bitcc_try(node, gpu->driver, cuCtxPushCurrent, gpu->context);
}

OrtStatus *bitcc_leave_gpu(const bitcc_node *node, const bitcc_gpu *gpu) {
  CUcontext left;
  return bitcc_try(node, gpu->driver, cuCtxPopCurrent, &left);
}
