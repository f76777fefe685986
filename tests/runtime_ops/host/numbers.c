/* Results of all ops, over all types and attributes, in few and many tokens. */
#include "host.h"

static void print_numbers(const layer *l, int64_t tokens) {
  OrtKernelInfo *node = new_node(l);
  OrtValue *x = new_x(l, tokens), *y;
  OrtStatus *status = run_once(l, node, x, &y);
  if (status != NULL)
    die("%s", status->message);
  printf("%d %" PRId64 " x %" PRId64 " group %" PRId64 " attributes %d%d%d%d%d tokens %" PRId64
         ": %016" PRIx64 "\n",
         l->op, l->n, l->k, l->group, (int)l->scale, (int)l->scope, (int)l->type,
         (int)l->bias_first, (int)l->norm, tokens, hash(y));
  free_value(y);
  free_value(x);
  free_node(node);
}

static const int64_t shapes[][2] = {{1, 1}, {35, 130}, {127, 61}, {16, 64}, {83, 197}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void print_few_and_many(const layer *l) {
  static const int64_t tokens[] = {0, 1, 2, 5, 6, 7, 16, 65};
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
    print_numbers(l, tokens[i]);
}

/* Every combination of attributes. */
static void bit_linear(void) {
  static const int64_t act_types[] = {ORT_FLOAT, ORT_FLOAT16, ORT_BFLOAT16};
  for (int i = 0; i < 3 * 3 * 2 * 3 * 2 * 2; i++) {
    layer l = {.op = i % 3, .n = shapes[i % SHAPES][0], .k = shapes[i % SHAPES][1]};
    l.scale = i / 3 % 3;
    l.scope = i / 9 % 2;
    l.type = act_types[i / 18 % 3];
    l.bias_first = i / 54 % 2;
    l.norm = i / 108 % 2;
    l.per_row = i % 4 != 0;
    l.constant = i % 5 != 0;
    l.t5 = i / 5 % 3 == 0;
    print_few_and_many(&l);
  }
}

static void ternary_linear(void) {
  for (int i = 0; i < 3 * 3 * SHAPES; i++) {
    layer l = {.op = TERNARY + i % 3, .n = shapes[i / 9][0], .k = shapes[i / 9][1]};
    int64_t groups[] = {l.k, 16, 48};
    l.group = groups[i / 3 % 3] < l.k ? groups[i / 3 % 3] : l.k;
    l.per_row = i % 2 == 0;
    l.constant = i % 4 != 0;
    print_few_and_many(&l);
  }
}

/* Several chunks, bands and tasks. */
static void large(int op) {
  layer wide = {.op = op, .n = 3, .k = 20011, .group = 20011, .type = ORT_FLOAT};
  layer tall = {.op = op, .n = 4099, .k = 257, .group = 257, .type = ORT_FLOAT};
  layer both = {.op = op, .n = 270, .k = 4100, .group = 4100, .type = ORT_FLOAT};
  wide.scope = op % 2;
  wide.norm = op % 3 == 1;
  wide.constant = tall.constant = tall.per_row = both.constant = true;
  print_numbers(&wide, 107);
  print_numbers(&tall, 1);
  print_numbers(&tall, 11);
  print_numbers(&both, 31);
  wide.t5 = both.t5 = op < TERNARY;
  print_numbers(&wide, 107);
  print_numbers(&both, 31);
}

void numbers(void) {
  bit_linear();
  ternary_linear();
  for (int op = 0; op < OPS; op++)
    large(op);
}
