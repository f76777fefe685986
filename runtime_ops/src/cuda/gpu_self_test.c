/* Known answers, as self_test.c on the CPU: every kernel once, when it is loaded, so that one that
 * the driver or the GPU gets wrong is an error and never wrong numbers. All numbers are whole, so
 * that the quantizer has nothing to round. */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "half.h"

enum { N = 35, ROWS = 48, TILES = ROWS / BITCC_TILE_ROWS, LARGEST = 127 };

/* For each matmul enough columns that its loop has a second turn. */
typedef struct {
  int32_t tokens, k;
  bitcc_cuda_family matmul;
} test_case;
static const test_case cases[] = {{1, 4200, BITCC_CUDA_gemv},
                                  {9, 1100, BITCC_CUDA_gemm_few},
                                  {40, 200, BITCC_CUDA_gemm},
                                  {40, 200, BITCC_CUDA_gemm_many}};
enum { MAX_K = 4200, MAX_TOKENS = 40, MAX_X = 9900, MAX_Y = MAX_TOKENS * N };
enum { MAX_W = TILES * (MAX_K / BITCC_VECTOR_COLUMNS + 4) * BITCC_VECTOR_BYTES };

typedef struct {
  uint8_t w[MAX_W];
  float floats[2 * ROWS + MAX_K]; /* scale, bias and gain */
  float x[MAX_X], y[MAX_Y];
  uint32_t given[MAX_X], expected[MAX_Y], got[MAX_Y]; /* of the element, one behind the other */
} pattern;

static uint32_t next(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

static int32_t weight(const pattern *p, const bitcc_layer *layer, int32_t row, int32_t k) {
  int32_t vector = row / BITCC_TILE_ROWS * layer->k_blocks + k / BITCC_VECTOR_COLUMNS;
  int32_t byte = p->w[vector * BITCC_VECTOR_BYTES + 4 * (row % BITCC_TILE_ROWS) + k % 4];
  return (byte >> (2 * (k % 16 / 4)) & 3) - 1;
}

static void fill(pattern *p, const bitcc_layer *layer, int32_t tokens) {
  uint32_t state = (uint32_t)tokens;
  for (size_t i = 0; i < sizeof p->w; i++)
    p->w[i] = (uint8_t)next(&state);
  for (int32_t i = 0; i < tokens * layer->k; i++)
    p->x[i] = (float)(i % layer->k == 0 ? -LARGEST : (int32_t)(next(&state) % 255) - LARGEST);
  for (int32_t row = 0; row < ROWS; row++) {
    p->floats[row] = 0.5f;
    p->floats[ROWS + row] = (float)row;
  }
  for (int32_t i = 0; i < tokens * N; i++) {
    int32_t sum = 0;
    for (int32_t k = 0; k < layer->k; k++)
      sum += (int32_t)p->x[i / N * layer->k + k] * weight(p, layer, i % N, k);
    p->y[i] = 0.5f * (float)sum + (float)(i % N);
  }
}

static void to_element(void *out, const float *from, OrtElementType type, int32_t count) {
  uint16_t *half = out;
  if (type == ORT_FLOAT)
    memcpy(out, from, (size_t)count * sizeof *from);
  for (int32_t i = 0; type != ORT_FLOAT && i < count; i++)
    half[i] = type == ORT_FLOAT16 ? bitcc_to_half(from[i]) : bitcc_to_bfloat16(from[i]);
}

/* With all of it in `block`: the weights, x and y. */
static OrtStatus *run(const bitcc_node *probe, const bitcc_gpu *gpu, pattern *p, CUdeviceptr block,
                      const test_case *t, size_t x_bytes, size_t y_bytes) {
  bitcc_gpu_weights weights;
  bitcc_weights host = {.w = p->w, .scale = p->floats};
  CUdeviceptr x = block + bitcc_weights_bytes(&probe->layer), y = x + x_bytes;
  bitcc_call call = {.node = probe, .x = (const char *)(uintptr_t)x, .y = (char *)(uintptr_t)y};
  OrtStatus *status = bitcc_upload_weights(probe, gpu, NULL, &host, block, &weights);
  if (status == NULL)
    status = bitcc_try(probe, gpu->driver, cuMemcpyHtoDAsync, x, p->given, x_bytes, NULL);
  if (status == NULL)
    status = bitcc_run_on_gpu(&call, gpu, NULL, &weights, t->tokens, t->matmul);
  if (status == NULL)
    status = bitcc_try(probe, gpu->driver, cuMemcpyDtoHAsync, p->got, y, y_bytes, NULL);
  return bitcc_first(probe, status, bitcc_try(probe, gpu->driver, cuStreamSynchronize, NULL));
}

static OrtStatus *check(const bitcc_node *probe, const bitcc_gpu *gpu, pattern *p,
                        const test_case *t) {
  int32_t tokens = t->tokens;
  size_t size = bitcc_x_bytes(probe->x_type), y_bytes = (size_t)(tokens * N) * size,
         x_bytes = (size_t)(tokens * probe->layer.k) * size;
  CUdeviceptr block;
  to_element(p->given, p->x, probe->x_type, tokens * probe->layer.k);
  to_element(p->expected, p->y, probe->x_type, tokens * N);
  OrtStatus *status = bitcc_take_memory(
      probe, gpu, NULL, bitcc_weights_bytes(&probe->layer) + x_bytes + y_bytes, &block);
  if (status != NULL)
    return status;
  status = run(probe, gpu, p, block, t, x_bytes, y_bytes);
  status = bitcc_first(probe, status, bitcc_give_memory(probe, gpu, NULL, block));
  if (status != NULL || memcmp(p->got, p->expected, y_bytes) == 0)
    return status;
  bitcc_cuda_element element = bitcc_element_of(probe->x_type);
  return bitcc_node_error(
      probe,
      "%s, or a kernel before it, computes wrong numbers on this GPU; with BITCC_CUDA=off "
      "the CPU does without it; please report this",
      bitcc_cuda_kernels[t->matmul][element].name);
}

static bitcc_layer layer_of(int32_t tokens, int32_t k) {
  int32_t k_padded = bitcc_round_up(k, BITCC_K_ALIGNMENT);
  return (bitcc_layer){.n = N,
                       .k = k,
                       .tiles = TILES,
                       .k_blocks = k_padded / BITCC_VECTOR_COLUMNS,
                       .k_padded = k_padded,
                       .rows = ROWS,
                       .act_scale = BITCC_SCALE_QUOTIENT,
                       .per_tensor = tokens > 1,
                       .act_type = ORT_FLOAT,
                       .qmax = LARGEST,
                       .act_min = -LARGEST,
                       .act_max = LARGEST};
}

OrtStatus *bitcc_gpu_self_test(const bitcc_node *node, const bitcc_gpu *gpu) {
  static const OrtElementType types[BITCC_CUDA_ELEMENTS] = {ORT_FLOAT, ORT_FLOAT16, ORT_BFLOAT16};
  pattern *p = calloc(1, sizeof *p);
  if (p == NULL)
    return bitcc_node_error(node, "out of memory for %zu bytes of a self-test", sizeof *p);
  OrtStatus *status = NULL;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bitcc_node probe = {.api = node->api, .kind = node->kind, .name = node->name};
    probe.layer = layer_of(cases[i].tokens, cases[i].k);
    fill(p, &probe.layer, cases[i].tokens);
    for (int e = 0; status == NULL && e < BITCC_CUDA_ELEMENTS; e++) {
      probe.x_type = types[e];
      status = check(&probe, gpu, p, &cases[i]);
    }
  }
  free(p);
  return status;
}
