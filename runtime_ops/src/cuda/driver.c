/* NVIDIA's driver, found at run time. */
#include <dlfcn.h>
#include <string.h>

#include "gpu.h"

static const char file[] = "libcuda.so.1";

OrtStatus *bitcc_open_driver(const bitcc_node *node, bitcc_cuda_driver *out) {
  static const struct {
    const char *symbol;
    size_t offset;
  } functions[] = {
#define BITCC_CUDA_ENTRY(name, symbol, parameters) {symbol, offsetof(bitcc_cuda_driver, name)},
      BITCC_CUDA_FUNCTIONS(BITCC_CUDA_ENTRY)
#undef BITCC_CUDA_ENTRY
  };
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL); /* for ever: drivers do not like to leave */
  if (library == NULL)
    return bitcc_node_error(node, "%s, which comes with NVIDIA's driver, cannot be loaded: %s",
                            file, dlerror());
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    void *found = dlsym(library, functions[i].symbol);
    if (found == NULL)
      return bitcc_node_error(node, "%s has no %s: NVIDIA's driver is older than for CUDA 11.2",
                              file, functions[i].symbol);
    memcpy((char *)out + functions[i].offset, &found, sizeof found);
  }
  return bitcc_try(node, out, cuInit, 0);
}

OrtStatus *bitcc_driver_status(const bitcc_node *node, const bitcc_cuda_driver *driver,
                               const char *function, CUresult result) {
  const char *words = NULL;
  if (result == 0)
    return NULL;
  if (driver->cuGetErrorString(result, &words) != 0 || words == NULL)
    words = "an error that the driver has no words for";
  return bitcc_error(node->api, ORT_FAIL, "bitcc::%s `%s`: %s: %s (CUDA error %d)",
                     node->kind->name, node->name, function, words, result);
}

OrtStatus *bitcc_first(const bitcc_node *node, OrtStatus *first, OrtStatus *second) {
  if (first == NULL)
    return second;
  if (second != NULL)
    node->api->ReleaseStatus(second);
  return first;
}
