/* What the generated CUDA kernels call and CUDA C does not have. Part of their source, before them. */
#pragma nv_diag_suppress 177 /* TVM declares variables that it does not use */
#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
typedef unsigned short ushort;
typedef unsigned int uint;

/* acc[16][8] += a[16][32] * b[32][8], bytes with a sign, by the 32 threads of a warp. Thread 4*g + t has
 * of a rows g (a0, a2) and g + 8 (a1, a3), columns 4*t.. (a0, a1) and 16 + 4*t.. (a2, a3), of b the same
 * columns (b0, b1) of token g, and of acc rows g (0, 1) and g + 8 (2, 3), tokens 2*t and 2*t + 1. */
#if __CUDA_ARCH__ >= 800
__device__ static inline void bitcc_mma(int *acc, int a0, int a1, int a2, int a3, int b0, int b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#else /* Turing multiplies 8 rows by 16 columns at once: cuda_turing.h */
__device__ static inline void bitcc_mma_8x16(int *acc, int a, int b) {
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(acc[0]), "+r"(acc[1])
               : "r"(a), "r"(b));
}
#endif

/* 16 bytes from an aligned address, or zeros. Compilers move loads down to where they are used, and a thread would
 * wait for each of them. Loads of weights are such that they stay above the next barrier, and leave L1 to the
 * activations, since each is read once. */
#define BITCC_LOAD(function, instruction)                                                          \
  __device__ static inline void function(int *out, const int *address, int there) {                \
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %5, 0; mov.s32 %0, 0; mov.s32 %1, 0;"             \
                 " mov.s32 %2, 0; mov.s32 %3, 0; @p " instruction " {%0,%1,%2,%3}, [%4]; }"        \
                 : "=&r"(out[0]), "=&r"(out[1]), "=&r"(out[2]), "=&r"(out[3])                      \
                 : "l"(address), "r"(there)                                                        \
                 : "memory");                                                                      \
  }
BITCC_LOAD(bitcc_load_weights, "ld.global.L1::no_allocate.v4.s32")
BITCC_LOAD(bitcc_load_codes, "ld.global.nc.v4.s32")

/* 16 bytes from global to shared memory, done when `bitcc_wait_copies` says so; Turing has no such: cuda_turing.h. */
#if __CUDA_ARCH__ >= 800
__device__ static inline void bitcc_copy(int *shared, const int *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(global)
               : "memory");
}
/* What this thread has begun to copy since the last time is a group. */
__device__ static inline void bitcc_end_copies(void) {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until all of this thread's groups are copied but the last `pending`. */
template <int pending> __device__ static inline void bitcc_wait_copies(void) {
  asm volatile("cp.async.wait_group %0;" : : "n"(pending) : "memory");
}
#endif

/* The first `count` of four elements, zeros for the others: by one load where they are aligned for it. */
template <typename Vector, typename T>
__device__ static inline void bitcc_load_four(T *out, const T *x, int count) {
  if (count >= 4 && (uint64_t)x % sizeof(Vector) == 0) {
    Vector all = *(const Vector *)x;
    out[0] = all.x, out[1] = all.y, out[2] = all.z, out[3] = all.w;
  } else {
    for (int i = 0; i < 4; i++)
      out[i] = i < count ? x[i] : (T)0;
  }
}
__device__ static inline void bitcc_load_quad(float *out, const float *x, int count) {
  bitcc_load_four<float4>(out, x, count);
}
__device__ static inline void bitcc_load_quad(uint16_t *out, const uint16_t *x, int count) {
  bitcc_load_four<ushort4>(out, x, count);
}

__device__ static inline void bitcc_store_quad(float *out, float a, float b, float c, float d) {
  *(float4 *)out = make_float4(a, b, c, d);
}
__device__ static inline void bitcc_store_quad(uint16_t *out, uint16_t a, uint16_t b, uint16_t c,
                                               uint16_t d) {
  *(ushort4 *)out = make_ushort4(a, b, c, d);
}

/* float16 and bfloat16 as their bits, ties to even. */
__device__ static inline float bitcc_from_half(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
__device__ static inline uint16_t bitcc_to_half(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
__device__ static inline float bitcc_from_bfloat16(uint16_t value) {
  return __uint_as_float((uint32_t)value << 16);
}
__device__ static inline uint16_t bitcc_to_bfloat16(float value) {
  uint32_t bits = __float_as_uint(value);
  uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)((bits & 0x7fffffffu) > 255u << 23 ? bits >> 16 | 0x0040u : rounded);
}
