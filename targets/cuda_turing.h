/* What only later GPUs have: `bitcc_mma` of cuda_device.h, made of four multiplications of a quarter of its size. */
__device__ static inline void bitcc_mma(int *acc, int a0, int a1, int a2, int a3, int b0, int b1) {
  bitcc_mma_8x16(acc, a0, b0);
  bitcc_mma_8x16(acc, a2, b1);
  bitcc_mma_8x16(acc + 2, a1, b0);
  bitcc_mma_8x16(acc + 2, a3, b1);
}

/* Its copies are done at once. */
__device__ static inline void bitcc_copy(int *shared, const int *global) {
  *(int4 *)shared = *(const int4 *)global;
}
__device__ static inline void bitcc_end_copies(void) {}
template <int pending> __device__ static inline void bitcc_wait_copies(void) {}
