/* The entry point that onnxruntime looks up in a custom op library. */
#include <stdio.h>
#include <stdlib.h>

#include "library.h"

BITCC_EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

static OrtStatus *not_selectable(const OrtApi *api, const char *forced, const char *reason) {
  char all[256], usable[256];
  bitcc_list_variants(all, sizeof all, bitcc_variants, UINT64_MAX, "");
  bitcc_list_variants(usable, sizeof usable, bitcc_variants, bitcc_cpu_features(), "");
  return bitcc_error(api, ORT_INVALID_ARGUMENT,
                     "bitcc: %s%s %s; this library has: %s; of these this CPU can run: %s",
                     forced == NULL ? "it" : "BITCC_ISA=", forced == NULL ? "" : forced, reason,
                     all, usable[0] == '\0' ? "none" : usable);
}

static OrtStatus *fill_ops(bitcc_op ops[BITCC_OPS], const OrtApi *api,
                           const bitcc_kernels *kernels, size_t *count) {
  bitcc_fill_ops(ops, api, kernels);
  *count = BITCC_CPU_OPS;
#if defined(BITCC_CUDA)
  size_t cuda = 0;
  OrtStatus *status = bitcc_fill_cuda_ops(ops, ops + BITCC_CPU_OPS, &cuda);
  *count += cuda;
  return status;
#else
  return NULL;
#endif
}

/* Domain and ops are never freed: sessions keep pointers to them and may outlive `options`, and
 * nothing tells a library that the last one is gone. It is a kilobyte for each registration. */
static OrtStatus *add_ops(const OrtApi *api, OrtSessionOptions *options,
                          const bitcc_kernels *kernels) {
  bitcc_op *ops = malloc(BITCC_OPS * sizeof *ops);
  if (ops == NULL)
    return bitcc_error(api, ORT_FAIL, "bitcc: out of memory");
  bitcc_stay_loaded();
  size_t count = 0;
  OrtCustomOpDomain *domain = NULL;
  OrtStatus *status = fill_ops(ops, api, kernels, &count);
  if (status == NULL)
    status = api->CreateCustomOpDomain("bitcc", &domain);
  for (size_t i = 0; status == NULL && i < count; i++)
    status = api->CustomOpDomain_Add(domain, &ops[i].base);
  if (status == NULL)
    status = api->AddCustomOpDomain(options, domain);
  if (status != NULL) {
    if (domain != NULL)
      api->ReleaseCustomOpDomain(domain);
    free(ops);
  }
  return status;
}

OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(BITCC_ORT_API_VERSION);
  if (api == NULL)
    return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, "bitcc needs onnxruntime >= 1.17");
  bitcc_choice choice = bitcc_choose();
  if (choice.error != NULL)
    return not_selectable(api, getenv("BITCC_ISA"), choice.error);
  if (choice.kernels == NULL)
    return bitcc_error(
        api, ORT_FAIL,
        "bitcc: kernel `%s` of ISA %s computes wrong numbers on this machine; force "
        "another ISA with the environment variable BITCC_ISA and report this",
        choice.family, choice.wrong->isa);
  if (choice.wrong != NULL)
    fprintf(stderr,
            "bitcc: kernel `%s` of ISA %s computes wrong numbers on this machine and is not used; "
            "ISA %s is. Please report this.\n",
            choice.family, choice.wrong->isa, choice.kernels->isa);
  return add_ops(api, options, choice.kernels);
}
