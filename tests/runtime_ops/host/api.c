/* The part of onnxruntime's C API that the library uses. */
#include <pthread.h>

#include "host.h"

#define MAY_FAIL                                                                                  \
  if (fails())                                                                                    \
  return create_status(ORT_FAIL, __func__)

static OrtTensorTypeAndShapeInfo *new_info(void) {
  OrtTensorTypeAndShapeInfo *info = memory(sizeof *info);
  atomic_fetch_add(&live_infos, 1);
  return info;
}

static void release_info(OrtTensorTypeAndShapeInfo *info) {
  atomic_fetch_sub(&live_infos, info != NULL);
  free(info);
}

static OrtStatus *create_info(OrtTensorTypeAndShapeInfo **out) {
  MAY_FAIL;
  *out = new_info();
  return NULL;
}

static OrtStatus *set_type(OrtTensorTypeAndShapeInfo *info, OrtElementType type) {
  MAY_FAIL;
  info->type = type;
  return NULL;
}

static OrtStatus *set_dimensions(OrtTensorTypeAndShapeInfo *info, const int64_t *dims,
                                 size_t rank) {
  MAY_FAIL;
  info->rank = rank;
  memcpy(info->dims, dims, rank * sizeof *dims);
  return NULL;
}

static OrtStatus *set_symbols(OrtTensorTypeAndShapeInfo *info, const char **symbols, size_t rank) {
  (void)info, (void)symbols, (void)rank;
  MAY_FAIL;
  return NULL;
}

static OrtStatus *get_type(const OrtTensorTypeAndShapeInfo *info, OrtElementType *out) {
  MAY_FAIL;
  *out = info->type;
  return NULL;
}

static OrtStatus *get_rank(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
  MAY_FAIL;
  *out = info->rank;
  return NULL;
}

static OrtStatus *get_dimensions(const OrtTensorTypeAndShapeInfo *info, int64_t *out,
                                 size_t rank) {
  MAY_FAIL;
  memcpy(out, info->dims, rank * sizeof *out);
  return NULL;
}

static OrtStatus *get_symbols(const OrtTensorTypeAndShapeInfo *info, const char **out,
                              size_t rank) {
  MAY_FAIL;
  for (size_t i = 0; i < rank; i++)
    out[i] = info->dims[i] < 0 ? "d" : "";
  return NULL;
}

static OrtStatus *get_info(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
  MAY_FAIL;
  *out = new_info();
  **out = value->info;
  return NULL;
}

static OrtStatus *get_data(OrtValue *value, void **out) {
  MAY_FAIL;
  *out = value->data;
  return NULL;
}

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
  (void)name;
  MAY_FAIL;
  *out = memset(memory(sizeof **out), 0, sizeof **out);
  return NULL;
}

static void release_domain(OrtCustomOpDomain *domain) { free(domain); }

static OrtStatus *add_op(OrtCustomOpDomain *domain, const OrtCustomOp *op) {
  MAY_FAIL;
  domain->ops[domain->count++] = op;
  return NULL;
}

static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
  MAY_FAIL;
  options->domain = domain;
  return NULL;
}

static const OrtOpAttr *find(const OrtKernelInfo *node, const char *name, char kind) {
  for (size_t i = 0; i < ATTRIBUTES; i++)
    if (node->attributes[i].kind == kind && strcmp(node->attributes[i].name, name) == 0)
      return &node->attributes[i];
  return NULL;
}

static OrtStatus *get_float(const OrtKernelInfo *node, const char *name, float *out) {
  MAY_FAIL;
  const OrtOpAttr *found = find(node, name, 'f');
  if (found == NULL)
    return create_status(ORT_FAIL, "no such float");
  *out = found->f;
  return NULL;
}

static OrtStatus *get_int(const OrtKernelInfo *node, const char *name, int64_t *out) {
  MAY_FAIL;
  const OrtOpAttr *found = find(node, name, 'i');
  if (found == NULL)
    return create_status(ORT_FAIL, "no such int");
  *out = found->i;
  return NULL;
}

static OrtStatus *copy_text(const char *text, char *out, size_t *size) {
  size_t need = strlen(text) + 1;
  if (out != NULL && *size < need)
    return create_status(ORT_FAIL, "too short");
  if (out != NULL)
    memcpy(out, text, need);
  *size = need;
  return NULL;
}

static OrtStatus *get_string(const OrtKernelInfo *node, const char *name, char *out,
                             size_t *size) {
  MAY_FAIL;
  const OrtOpAttr *found = find(node, name, 's');
  return found == NULL ? create_status(ORT_FAIL, "no such string")
                       : copy_text(found->s, out, size);
}

static OrtStatus *get_name(const OrtKernelInfo *node, char *out, size_t *size) {
  (void)node;
  MAY_FAIL;
  return copy_text("a node", out, size);
}

static OrtStatus *get_constant(const OrtKernelInfo *node, size_t index, int *is_constant,
                               const OrtValue **out) {
  MAY_FAIL;
  *is_constant = node->constant[index];
  *out = *is_constant ? node->inputs[index] : NULL;
  return NULL;
}

