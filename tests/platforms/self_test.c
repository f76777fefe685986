/* Loads an op library as onnxruntime does, without onnxruntime: prints what it says about itself, and lets it
 * register, which runs its self-test of every kernel. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

#include "bitcc/ort_api.h"

static OrtStatus *create_status(OrtErrorCode code, const char *message) {
  printf("error %d: %s\n", (int)code, message);
  return (OrtStatus *)message;
}

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **domain) {
  *domain = (OrtCustomOpDomain *)name;
  return NULL;
}

static OrtStatus *add_op(OrtCustomOpDomain *domain, const OrtCustomOp *op) {
  printf("%s::%s\n", (const char *)domain, op->GetName(op));
  return NULL;
}

static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
  (void)options, (void)domain;
  return NULL;
}

static const OrtApi *get_api(uint32_t version) {
  static const OrtApi api = {
      .CreateStatus = create_status,
      .CreateCustomOpDomain = create_domain,
      .CustomOpDomain_Add = add_op,
      .AddCustomOpDomain = add_domain,
  };
  return version == BITCC_ORT_API_VERSION ? &api : NULL;
}

typedef size_t info_fn(char *out, size_t size);
typedef OrtStatus *register_fn(OrtSessionOptions *options, const OrtApiBase *base);

int main(int count, char **arguments) {
  static const OrtApiBase base = {.GetApi = get_api};
  char json[4096];
  void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (library == NULL) {
    printf("%s\n", count > 1 ? dlerror() : "give a library");
    return 1;
  }
  ((info_fn *)dlsym(library, "bitcc_library_info"))(json, sizeof json);
  printf("%s\n", json);
  return ((register_fn *)dlsym(library, "RegisterCustomOps"))(NULL, &base) != NULL;
}
