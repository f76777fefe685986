/* The attributes of a node. All are required and none is guessed: a value that this version does
 * not know was written by another one, and ignoring it would give wrong numbers. */
#include <string.h>

#include "layer.h"

static const char newer[] = "; was the model made by a newer bitcc?";

typedef struct {
  const bitcc_node *node;
  const OrtKernelInfo *info;
  OrtStatus *error; /* the first; after it every read is skipped */
} reader;

static bool has_failed(reader *r, OrtStatus *status, const char *name, const char *type) {
  if (status == NULL)
    return false;
  r->node->api->ReleaseStatus(status);
  r->error = bitcc_node_error(r->node, "attribute `%s` is missing or is no %s", name, type);
  return true;
}

static int64_t read_int(reader *r, const char *name, int64_t low, int64_t high,
                        const char *hint) {
  int64_t value = low;
  if (r->error != NULL)
    return low;
  OrtStatus *status = r->node->api->KernelInfoGetAttribute_int64(r->info, name, &value);
  if (has_failed(r, status, name, "int"))
    return low;
  if (value >= low && value <= high)
    return value;
  r->error = bitcc_node_error(r->node, "attribute `%s` is %lld, known are %lld to %lld%s", name,
                              (long long)value, (long long)low, (long long)high, hint);
  return low;
}

/* A float type, by the number that ONNX gives it, which is onnxruntime's too. */
static OrtElementType read_type(reader *r, const char *name) {
  int64_t value = read_int(r, name, 0, INT32_MAX, newer);
  if (r->error == NULL && value != ORT_FLOAT && value != ORT_FLOAT16 && value != ORT_BFLOAT16)
    r->error = bitcc_node_error(r->node, "attribute `%s` is %d, known are %d, %d and %d%s", name,
                                (int)value, ORT_FLOAT, ORT_FLOAT16, ORT_BFLOAT16, newer);
  return (OrtElementType)value;
}

static float read_float(reader *r, const char *name, float low, float high) {
  float value = low;
  if (r->error != NULL)
    return low;
  OrtStatus *status = r->node->api->KernelInfoGetAttribute_float(r->info, name, &value);
  if (has_failed(r, status, name, "float"))
    return low;
  if (!(value >= low && value <= high)) /* NaN fails too */
    r->error = bitcc_node_error(r->node, "attribute `%s` is %g, known are %g to %g", name,
                                (double)value, (double)low, (double)high);
  return value;
}

/* The weight format: one of the first `known`. */
static bitcc_format read_format(reader *r, int32_t known) {
  static const char *const names[BITCC_FORMATS] = {"t2", "t5"};
  static const char name[] = "weight_format";
  char value[64] = "";
  size_t size = 0;
  const OrtApi *api = r->node->api;
  if (r->error != NULL)
    return BITCC_T2;
  OrtStatus *status = api->KernelInfoGetAttribute_string(r->info, name, NULL, &size);
  if (has_failed(r, status, name, "string"))
    return BITCC_T2;
  if (size <= sizeof value) {
    status = api->KernelInfoGetAttribute_string(r->info, name, value, &size);
    if (has_failed(r, status, name, "string"))
      return BITCC_T2;
  } else {
    memcpy(value, "...", sizeof "...");
  }
  for (int32_t i = 0; i < known; i++)
    if (strcmp(value, names[i]) == 0)
      return (bitcc_format)i;
  r->error =
      bitcc_node_error(r->node, "attribute `%s` is `%s`, known is `%s`%s%s", name, value, names[0],
                       known == 1 ? "" : " and `t5`", newer);
  return BITCC_T2;
}

/* A bound of the quantized values: a whole number that int8 holds. */
static int32_t read_bound(reader *r, const char *name) {
  float value = read_float(r, name, -128.0f, 127.0f);
  if (r->error == NULL && value != (float)(int32_t)value)
    r->error =
        bitcc_node_error(r->node, "attribute `%s` is %g, not a whole number", name, (double)value);
  return r->error == NULL ? (int32_t)value : 0;
}

