/* The op structs: what onnxruntime asks about an op before it makes a kernel. */
#include "layer.h"

enum { INPUT_X, INPUT_W };

static const char *name(const OrtCustomOp *op) { return ((const bitcc_op *)op)->kind->name; }

static const char *cpu_provider(const OrtCustomOp *op) {
  (void)op;
  return NULL;
}

static size_t input_count(const OrtCustomOp *op) {
  return 1 + ((const bitcc_op *)op)->kind->weights;
}

static size_t output_count(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static OrtElementType output_type(const OrtCustomOp *op, size_t index) {
  (void)index;
  return ((const bitcc_op *)op)->x_type;
}

static OrtElementType input_type(const OrtCustomOp *op, size_t index) {
  if (index == INPUT_X)
    return output_type(op, 0);
  return index == INPUT_W ? ORT_UINT8 : ORT_FLOAT;
}

static OrtCharacteristic required(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ORT_REQUIRED;
}

static OrtMemType default_memory(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ORT_MEMORY_DEFAULT;
}

static int one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static const OrtCustomOp callbacks = {
    .version = BITCC_ORT_API_VERSION,
    .GetName = name,
    .GetExecutionProviderType = cpu_provider,
    .GetInputType = input_type,
    .GetInputTypeCount = input_count,
    .GetOutputType = output_type,
    .GetOutputTypeCount = output_count,
    .KernelDestroy = bitcc_destroy_node,
    .GetInputCharacteristic = required,
    .GetOutputCharacteristic = required,
    .GetInputMemoryType = default_memory,
    .GetVariadicInputMinArity = one,
    .GetVariadicInputHomogeneity = one,
    .GetVariadicOutputMinArity = one,
    .GetVariadicOutputHomogeneity = one,
    .CreateKernelV2 = bitcc_create_node,
    .KernelComputeV2 = bitcc_compute,
    .InferOutputShapeFn = bitcc_infer_shape,
    .GetStartVersion = one,
    .GetEndVersion = one,
};

void bitcc_fill_ops(bitcc_op ops[BITCC_CPU_OPS], const OrtApi *api, const bitcc_kernels *kernels) {
  static const bitcc_kind *const kinds[] = {&bitcc_bit_linear, &bitcc_ternary_linear};
  static const OrtElementType types[] = {ORT_FLOAT, ORT_FLOAT16, ORT_BFLOAT16};
  static_assert(sizeof kinds / sizeof kinds[0] * (sizeof types / sizeof types[0]) == BITCC_CPU_OPS,
                "all kinds for all types");
  for (size_t i = 0; i < BITCC_CPU_OPS; i++)
    ops[i] = (bitcc_op){.base = callbacks,
                        .x_type = types[i % 3],
                        .api = api,
                        .kernels = kernels,
                        .kind = kinds[i / 3]};
}
