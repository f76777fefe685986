/* An honest host with a wrong model: whatever the library says, it must not touch what is not
 * there. */
#include <math.h>

#include "host.h"

typedef struct {
  int refused, accepted;
} tally;

static void try_model(const layer *l, OrtKernelInfo *node, OrtValue *x, tally *count) {
  OrtValue *y;
  OrtStatus *status = run_once(l, node, x, &y);
  ++*(status != NULL ? &count->refused : &count->accepted);
  release_status(status);
  free_value(y);
  free_value(x);
  free_node(node);
}

/* Every attribute with numbers and words of all sizes, missing, and of another type. */
static void change_attributes(const layer *l, tally *count) {
  static const int64_t ints[] = {INT64_MIN, INT32_MIN, -1,    0,         1,        2,
                                 16,        17,        65537, INT32_MAX, 1l << 40, INT64_MAX};
  static const float floats[] = {-INFINITY, -1e30f, -1.0f, 0.0f,     0.5f,
                                 1.0f,      127.0f, 1e30f, INFINITY, NAN};
  static const char letters[] = "t2 and so many other letters that no format has such a name";
  enum { VALUES = 12, MISSING = 2 * VALUES, ANOTHER_TYPE, CASES };
  for (size_t a = 0; a < ATTRIBUTES; a++)
    for (int i = 0; i < CASES; i++) {
      OrtKernelInfo *node = new_node(l);
      OrtOpAttr *changed = &node->attributes[a];
      changed->i = ints[i % VALUES];
      changed->f = floats[i % 10];
      snprintf(changed->s, sizeof changed->s, "%.*s%.*s", i < VALUES ? i : 59, letters,
               i == VALUES ? 20 : 0, letters);
      if (i == MISSING)
        changed->kind = '\0';
      if (i == ANOTHER_TYPE)
        changed->kind = changed->kind == 'i' ? 'f' : 'i';
      try_model(l, node, new_x(l, 3), count);
    }
}

static OrtValue *new_zeros(OrtElementType type, size_t rank, int64_t size) {
  int64_t dims[RANK];
  for (size_t i = 0; i < RANK; i++)
    dims[i] = i % 2 == 0 ? size : 1;
  OrtValue *value = new_value(type, rank, dims, 0);
  memset(value->data, 0, value->bytes);
  return value;
}

/* Every input with all ranks and sizes, of its type and of another, and missing. */
static void change_inputs(layer l, tally *count) {
  static const size_t ranks[] = {0, 1, 2, 3, 4, 33};
  static const int64_t sizes[] = {0, 1, 2, 19, 70, INT64_MAX / 3};
  enum { CASES = 2 * 6 * 6, MISSING = CASES };
  for (size_t input = 0; input < INPUTS; input++)
    for (int i = 0; i <= (input == 0 ? CASES - 1 : MISSING); i++) {
      l.constant = i % 2 == 0;
      OrtKernelInfo *node = new_node(&l);
      OrtValue *x = new_x(&l, 3), **changed = input == 0 ? &x : &node->inputs[input];
      OrtElementType type = i % 7 == 6 ? ORT_UNDEFINED : (*changed)->info.type;
      free_value(*changed);
      *changed = i == MISSING ? NULL : new_zeros(type, ranks[i / 2 % 6], sizes[i / 12]);
      try_model(&l, node, x, count);
    }
}

void refusals(void) {
  tally count = {0, 0};
  for (int op = 0; op < OPS; op += TERNARY) {
    layer l = {.op = op, .n = 20, .k = 70, .group = 70, .type = ORT_FLOAT, .per_row = true};
    l.constant = true;
    change_attributes(&l, &count);
    change_inputs(l, &count);
  }
  OrtSessionOptions options = {NULL};
  OrtStatus *status = RegisterCustomOps(&options, &old_base);
  if (status == NULL)
    die("an onnxruntime that is too old was accepted");
  release_status(status);
  printf("%d refused, %d accepted\n", count.refused, count.accepted);
  if (count.refused < 300 || count.accepted < 50)
    die("that is too few of either");
}
