/* A host of the op library in place of onnxruntime, for tools that watch memory and threads.
 *
 * Every tensor is a block of its own of exactly its size, and the weights lie at odd addresses.
 * What the library asks for may fail, and what it was given must be released. Linked with
 * --wrap=malloc and --wrap=calloc, so that its allocations are seen too.
 */
#ifndef BITCC_HOST_H
#define BITCC_HOST_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitcc/ort_api.h"

/* What the library exports. */
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);
size_t bitcc_library_info(char *out, size_t size);

enum { RANK = 40, INPUTS = 5, OPS = 6, ATTRIBUTES = 16, TERNARY = 3 /* of OPS */, GPU_OPS = 3 };

struct OrtStatus {
  char message[1024];
};
struct OrtTensorTypeAndShapeInfo {
  OrtElementType type;
  size_t rank;
  int64_t dims[RANK];
};
struct OrtValue {
  OrtTensorTypeAndShapeInfo info;
  char *block, *data; /* data is where the block ends, less its size */
  size_t bytes;
};
struct OrtOpAttr {
  const char *name;
  char kind; /* 'i', 'f' or 's'; 0 if it is missing */
  int64_t i;
  float f;
  char s[80];
};
struct OrtKernelInfo {
  OrtOpAttr attributes[ATTRIBUTES];
  OrtValue *inputs[INPUTS]; /* of the node; [0] is X */
  bool constant[INPUTS];
};
struct OrtKernelContext {
  OrtValue *inputs[INPUTS];
  OrtValue *output;
  int threads;
  void *stream; /* of a GPU; then */
  char *(*new_on_gpu)(size_t bytes); /* makes the output's memory, which is not freed */
};
struct OrtCustomOpDomain {
  const OrtCustomOp *ops[OPS + GPU_OPS];
  size_t count;
};
struct OrtSessionOptions {
  OrtCustomOpDomain *domain;
};
struct OrtShapeInferContext {
  OrtKernelInfo *node;
  OrtTensorTypeAndShapeInfo x, y;
};

/* A message, and the end of the process. */
void die(const char *format, ...);

/* What is not released yet. */
extern atomic_int live_statuses, live_infos;
void check_nothing_lives(const char *where);
/* The call of the API, or allocation, that brings it to 0 fails; negative: none does. */
extern atomic_long until_fault;
bool fails(void);
/* Memory of the host's own, which does not fail. */
void *memory(size_t size);

OrtStatus *create_status(OrtErrorCode code, const char *message);
void release_status(OrtStatus *status);
extern const OrtApi api;
extern const OrtApiBase base, old_base; /* old: of an onnxruntime that has less */

/* Not initialized, `shift` bytes off alignment. What is too large to be there has no bytes: it
 * must be refused before it is read. */
OrtValue *new_value(OrtElementType type, size_t rank, const int64_t *dims, size_t shift);
void free_value(OrtValue *value);
uint64_t hash(const OrtValue *value);

typedef struct {
  int op;              /* of OPS */
  int64_t n, k, group; /* group: TernaryLinear */
  int64_t scale, scope, type, bias_first, norm;
  bool per_row, constant, t5;
} layer;

OrtKernelInfo *new_node(const layer *l);
void free_node(OrtKernelInfo *node);
OrtValue *new_x(const layer *l, int64_t tokens);

extern const OrtCustomOp **ops; /* of the library */
void open_library(void);
/* Y of a kernel, or NULL and *status. */
OrtValue *compute(const layer *l, void *kernel, const OrtKernelInfo *node, OrtValue *x,
                  int threads, OrtStatus **status);
/* Infers a shape, makes a kernel, runs and destroys it. */
OrtStatus *run_once(const layer *l, OrtKernelInfo *node, OrtValue *x, OrtValue **y);

/* All ops, types and attributes: prints a hash of each result, the same in every build. */
void numbers(void);
/* Attributes and inputs that are wrong in every way: an error, or a result. */
void refusals(void);
/* Every call of the API and every allocation fails once. */
void faults(void);
/* One node in several threads, each of which has helpers. */
void threads(void);
/* What a tool must find, or it sees nothing: a read behind a tensor, and a race. */
void overrun(void);
void race(void);

#endif
