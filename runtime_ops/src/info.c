#include <stdio.h>

#include "library.h"

#ifndef BITCC_VERSION
#error "build with -DBITCC_VERSION=\"1.2.3\""
#endif

BITCC_EXPORT size_t bitcc_library_info(char *out, size_t size);

/* What a library for GPUs says more. */
static void list_images(char *out, size_t size) {
#if defined(BITCC_CUDA)
  char names[192];
  bitcc_list_images(names, sizeof names, "\"");
  snprintf(out, size, ",\"gpus\":[%s]", names);
#else
  (void)size;
  out[0] = '\0';
#endif
}

/* JSON about this library on this machine, in at most `size` bytes with the zero at its end; how
 * long all of it is. No state is kept, so that a changed BITCC_ISA shows. */
size_t bitcc_library_info(char *out, size_t size) {
  char variants[256], features[256], images[256], selected[64] = "null", wrong[128] = "";
  bitcc_choice choice = bitcc_choose();
  if (choice.kernels != NULL)
    snprintf(selected, sizeof selected, "\"%s\"", choice.kernels->isa);
  if (choice.wrong != NULL)
    snprintf(wrong, sizeof wrong, "\"%s\":\"%s\"", choice.wrong->isa, choice.family);
  bitcc_list_variants(variants, sizeof variants, bitcc_variants, UINT64_MAX, "\"");
  list_images(images, sizeof images);
  bitcc_list_features(features, sizeof features, bitcc_cpu_features(), "\"");
  return (size_t)snprintf(
      out, size,
      "{\"bitcc\":\"%s\",\"weight_formats\":{\"t2\":%d,\"t5\":%d},\"variants\":[%s],"
      "\"selected\":%s,\"wrong\":{%s},\"cpu\":[%s]%s}",
      BITCC_VERSION, BITCC_LAYOUT_VERSION, BITCC_T5_LAYOUT_VERSION, variants, selected, wrong,
      features, images);
}
