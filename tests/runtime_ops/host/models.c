/* Tensors, nodes, and how to run one. */
#include "host.h"

static uint32_t next(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

static size_t width(OrtElementType type) {
  return type == ORT_FLOAT ? 4 : type == ORT_UINT8 ? 1 : 2;
}

OrtValue *new_value(OrtElementType type, size_t rank, const int64_t *dims, size_t shift) {
  OrtValue *value = memory(sizeof *value);
  double count = 1;
  value->info = (OrtTensorTypeAndShapeInfo){.type = type, .rank = rank};
  for (size_t i = 0; i < rank; i++) {
    value->info.dims[i] = dims[i];
    count *= (double)dims[i];
  }
  value->bytes = count > 0 && count < 1e8 ? (size_t)count * width(type) : 0;
  value->block = memory(value->bytes + shift);
  value->data = value->block + shift;
  return value;
}

void free_value(OrtValue *value) {
  if (value != NULL)
    free(value->block);
  free(value);
}

/* Whole numbers and powers of two: float sums are exact in any order, and so the same everywhere.
 */
static void fill(OrtValue *value, uint32_t seed, float lowest, float step, uint32_t mask) {
  uint32_t state = seed;
  for (size_t i = 0; i < value->bytes / width(value->info.type); i++) {
    float number = lowest + step * (float)(next(&state) & mask);
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint16_t bfloat16 = (uint16_t)(bits >> 16);
    /* of zero and normal numbers, which is what there is */
    uint32_t magnitude = number == 0.0f ? 0 : ((bits & 0x7fffffffu) >> 13) - (112u << 10);
    uint16_t half = (uint16_t)((bits >> 16 & 0x8000u) | magnitude);
    if (value->info.type == ORT_FLOAT)
      memcpy(value->data + 4 * i, &number, 4);
    else
      memcpy(value->data + 2 * i, value->info.type == ORT_FLOAT16 ? &half : &bfloat16, 2);
  }
}

static const OrtElementType types[] = {ORT_FLOAT, ORT_FLOAT16, ORT_BFLOAT16};

static int64_t tiles(int64_t n) { return (n + 15) / 16; }
static int64_t vectors(const layer *l) {
  return l->t5 ? (l->k + 19) / 20 : (l->k + 63) / 64 * 4;
}

OrtKernelInfo *new_node(const layer *l) {
  bool ternary = l->op >= TERNARY;
  OrtKernelInfo *node = memory(sizeof *node);
  *node = (OrtKernelInfo){
      .attributes = {{.name = "K", .kind = 'i', .i = l->k},
                     {.name = "N", .kind = 'i', .i = l->n},
                     {.name = "layout_version", .kind = 'i', .i = 1},
                     {.name = "weight_format", .kind = 's', .s = "t2"},
                     {.name = "group_size", .kind = 'i', .i = l->group},
                     {.name = "act_scale", .kind = 'i', .i = l->scale},
                     {.name = "act_scope", .kind = 'i', .i = l->scope},
                     {.name = "act_type", .kind = 'i', .i = l->type},
                     {.name = "bias_before_scale", .kind = 'i', .i = l->bias_first},
                     {.name = "norm", .kind = 'i', .i = l->norm},
                     {.name = "act_floor", .kind = 'f', .f = 1e-5f},
                     {.name = "act_eps", .kind = 'f', .f = 0.0f},
                     {.name = "qmax", .kind = 'f', .f = 127.0f},
                     {.name = "act_min", .kind = 'f', .f = -128.0f},
                     {.name = "act_max", .kind = 'f', .f = 127.0f},
                     {.name = "norm_eps", .kind = 'f', .f = 1e-6f}}};
  if (l->t5)
    node->attributes[3].s[1] = '5';
  int64_t rows = l->per_row ? l->n : 1, groups = ternary ? (l->k + l->group - 1) / l->group : 0;
  int64_t w[] = {tiles(l->n), vectors(l), 64}, scale[] = {ternary ? groups : rows, rows},
          gain = l->norm && l->per_row ? l->k : 1;
  node->inputs[1] = new_value(ORT_UINT8, 3, w, 1);
  node->inputs[2] = new_value(ORT_FLOAT, ternary ? 2 : 1, scale, 1);
  node->inputs[3] = new_value(ORT_FLOAT, 1, &rows, 3);
  node->inputs[4] = new_value(ORT_FLOAT, 1, &gain, 2);
  uint32_t state = 1;
  for (size_t i = 0; i < node->inputs[1]->bytes; i++) /* any byte, those of no weights too */
    node->inputs[1]->data[i] = (char)next(&state);
  fill(node->inputs[2], 2, 0.5f, 0.5f, 1);
  fill(node->inputs[3], 3, -4.0f, 0.5f, 15);
  fill(node->inputs[4], 4, 1.0f, l->norm ? 0.5f : 0.0f, 3);
  for (size_t i = 1; i < INPUTS; i++)
    node->constant[i] = l->constant;
  return node;
}

void free_node(OrtKernelInfo *node) {
  for (size_t i = 0; i < INPUTS; i++)
    free_value(node->inputs[i]);
  free(node);
}

OrtValue *new_x(const layer *l, int64_t tokens) {
  int64_t dims[] = {tokens, l->k};
  OrtValue *x = new_value(types[l->op % TERNARY], 2, dims, 0);
  fill(x, 5 + (uint32_t)tokens, -16.0f, 1.0f, 31);
  return x;
}

const OrtCustomOp **ops;

void open_library(void) {
  static OrtSessionOptions options; /* what is registered stays for ever */
  OrtStatus *status = RegisterCustomOps(&options, &base);
  if (status != NULL)
    die("%s", status->message);
  ops = options.domain->ops;
}

uint64_t hash(const OrtValue *value) {
  uint64_t h = 14695981039346656037u;
  for (size_t i = 0; i < value->bytes; i++)
    h = (h ^ (unsigned char)value->data[i]) * 1099511628211u;
  return h;
}

/* Y of a kernel, NULL with *status set. */
OrtValue *compute(const layer *l, void *kernel, const OrtKernelInfo *node, OrtValue *x,
                  int threads, OrtStatus **status) {
  OrtKernelContext call = {.output = NULL, .threads = threads};
  memcpy(call.inputs, node->inputs, sizeof call.inputs);
  call.inputs[0] = x;
  *status = ops[l->op]->KernelComputeV2(kernel, &call);
  if (*status == NULL)
    return call.output;
  free_value(call.output);
  return NULL;
}

/* Make a kernel, infer a shape, run, destroy. What comes of it is a result or one error. */
OrtStatus *run_once(const layer *l, OrtKernelInfo *node, OrtValue *x, OrtValue **y) {
  void *kernel = NULL;
  OrtShapeInferContext shapes = {.node = node, .x = x->info};
  *y = NULL;
  OrtStatus *status = ops[l->op]->InferOutputShapeFn(ops[l->op], &shapes);
  if (status == NULL)
    status = ops[l->op]->CreateKernelV2(ops[l->op], &api, node, &kernel);
  if (status != NULL)
    return status;
  *y = compute(l, kernel, node, x, 1, &status);
  ops[l->op]->KernelDestroy(kernel);
  return status;
}
