/* A library that shows the tables of cuda.h, which the op library keeps to itself. */
#include "bitcc/cuda.h"

__attribute__((visibility("default"))) const bitcc_cuda_image *shown_images(void) {
  return bitcc_cuda_images;
}

__attribute__((visibility("default"))) const bitcc_cuda_kernel *shown_kernel(int family, int element) {
  return &bitcc_cuda_kernels[family][element];
}
