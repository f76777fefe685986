/* What this library knows about itself: its variants, the machine, the op structs. */
#ifndef BITCC_LIBRARY_H
#define BITCC_LIBRARY_H

#include <stddef.h>

#include "bitcc/kernel.h"
#include "bitcc/ort_api.h"

#if defined(_WIN32)
#define BITCC_EXPORT __declspec(dllexport)
#else
#define BITCC_EXPORT __attribute__((visibility("default")))
#endif

/* What the self-test has room for, the accumulators of gemv_float and the panel of unpacked weights
 * on the stack. */
enum { BITCC_MAX_TOKENS = 64, BITCC_MAX_FLOAT_TILES = 64 };
enum { BITCC_MAX_PANEL_TILES = 4, BITCC_MAX_PANEL_VECTORS = 64, BITCC_MAX_PAIR_TOKENS = 16 };

/* What one op does differently from another: layer.h. */
typedef struct bitcc_kind bitcc_kind;

/* For each op one struct for each type of X. It carries what was chosen when the library was
 * registered to the callbacks of later, so that the process has no state. */
enum { BITCC_CPU_OPS = 2 * 3 };
#if defined(BITCC_CUDA)
enum { BITCC_OPS = BITCC_CPU_OPS + 3 };
#else
enum { BITCC_OPS = BITCC_CPU_OPS };
#endif
typedef struct {
  OrtCustomOp base; /* first: onnxruntime hands back a pointer to it */
  OrtElementType x_type;
  const OrtApi *api;
  const bitcc_kernels *kernels;
  const bitcc_kind *kind;
} bitcc_op;
void bitcc_fill_ops(bitcc_op ops[BITCC_CPU_OPS], const OrtApi *api, const bitcc_kernels *kernels);
#if defined(BITCC_CUDA)
/* Those for GPUs, of which *count is how many: none where BITCC_CUDA=off is in the environment. */
OrtStatus *bitcc_fill_cuda_ops(const bitcc_op ops[BITCC_CPU_OPS], bitcc_op *cuda, size_t *count);
/* Comma-separated names of the GPUs that the library has code for, each between `quote`s, as nvcc has
 * them: sm_90 of machine code, compute_90 of PTX. */
void bitcc_list_images(char *out, size_t size, const char *quote);
#endif

/* The BITCC_CPU_* bits of this machine, those included that the operating system must allow. */
uint64_t bitcc_cpu_features(void);

/* The first variant of `table` that runs on `cpu`, or the one called `forced_isa` if that is
 * neither NULL nor empty. NULL if there is none; then *error says why, as the end of a sentence
 * that starts with the name of the ISA. */
const bitcc_kernels *bitcc_select(const bitcc_kernels *table, uint64_t cpu, const char *forced_isa,
                                  const char **error);

/* Runs every kernel of a variant against plain C. NULL if all agree, else the family that is
 * wrong. */
const char *bitcc_self_test(const bitcc_kernels *kernels);

/* What this process runs: the first variant for this CPU, or the one that BITCC_ISA names, whose
 * self-test agrees. */
typedef struct {
  const bitcc_kernels *kernels; /* NULL if there is none */
  const char *error;            /* then, as bitcc_select says it; NULL if `wrong` is the reason */
  const bitcc_kernels *wrong;   /* the first variant that does not agree, mostly NULL */
  const char *family;           /* its kernel that is wrong */
} bitcc_choice;
bitcc_choice bitcc_choose(void);

/* Called when the library is registered. */
void bitcc_stay_loaded(void);

/* Comma-separated names, each between `quote`s: of the table's variants that run on `cpu`. */
void bitcc_list_variants(char *out, size_t size, const bitcc_kernels *table, uint64_t cpu,
                         const char *quote);
/* The same of the CPU's features. */
void bitcc_list_features(char *out, size_t size, uint64_t cpu, const char *quote);

/* An error status with a formatted message. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
OrtStatus *bitcc_error(const OrtApi *api, OrtErrorCode code, const char *format, ...);

#endif
