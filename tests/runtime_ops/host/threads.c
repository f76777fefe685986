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

static void *new_kernel(const layer *l, const OrtKernelInfo *node) {
  void *kernel;
  OrtStatus *status = ops[l->op]->CreateKernelV2(ops[l->op], &api, node, &kernel);
  if (status != NULL)
    die("%s", status->message);
  return kernel;
}

/* What a kernel finds out in its first call, these threads find out at the same time. */
static void start_together(const layer *l) {
  enum { COUNT = 4 };
  static const int64_t tokens[COUNT] = {1, 3, 17, 70};
  OrtKernelInfo *node = new_node(l);
  void *kernel = new_kernel(l, node);
  pthread_t runners[COUNT];
  work works[COUNT];
  OrtStatus *status = NULL;
  for (int i = 0; i < COUNT && status == NULL; i++) {
    OrtValue *x = new_x(l, tokens[i]), *y = compute(l, kernel, node, x, 1, &status);
    works[i] = (work){l, kernel, node, tokens[i], y == NULL ? 0 : hash(y)};
    free_value(x);
    free_value(y);
  }
  if (status != NULL)
    die("%s", status->message);
  ops[l->op]->KernelDestroy(kernel);
  kernel = new_kernel(l, node);
  for (int i = 0; i < COUNT; i++) {
    works[i].kernel = kernel;
    if (pthread_create(&runners[i], NULL, repeat, &works[i]) != 0)
      die("no thread");
  }
  for (int i = 0; i < COUNT; i++)
    pthread_join(runners[i], NULL);
  ops[l->op]->KernelDestroy(kernel);
  free_node(node);
}

void threads(void) {
  for (int op = 0; op < OPS; op++) {
    layer l = {.op = op,
               .n = 300,
               .k = 700,
               .group = 700,
               .type = ORT_FLOAT,
               .scope = op % 2,
               .per_row = true,
               .constant = op != 1};
    start_together(&l);
    l.t5 = op < TERNARY;
    if (l.t5)
      start_together(&l);
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
