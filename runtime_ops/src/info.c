#include <stdio.h>
#include <stdlib.h>

#include "library.h"

#ifndef BITCC_VERSION
#error "build with -DBITCC_VERSION=\"1.2.3\""
#endif

BITCC_EXPORT const char *bitcc_library_info(void);

/* JSON about this library on this machine. The text belongs to the calling thread and is good
 * until its next call: no state is shared, and a changed BITCC_ISA shows. */
const char *bitcc_library_info(void) {
  static _Thread_local char json[1024];
  char variants[256], features[256], selected[64] = "null";
  uint64_t cpu = bitcc_cpu_features();
  const char *error;
  const bitcc_kernels *kernels = bitcc_select(bitcc_variants, cpu, getenv("BITCC_ISA"), &error);
  if (kernels != NULL)
    snprintf(selected, sizeof selected, "\"%s\"", kernels->isa);
  bitcc_list_variants(variants, sizeof variants, bitcc_variants, UINT64_MAX, "\"");
  bitcc_list_features(features, sizeof features, cpu, "\"");
  snprintf(json, sizeof json,
           "{\"bitcc\":\"%s\",\"weight_formats\":{\"t2\":%d},\"variants\":[%s],\"selected\":%s,"
           "\"cpu\":[%s]}",
           BITCC_VERSION, BITCC_LAYOUT_VERSION, variants, selected, features);
  return json;
}
