/* One node of an op: what its attributes say, its weights, and the steps of a call. */
#ifndef BITCC_LAYER_H
#define BITCC_LAYER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "library.h"

enum { BITCC_MAX_RANK = 32 };

/* How the quantization scale comes from c = max(max|x|, act_floor) + act_eps. */
typedef enum {
  BITCC_SCALE_RECIPROCAL = 0,      /* a = qmax * (1 / c); q = x * a */
  BITCC_SCALE_DIVIDE = 1,          /* a = qmax / c;       q = x * a */
  BITCC_SCALE_QUOTIENT = 2,        /* d = c / qmax;       q = x / d */
  BITCC_SCALE_PRODUCT = 3,         /*                     q = (x * qmax) / c */
  BITCC_SCALE_STEP_PRODUCT = 4,    /* d = c * (1 / qmax); q = x / d */
  BITCC_SCALE_NORMALIZED = 5,      /*                     q = (x / c) * qmax */
  BITCC_SCALE_STEP_SUM = 6,        /* d = c / qmax + act_eps, c without it; q = x / d */
  BITCC_SCALE_STEP_RECIPROCAL = 7, /* a = 1 / (c / qmax); q = x * a */
  BITCC_SCALE_FORMS
} bitcc_scale_form;

/* A layout of packed weights. */
typedef enum { BITCC_T2, BITCC_T5, BITCC_FORMATS } bitcc_format;

/* The attributes, valid. */
typedef struct {
  int32_t n, k;
  bitcc_format given; /* of W as the model has it */
  int32_t w_blocks;   /* its vectors of a tile */
  /* What the kernels read: `given`, or `t2` where they do not know that. */
  bitcc_format format;
  int32_t tiles, k_blocks, k_padded;
  int32_t rows; /* n, padded to whole tiles */
  /* TernaryLinear: columns of one scale, in vectors, and how many scales of a row w_scale holds.
   * BitLinear: one scale for all columns, and `groups` is 0. */
  int32_t group_vectors, groups;
  /* BitLinear */
  bitcc_scale_form act_scale;
  bool per_tensor; /* one scale for all tokens of a call, not one for each */
  OrtElementType act_type; /* to which each result of the quantizer is rounded */
  float act_floor, act_eps, qmax;
  int32_t act_min, act_max;
  bool bias_before_scale;
  bool has_norm; /* root mean square */
  float norm_eps;
} bitcc_layer;

enum { BITCC_MAX_WEIGHTS = 4 };

/* The inputs after X. `scale` and `bias` are expanded to all rows of all tiles, `scale` also to all
 * groups of the padded columns: [groups][rows] with zeros where nothing was given. */
typedef struct {
  const uint8_t *w;
  uint8_t *expanded; /* owned: `w`, where it is not as the model has it */
  float *scale; /* owned; `bias` and `gain` are in the same block */
  float *bias;
  float *gain; /* [k], with a norm */
} bitcc_weights;

/* Memory for one call. */
typedef struct {
  size_t size;
} bitcc_scratch;

typedef struct bitcc_node bitcc_node;
typedef struct bitcc_call bitcc_call;

/* What one op does differently from another. */
struct bitcc_kind {
  const char *name; /* of the op */
  size_t weights;   /* inputs after X */
  OrtStatus *(*read_layer)(const bitcc_node *node, const OrtKernelInfo *info, bitcc_layer *out);
  /* Computes all of Y, which has elements. `call->tokens` is not set yet. */
  OrtStatus *(*run)(bitcc_node *node, bitcc_call *call, int64_t tokens);
  bool t2_only; /* other formats are expanded, whatever the CPU's kernels read */
};
extern const bitcc_kind bitcc_bit_linear, bitcc_ternary_linear;

/* What CreateKernel makes of a node. Immutable but for what is atomic: several threads may run
 * it. */
struct bitcc_node {
  const OrtApi *api;
  const bitcc_kernels *kernels;
  const bitcc_kind *kind;
  char *name;
  OrtElementType x_type;
  bitcc_layer layer;
  bool constant; /* `weights` are there; else every call reads and checks its own */
  bitcc_weights weights;
  _Atomic(bitcc_scratch *) spare;
  _Atomic(int32_t *) pairs_start; /* pairs.c; owned, NULL until it is needed */
  struct bitcc_on_gpu *on_gpu; /* NULL on a CPU */
};

/* A tensor's type, shape and bytes. */
typedef struct {
  OrtElementType type;
  size_t rank;
  int64_t dims[BITCC_MAX_RANK];
  const void *data;
} bitcc_tensor;

OrtStatus *bitcc_read_tensor(const bitcc_node *node, const char *input, const OrtValue *value,
                             bitcc_tensor *out);

/* The attributes of each op. */
OrtStatus *bitcc_read_bit_linear(const bitcc_node *node, const OrtKernelInfo *info,
                                 bitcc_layer *out);
OrtStatus *bitcc_read_ternary_linear(const bitcc_node *node, const OrtKernelInfo *info,
                                     bitcc_layer *out);

/* The inputs after X, checked; to be freed with bitcc_free_weights, after an error too. */
OrtStatus *bitcc_read_weights(const bitcc_node *node,
                              const OrtValue *const inputs[BITCC_MAX_WEIGHTS],
                              bitcc_weights *out);
void bitcc_free_weights(bitcc_weights *weights);
/* W in layout `t5` to `t2`: out is [tiles][k_blocks][64]. */
void bitcc_expand_t5(const bitcc_layer *layer, const uint8_t *w, uint8_t *out);

/* At least `size` bytes aligned to a cache line, NULL if there are none; to be given back. */
void *bitcc_take_scratch(bitcc_node *node, size_t size, bitcc_scratch **scratch);
void bitcc_give_scratch(bitcc_node *node, bitcc_scratch *scratch);

OrtStatus *bitcc_create_node(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                             void **node);
void bitcc_destroy_node(void *node);
OrtStatus *bitcc_compute(void *node, OrtKernelContext *context);
OrtStatus *bitcc_infer_shape(const OrtCustomOp *op, OrtShapeInferContext *context);

/* An error about this node: "bitcc::BitLinear `name`: ...". */
#define bitcc_node_error(node, format, ...)                                                       \
  bitcc_error((node)->api, ORT_INVALID_ARGUMENT, "bitcc::%s `%s`: " format, (node)->kind->name,   \
              (node)->name, __VA_ARGS__)

#endif
