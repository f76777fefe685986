/* What tests call: onnxruntime with a CUDAExecutionProvider, as far as one node goes. */
#include "host.h"

#include "bitcc/cuda_api.h"

static CUresult (*allocate)(CUdeviceptr *, size_t);
void host_set_allocate(void *function) { memcpy(&allocate, &function, sizeof allocate); }

enum { ERROR_BYTES = 1024 };

static bool is_error(OrtStatus *status, char *error) {
  if (status != NULL)
    snprintf(error, ERROR_BYTES, "%s", status->message);
  release_status(status);
  return status != NULL;
}

static OrtSessionOptions options;

/* Returns how many ops there are, or -1 and *error. */
int host_register(char *error) {
  OrtStatus *status = RegisterCustomOps(&options, &base);
  return is_error(status, error) ? -1 : (int)options.domain->count;
}

const char *host_provider(int op) {
  return options.domain->ops[op]->GetExecutionProviderType(options.domain->ops[op]);
}

int host_memory_type(int op, size_t input) {
  return (int)options.domain->ops[op]->GetInputMemoryType(options.domain->ops[op], input);
}

void *host_create(int op, const OrtKernelInfo *node, char *error) {
  void *kernel = NULL;
  const OrtCustomOp *made = options.domain->ops[op];
  return is_error(made->CreateKernelV2(made, &api, node, &kernel), error) ? NULL : kernel;
}

void host_destroy(int op, void *kernel) { options.domain->ops[op]->KernelDestroy(kernel); }

static char *new_on_gpu(size_t bytes) {
  CUdeviceptr made = 0;
  long fault = atomic_exchange(&until_fault, -1); /* onnxruntime's own memory does not fail */
  if (bytes != 0 && allocate(&made, bytes) != 0)
    die("no memory for Y");
  atomic_store(&until_fault, fault);
  return (char *)(uintptr_t)made;
}

/* 1 and *error, or 0 and Y, of which *data has *bytes; on a GPU if there is a stream. */
int host_compute(int op, void *kernel, OrtValue *const inputs[INPUTS], void *stream, char **data,
                 size_t *bytes, char *error) {
  OrtKernelContext call = {.threads = 1, .stream = stream};
  call.new_on_gpu = stream == NULL ? NULL : new_on_gpu;
  memcpy(call.inputs, inputs, sizeof call.inputs);
  OrtStatus *status = options.domain->ops[op]->KernelComputeV2(kernel, &call);
  *data = NULL;
  *bytes = 0;
  if (call.output != NULL) {
    *data = stream == NULL ? memory(call.output->bytes) : call.output->data;
    *bytes = call.output->bytes;
    if (stream == NULL)
      memcpy(*data, call.output->data, *bytes);
  }
  free_value(call.output);
  return is_error(status, error);
}

void host_free(void *block) { free(block); }
int host_is_clean(void) {
  return atomic_load(&live_statuses) == 0 && atomic_load(&live_infos) == 0;
}
void host_fail_at(long call) { atomic_store(&until_fault, call); }
int host_has_failed(void) { return atomic_exchange(&until_fault, -1) <= 0; }
