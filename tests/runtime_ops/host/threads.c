/* Several threads in one node. */
#include <pthread.h>

#include "host.h"

typedef struct {
  const layer *layer;
  void *kernel;
  const OrtKernelInfo *node;
  int64_t tokens;
  uint64_t expected;
} work;

static void *repeat(void *argument) {
  const work *w = argument;
  OrtStatus *status;
  OrtValue *x = new_x(w->layer, w->tokens);
  for (int i = 0; i < 20; i++) {
    OrtValue *y = compute(w->layer, w->kernel, w->node, x, 3, &status);
    if (status != NULL || hash(y) != w->expected)
      die("%" PRId64 " tokens in a thread: another result", w->tokens);
    free_value(y);
  }
  free_value(x);
  return NULL;
}

void threads(void) {
  enum { COUNT = 4 };
  static const int64_t tokens[COUNT] = {1, 3, 17, 70};
  for (int op = 0; op < OPS; op++) {
    layer l = {.op = op,
               .n = 300,
               .k = 700,
               .group = 700,
               .type = ORT_FLOAT,
               .scope = op % 2,
               .per_row = true,
               .constant = op != 1};
    OrtKernelInfo *node = new_node(&l);
    pthread_t runners[COUNT];
    work works[COUNT];
    void *kernel;
    OrtStatus *status = ops[op]->CreateKernelV2(ops[op], &api, node, &kernel);
    for (int i = 0; i < COUNT && status == NULL; i++) {
      OrtValue *x = new_x(&l, tokens[i]), *y = compute(&l, kernel, node, x, 1, &status);
      works[i] = (work){&l, kernel, node, tokens[i], y == NULL ? 0 : hash(y)};
      free_value(x);
      free_value(y);
    }
    if (status != NULL)
      die("%s", status->message);
    for (int i = 0; i < COUNT; i++)
      if (pthread_create(&runners[i], NULL, repeat, &works[i]) != 0)
        die("no thread");
    for (int i = 0; i < COUNT; i++)
      pthread_join(runners[i], NULL);
    ops[op]->KernelDestroy(kernel);
    free_node(node);
  }
}

static int shared; /* by the two threads of `race` */

static void *count_up(void *argument) {
  (void)argument;
  for (int i = 0; i < 1000; i++)
    ++*(volatile int *)&shared;
  return NULL;
}

void race(void) {
  pthread_t other;
  if (pthread_create(&other, NULL, count_up, NULL) != 0)
    die("no thread");
  count_up(NULL);
  pthread_join(other, NULL);
}
