/* A host that fails once, at each place after the other: an error, and nothing left behind. */
#include "host.h"

void faults(void) {
  static const layer layers[] = {
      {.op = 0, .n = 20, .k = 70, .type = ORT_FLOAT, .constant = true},
      {.op = 1, .n = 20, .k = 70, .type = ORT_FLOAT16, .scope = 1, .norm = 1, .per_row = true},
      {.op = 2, .n = 700, .k = 900, .type = ORT_FLOAT, .constant = true}, /* in several tasks */
      {.op = 2, .n = 700, .k = 900, .type = ORT_FLOAT, .constant = true, .t5 = true},
      {.op = 3, .n = 20, .k = 70, .group = 32, .constant = true},
      {.op = 4, .n = 700, .k = 900, .group = 900, .per_row = true},
  };
  long count = 0;
  for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
    const layer *l = &layers[i];
    OrtKernelInfo *node = new_node(l);
    OrtValue *x = new_x(l, 40), *y;
    /* not counted with t5, which some variants expand */
    for (long at = 1;; at++, count += l->t5 ? 0 : 1) {
      atomic_store(&until_fault, at);
      OrtStatus *status = run_once(l, node, x, &y);
      bool fired = atomic_exchange(&until_fault, -1) <= 0;
      bool is_error = status != NULL;
      release_status(status);
      free_value(y);
      check_nothing_lives("after a fault");
      if (!fired && !is_error)
        break;
      /* shape inference may do without what it could not read */
      if (!fired || (!is_error && at > 16))
        die("layer %zu, fault %ld: %s", i, at, fired ? "no error" : "an error without a fault");
    }
    free_value(x);
    free_node(node);
  }
  for (long at = 1;; at++, count++) {
    static OrtSessionOptions options;
    atomic_store(&until_fault, at);
    OrtStatus *status = RegisterCustomOps(&options, &base);
    bool fired = atomic_exchange(&until_fault, -1) <= 0;
    if (fired != (status != NULL))
      die("registration, fault %ld: %s", at, fired ? "no error" : "an error without a fault");
    release_status(status);
    if (!fired)
      break;
  }
  printf("%ld faults\n", count);
}
