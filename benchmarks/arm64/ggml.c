/* A layer in ggml: the activations of each token quantized, then a dot product with each row of packed weights.

   So does ggml's own matrix product for these types, in blocks of 16 rows. Compiled with ggml's kernels, which are
   no part of bitcc. */

#include "ggml-quants.h"
#include "quants.h"

#define LAYER(type, block_weights, activations)                                                                        \
  void pack_##type(int n, int k, const float *w, block_##type *rows) {                                                 \
    quantize_row_##type##_ref(w, rows, (int64_t)n * k);                                                                \
  }                                                                                                                    \
  void multiply_##type(int n, int k, int m, const block_##type *rows, const float *x, void *q, float *y) {             \
    for (int token = 0; token < m; token++, x += k) {                                                                  \
      quantize_row_##activations(x, q, k);                                                                             \
      for (int row = 0; row < n; row++)                                                                                \
        ggml_vec_dot_##type##_##activations(k, y++, 0, rows + (int64_t)row * k / block_weights, 0, q, 0, 1);           \
    }                                                                                                                  \
  }

LAYER(tq2_0, QK_K, q8_K)
LAYER(tq1_0, QK_K, q8_K)
LAYER(q2_0, QK2_0, q8_0)