static void read_activation(reader *r, bitcc_layer *out) {
  out->act_scale = (bitcc_scale_form)read_int(r, "act_scale", 0, BITCC_SCALE_FORMS - 1, newer);
  out->per_tensor = read_int(r, "act_scope", 0, 1, newer) != 0;
  out->act_type = read_type(r, "act_type");
  out->act_floor = read_float(r, "act_floor", 0.0f, 1e30f);
  out->act_eps = read_float(r, "act_eps", 0.0f, 1e30f);
  /* From 1 on no finite row has an infinite inverse; |x * scale| <= 2 * qmax is below 2^22. */
  out->qmax = read_float(r, "qmax", 1.0f, 0x1p20f);
  out->act_min = read_bound(r, "act_min");
  out->act_max = read_bound(r, "act_max");
  if (r->error == NULL && out->act_min >= out->act_max)
    r->error = bitcc_node_error(r->node, "act_min = %d is not below act_max = %d", out->act_min,
                                out->act_max);
}

static int32_t pad(int32_t columns) {
  return (columns + BITCC_K_ALIGNMENT - 1) / BITCC_K_ALIGNMENT * BITCC_K_ALIGNMENT;
}

/* Vectors of a tile. */
static int32_t blocks(const bitcc_layer *layer, bitcc_format format) {
  if (format == BITCC_T5)
    return (layer->k + BITCC_T5_VECTOR_COLUMNS - 1) / BITCC_T5_VECTOR_COLUMNS;
  return pad(layer->k) / BITCC_VECTOR_COLUMNS;
}

/* What every op has. `formats` is how many its kernels can do with. */
static void read_matrix(reader *r, bitcc_layer *out, int32_t formats) {
  static const int64_t versions[BITCC_FORMATS] = {BITCC_LAYOUT_VERSION, BITCC_T5_LAYOUT_VERSION};
  out->given = read_format(r, formats);
  read_int(r, "layout_version", versions[out->given], versions[out->given], newer);
  out->k = (int32_t)read_int(r, "K", 1, BITCC_MAX_K, "");
  out->n = (int32_t)read_int(r, "N", 1, INT32_MAX - BITCC_TILE_ROWS, "");
  out->tiles = (out->n + BITCC_TILE_ROWS - 1) / BITCC_TILE_ROWS;
  out->rows = out->tiles * BITCC_TILE_ROWS;
  out->w_blocks = blocks(out, out->given);
  bool reads_t5 = !r->node->kind->t2_only && r->node->kernels->gemv_t5 != NULL;
  out->format = reads_t5 ? out->given : BITCC_T2;
  out->k_blocks = blocks(out, out->format);
  int32_t columns = out->format == BITCC_T5 ? BITCC_T5_VECTOR_COLUMNS : BITCC_VECTOR_COLUMNS;
  out->k_padded = pad(out->k_blocks * columns);
  out->group_vectors = out->k_blocks;
}

OrtStatus *bitcc_read_bit_linear(const bitcc_node *node, const OrtKernelInfo *info,
                                 bitcc_layer *out) {
  reader r = {node, info, NULL};
  read_matrix(&r, out, BITCC_FORMATS);
  read_activation(&r, out);
  out->bias_before_scale = read_int(&r, "bias_before_scale", 0, 1, newer) != 0;
  out->has_norm = read_int(&r, "norm", 0, 1, newer) != 0;
  out->norm_eps = read_float(&r, "norm_eps", 0.0f, 1e30f);
  return r.error;
}

OrtStatus *bitcc_read_ternary_linear(const bitcc_node *node, const OrtKernelInfo *info,
                                     bitcc_layer *out) {
  reader r = {node, info, NULL};
  read_matrix(&r, out, BITCC_T2 + 1);
  int32_t size = (int32_t)read_int(&r, "group_size", 1, out->k, "");
  if (r.error != NULL)
    return r.error;
  if (size < out->k && size % BITCC_VECTOR_COLUMNS != 0)
    return bitcc_node_error(node,
                            "attribute `group_size` is %d, neither K = %d nor a multiple of %d",
                            size, out->k, BITCC_VECTOR_COLUMNS);
  if (size < out->k)
    out->group_vectors = size / BITCC_VECTOR_COLUMNS;
  out->groups = (out->k + size - 1) / size;
  return NULL;
}
