/* The tables of images and kernels, from the lists that the build wrote. */
#include <stddef.h>
#include <stdio.h>

#include "gpu.h"

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

const bitcc_cuda_image *bitcc_choose_image(int32_t capability) {
  const bitcc_cuda_image *best = NULL;
  for (const bitcc_cuda_image *image = bitcc_cuda_images; image->begin != NULL; image++) {
    bool runs = image->capability <= capability &&
                (image->ptx || image->capability / 10 == capability / 10);
    /* machine code before PTX, which the driver has to compile; else what is nearest */
    if (runs && (best == NULL || (best->ptx && !image->ptx) ||
                 (best->ptx == image->ptx && image->capability > best->capability)))
      best = image;
  }
  return best;
}

void bitcc_list_images(char *out, size_t size, const char *quote) {
  size_t used = 0;
  out[0] = '\0';
  for (const bitcc_cuda_image *image = bitcc_cuda_images; image->begin != NULL && used < size;
       image++)
    used += (size_t)snprintf(out + used, size - used, "%s%s%s_%d%s", used == 0 ? "" : ",", quote,
                             image->ptx ? "compute" : "sm", image->capability, quote);
}
