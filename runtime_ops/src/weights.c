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

static OrtStatus *read_packed(const bitcc_node *node, const OrtValue *value, const uint8_t **out) {
  const bitcc_layer *layer = &node->layer;
  bitcc_tensor w;
  OrtStatus *status = bitcc_read_tensor(node, "W", value, &w);
  if (status != NULL)
    return status;
  if (w.type != ORT_UINT8 || w.rank != 3 || w.dims[0] != layer->tiles ||
      w.dims[1] != layer->k_blocks || w.dims[2] != BITCC_VECTOR_BYTES) {
    char expected[64];
    snprintf(expected, sizeof expected, "uint8 [%d, %d, %d]", layer->tiles, layer->k_blocks,
             BITCC_VECTOR_BYTES);
    return wrong(node, "W", &w, expected);
  }
  *out = w.data;
  return NULL;
}

/* float32 [1] or [N] into one value for each row of each tile; 0 in the rows that pad. */
static OrtStatus *read_rows(const bitcc_node *node, const char *input, const OrtValue *value,
                            float *out) {
  bitcc_tensor rows;
  int32_t n = node->layer.n, padded = node->layer.tiles * BITCC_TILE_ROWS;
  OrtStatus *status = bitcc_read_tensor(node, input, value, &rows);
  if (status != NULL)
    return status;
  if (rows.type != ORT_FLOAT || rows.rank != 1 || (rows.dims[0] != 1 && rows.dims[0] != n)) {
    char expected[64];
    snprintf(expected, sizeof expected, "float32 [1] or [%d]", n);
    return wrong(node, input, &rows, expected);
  }
  memset(out, 0, (size_t)padded * sizeof *out);
  for (size_t i = 0; i < (size_t)n; i++) /* mapped data may lie at any address */
    memcpy(&out[i], (const char *)rows.data + (rows.dims[0] == 1 ? 0 : i * sizeof *out),
           sizeof *out);
  for (int32_t i = 0; i < n; i++)
    if (!isfinite(out[i]))
      return bitcc_node_error(node, "%s[%d] is %f, not finite", input, i, (double)out[i]);
  return NULL;
}

OrtStatus *bitcc_read_weights(const bitcc_node *node, const OrtValue *const inputs[3],
                              bitcc_weights *out) {
  size_t padded = (size_t)node->layer.tiles * BITCC_TILE_ROWS;
  OrtStatus *status = read_packed(node, inputs[0], &out->w);
  if (status != NULL)
    return status;
  out->scale = malloc(2 * padded * sizeof *out->scale);
  if (out->scale == NULL)
    return bitcc_node_error(node, "out of memory for %zu rows", padded);
  out->bias = out->scale + padded;
  status = read_rows(node, "w_scale", inputs[1], out->scale);
  return status != NULL ? status : read_rows(node, "bias", inputs[2], out->bias);
}

void bitcc_free_weights(bitcc_weights *weights) {
  free(weights->scale);
  *weights = (bitcc_weights){NULL, NULL, NULL};
}
