/* The inputs after X: checked to the last size before a kernel may touch them. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

static const char *type_name(OrtElementType type) {
  switch (type) {
  case ORT_UINT8:
    return "uint8";
  case ORT_FLOAT:
    return "float32";
  default:
    return "another type";
  }
}

static void print_shape(char *out, size_t size, const int64_t *dims, size_t rank) {
  size_t used = 0;
  for (size_t i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%" PRId64, i == 0 ? "" : ", ", dims[i]);
  if (rank == 0)
    out[0] = '\0';
}

static OrtStatus *wrong(const bitcc_node *node, const char *input, const bitcc_tensor *got,
                        const char *expected) {
  char shape[256];
  print_shape(shape, sizeof shape, got->dims, got->rank);
  return bitcc_node_error(node, "%s is %s [%s], expected %s for N = %d, K = %d", input,
                          type_name(got->type), shape, expected, node->layer.n, node->layer.k);
}

static OrtStatus *expand(const bitcc_node *node, bitcc_weights *out) {
  const bitcc_layer *layer = &node->layer;
  size_t size = (size_t)layer->tiles * (size_t)layer->k_blocks * BITCC_VECTOR_BYTES;
  out->expanded = malloc(size);
  if (out->expanded == NULL)
    return bitcc_node_error(node, "out of memory for %zu bytes of expanded weights", size);
  bitcc_expand_t5(layer, out->w, out->expanded);
  out->w = out->expanded;
  return NULL;
}

static OrtStatus *read_packed(const bitcc_node *node, const OrtValue *value, bitcc_weights *out) {
  const bitcc_layer *layer = &node->layer;
  bitcc_tensor w;
  OrtStatus *status = bitcc_read_tensor(node, "W", value, &w);
  if (status != NULL)
    return status;
  if (w.type != ORT_UINT8 || w.rank != 3 || w.dims[0] != layer->tiles ||
      w.dims[1] != layer->w_blocks || w.dims[2] != BITCC_VECTOR_BYTES) {
    char expected[64];
    snprintf(expected, sizeof expected, "uint8 [%d, %d, %d]", layer->tiles, layer->w_blocks,
             BITCC_VECTOR_BYTES);
    return wrong(node, "W", &w, expected);
  }
  out->w = w.data;
  return layer->format == layer->given ? NULL : expand(node, out);
}

/* One value for each of n rows, from `count` of them, 1 or n, that may lie at any address. */
static void expand_rows(float *out, const char *data, int64_t count, int32_t n) {
  for (size_t i = 0; i < (size_t)n; i++)
    memcpy(&out[i], data + (count == 1 ? 0 : i * sizeof *out), sizeof *out);
}

static int32_t find_not_finite(const float *row, int32_t n) {
  int32_t i = 0;
  while (i < n && isfinite(row[i]))
    i++;
  return i;
}

/* float32 [1] or [N], or with groups [groups, 1] or [groups, N], into `out`, which holds zeros:
 * one value for each row of each tile and each group. */
static OrtStatus *read_rows(const bitcc_node *node, const char *input, const OrtValue *value,
                            int32_t groups, float *out) {
  bitcc_tensor t;
  int32_t n = node->layer.n;
  OrtStatus *status = bitcc_read_tensor(node, input, value, &t);
  if (status != NULL)
    return status;
  size_t rank = groups == 0 ? 1 : 2;
  int64_t count = t.rank == rank ? t.dims[rank - 1] : 0;
  if (t.type != ORT_FLOAT || (count != 1 && count != n) || (groups != 0 && t.dims[0] != groups)) {
    char first[16] = "", expected[96];
    if (groups != 0)
      snprintf(first, sizeof first, "%d, ", groups);
    snprintf(expected, sizeof expected, "float32 [%s1] or [%s%d]", first, first, n);
    return wrong(node, input, &t, expected);
  }
  for (int32_t g = 0; g < (groups == 0 ? 1 : groups); g++) {
    float *row = out + (size_t)g * (size_t)node->layer.rows;
    expand_rows(row, (const char *)t.data + (size_t)g * (size_t)count * sizeof *row, count, n);
    int32_t bad = find_not_finite(row, n);
    if (bad < n && groups == 0)
      return bitcc_node_error(node, "%s[%d] is %f, not finite", input, bad, (double)row[bad]);
    if (bad < n)
      return bitcc_node_error(node, "%s[%d, %d] is %f, not finite", input, g, bad,
                              (double)row[bad]);
  }
  return NULL;
}

/* float32 [1] or [K]; a layer without a norm has no use for one that is not 1. */
static OrtStatus *read_gain(const bitcc_node *node, const OrtValue *value, float *out) {
  bitcc_tensor t;
  int32_t k = node->layer.has_norm ? node->layer.k : 1;
  OrtStatus *status = bitcc_read_tensor(node, "gain", value, &t);
  if (status != NULL)
    return status;
  if (t.type != ORT_FLOAT || t.rank != 1 || (t.dims[0] != 1 && t.dims[0] != k)) {
    char expected[64] = "float32 [1]";
    if (node->layer.has_norm)
      snprintf(expected, sizeof expected, "float32 [1] or [%d]", k);
    return wrong(node, "gain", &t, expected);
  }
  expand_rows(out, t.data, t.dims[0], k);
  int32_t bad = find_not_finite(out, k);
  if (bad < k)
    return bitcc_node_error(node, "gain[%d] is %f, not finite", bad, (double)out[bad]);
  if (!node->layer.has_norm && out[0] != 1.0f)
    return bitcc_node_error(node, "gain is %g, expected 1 without a norm", (double)out[0]);
  return NULL;
}

OrtStatus *bitcc_read_weights(const bitcc_node *node,
                              const OrtValue *const inputs[BITCC_MAX_WEIGHTS],
                              bitcc_weights *out) {
  const bitcc_layer *layer = &node->layer;
  size_t rows = (size_t)layer->rows;
  OrtStatus *status = read_packed(node, inputs[0], out);
  if (status != NULL)
    return status;
  /* Groups of the padded columns, as kernels count them. With W in memory this is no more than W.
   */
  size_t groups = (size_t)((layer->k_blocks + layer->group_vectors - 1) / layer->group_vectors);
  out->scale = calloc((groups + 1) * rows + (size_t)layer->k, sizeof *out->scale);
  if (out->scale == NULL)
    return bitcc_node_error(node, "out of memory for %zu scales", groups * rows);
  out->bias = out->scale + groups * rows;
  out->gain = out->bias + rows;
  status = read_rows(node, "w_scale", inputs[1], layer->groups, out->scale);
  if (status == NULL)
    status = read_rows(node, "bias", inputs[2], 0, out->bias);
  return status == NULL && node->kind->weights > 3 ? read_gain(node, inputs[3], out->gain) : status;
}

void bitcc_free_weights(bitcc_weights *weights) {
  free(weights->expanded);
  free(weights->scale);
  *weights = (bitcc_weights){NULL};
}
