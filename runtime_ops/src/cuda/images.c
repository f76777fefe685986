/* The tables of images and kernels, from the lists that the build wrote. */
#include <stddef.h>

#include "bitcc/cuda.h"

#define BITCC_CUDA_KERNEL(family, element, threads, rows, tokens)
#define BITCC_CUDA_IMAGE(capability, ptx, symbol)                                                 \
  extern const unsigned char symbol##_begin[], symbol##_end[];
#include "cuda.inc"
#undef BITCC_CUDA_IMAGE

const bitcc_cuda_image bitcc_cuda_images[] = {
#define BITCC_CUDA_IMAGE(capability, ptx, symbol) {capability, ptx, symbol##_begin, symbol##_end},
#include "cuda.inc"
#undef BITCC_CUDA_IMAGE
    {.begin = NULL},
};
#undef BITCC_CUDA_KERNEL

const bitcc_cuda_kernel bitcc_cuda_kernels[BITCC_CUDA_FAMILIES][BITCC_CUDA_ELEMENTS] = {
#define BITCC_CUDA_IMAGE(capability, ptx, symbol)
#define BITCC_CUDA_KERNEL(family, element, threads, rows, tokens)                                 \
  [BITCC_CUDA_##family][BITCC_CUDA_##element] = {"bitcc_" #family "_" #element, threads, rows,    \
                                                 tokens},
#include "cuda.inc"
#undef BITCC_CUDA_KERNEL
#undef BITCC_CUDA_IMAGE
};
