#include <stdio.h>

#include "library.h"

#ifndef BITCC_VERSION
#error "build with -DBITCC_VERSION=\"1.2.3\""
#endif

BITCC_EXPORT const char *bitcc_library_info(void);

/* JSON about this library on this machine. The text belongs to the calling thread and is good
 * until its next call: no state is shared, and a changed BITCC_ISA shows. */
const char *bitcc_library_info(void) {
  static _Thread_local char json[1024];
  char variants[256], features[256], selected[64] = "null", wrong[128] = "";
  bitcc_choice choice = bitcc_choose();
  if (choice.kernels != NULL)
    snprintf(selected, sizeof selected, "\"%s\"", choice.kernels->isa);
  if (choice.wrong != NULL)
    snprintf(wrong, sizeof wrong, "\"%s\":\"%s\"", choice.wrong->isa, choice.family);
  bitcc_list_variants(variants, sizeof variants, bitcc_variants, UINT64_MAX, "\"");
  bitcc_list_features(features, sizeof features, bitcc_cpu_features(), "\"");
  snprintf(json, sizeof json,
           "{\"bitcc\":\"%s\",\"weight_formats\":{\"t2\":%d},\"variants\":[%s],\"selected\":%s,"
           "\"wrong\":{%s},\"cpu\":[%s]}",
           BITCC_VERSION, BITCC_LAYOUT_VERSION, variants, selected, wrong, features);
  return json;
}