static OrtStatus *get_input(const OrtKernelContext *call, size_t index, const OrtValue **out) {
  MAY_FAIL;
  *out = call->inputs[index];
  return NULL;
}

static OrtStatus *get_output(OrtKernelContext *call, size_t index, const int64_t *dims,
                             size_t rank, OrtValue **out) {
  (void)index;
  MAY_FAIL;
  call->output = new_value(call->inputs[0]->info.type, rank, dims, 0); /* not initialized */
  if (call->new_on_gpu != NULL)
    call->output->data = call->new_on_gpu(call->output->bytes);
  *out = call->output;
  return NULL;
}

static OrtStatus *get_stream(const OrtKernelContext *call, void **out) {
  MAY_FAIL;
  *out = call->stream;
  return NULL;
}

static OrtStatus *get_input_shape(const OrtShapeInferContext *context, size_t index,
                                  OrtTensorTypeAndShapeInfo **out) {
  (void)index;
  MAY_FAIL;
  *out = (OrtTensorTypeAndShapeInfo *)(uintptr_t)&context->x;
  return NULL;
}

static OrtStatus *get_attribute(const OrtShapeInferContext *context, const char *name,
                                const OrtOpAttr **out) {
  MAY_FAIL;
  *out = find(context->node, name, 'i');
  return *out == NULL ? create_status(ORT_FAIL, "no such attribute") : NULL;
}

static OrtStatus *read_attribute(const OrtOpAttr *attribute, OrtOpAttrType type, void *data,
                                 size_t size, size_t *read) {
  (void)type;
  MAY_FAIL;
  if (size < sizeof attribute->i)
    return create_status(ORT_FAIL, "too short");
  memcpy(data, &attribute->i, sizeof attribute->i);
  *read = sizeof attribute->i;
  return NULL;
}

static OrtStatus *set_output_shape(const OrtShapeInferContext *context, size_t index,
                                   const OrtTensorTypeAndShapeInfo *info) {
  (void)index;
  MAY_FAIL;
  ((OrtShapeInferContext *)(uintptr_t)context)->y = *info;
  return NULL;
}

typedef struct {
  void (*fn)(void *, size_t);
  void *argument;
  size_t total;
  atomic_size_t next;
} loop;

static void *help(void *argument) {
  loop *l = argument;
  for (size_t i; (i = atomic_fetch_add(&l->next, 1)) < l->total;)
    l->fn(l->argument, i);
  return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *call, void (*fn)(void *, size_t),
                               size_t total, size_t batches, void *argument) {
  enum { MOST = 8 };
  pthread_t helpers[MOST];
  (void)batches;
  MAY_FAIL;
  loop l = {.fn = fn, .argument = argument, .total = total};
  atomic_init(&l.next, 0);
  for (int i = 1; i < call->threads && i < MOST; i++)
    if (pthread_create(&helpers[i], NULL, help, &l) != 0)
      die("no thread");
  help(&l);
  for (int i = 1; i < call->threads && i < MOST; i++)
    pthread_join(helpers[i], NULL);
  return NULL;
}

const OrtApi api = {
    .CreateStatus = create_status,
    .CreateCustomOpDomain = create_domain,
    .CustomOpDomain_Add = add_op,
    .AddCustomOpDomain = add_domain,
    .GetTensorMutableData = get_data,
    .CreateTensorTypeAndShapeInfo = create_info,
    .SetTensorElementType = set_type,
    .SetDimensions = set_dimensions,
    .GetTensorElementType = get_type,
    .GetDimensionsCount = get_rank,
    .GetDimensions = get_dimensions,
    .GetSymbolicDimensions = get_symbols,
    .GetTensorTypeAndShape = get_info,
    .KernelInfoGetAttribute_float = get_float,
    .KernelInfoGetAttribute_int64 = get_int,
    .KernelInfoGetAttribute_string = get_string,
    .KernelContext_GetInput = get_input,
    .KernelContext_GetOutput = get_output,
    .KernelContext_GetGPUComputeStream = get_stream,
    .ReleaseStatus = release_status,
    .ReleaseTensorTypeAndShapeInfo = release_info,
    .ReleaseCustomOpDomain = release_domain,
    .KernelInfo_GetNodeName = get_name,
    .KernelInfoGetConstantInput_tensor = get_constant,
    .ShapeInferContext_GetInputTypeShape = get_input_shape,
    .ShapeInferContext_GetAttribute = get_attribute,
    .ShapeInferContext_SetOutputTypeShape = set_output_shape,
    .SetSymbolicDimensions = set_symbols,
    .ReadOpAttr = read_attribute,
    .KernelContext_ParallelFor = parallel_for,
};

static const OrtApi *get_api(uint32_t version) {
  return version <= BITCC_ORT_API_VERSION ? &api : NULL;
}
static const OrtApi *get_old_api(uint32_t version) { return version == 1 ? &api : NULL; }
const OrtApiBase base = {.GetApi = get_api}, old_base = {.GetApi = get_old_api};
