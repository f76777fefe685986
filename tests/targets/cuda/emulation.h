/* A GPU on one core of the host: enough of CUDA C to run the generated kernels, one block after the other.
 *
 * Each thread of a block is a coroutine. It runs until it has to wait for others, at a barrier or where a warp
 * exchanges values; then the next one runs, in an order that the caller chooses. So everything that a program
 * may not rely on can be had: with two opposite orders, each of two threads is once ahead of the other between any
 * two barriers. A barrier can be left out, to see whether anything depends on it.
 *
 * What is not allowed is an error, not a result: a thread that ends or waits elsewhere while others are at a
 * barrier, an address of 16 bytes that is not aligned to them, an index outside of shared memory (UBSan traps).
 */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "half.h"

#define alignas(bytes) __attribute__((aligned(bytes))) /* which may follow `static` */
#define __global__
#define __shared__ static __attribute__((section("bitcc_shared")))
#define __launch_bounds__(...)

typedef unsigned short ushort;
typedef unsigned int uint;
struct alignas(16) int4 {
  int x, y, z, w;
};
static inline int4 make_int4(int x, int y, int z, int w) { return int4{x, y, z, w}; }

/* ---- threads ---- */

enum { WARP = 32, STACK = 64 << 10, MAX_COPIES = 64 };
enum bitcc_order { ASCENDING, DESCENDING, DRAWN };
enum bitcc_failure { NONE, DIVERGED_IN_WARP, DIVERGED_AT_BARRIER };
enum bitcc_state { READY, AT_BARRIER, IN_WARP, ENDED };

struct bitcc_thread {
  ucontext_t context; /* where it starts; from then on `place`, which costs no system calls */
  jmp_buf place;
  bool started;
  bitcc_state state;
  int barrier, exchanges;
  int64_t given[2][6]; /* to its warp; two of each, since others may still be reading the last one */
  struct {
    int *shared;
    const int *global;
    int group;
  } copy[MAX_COPIES];
  int copies, groups;
};

struct bitcc_place {
  int x, y;
};
static bitcc_place blockIdx, threadIdx;
static bitcc_thread *threads;
static jmp_buf scheduler;
static int current, left_out;
static uint32_t drawn;
static void (*entry)(void);
extern "C" char __start_bitcc_shared[], __stop_bitcc_shared[];

static void wait_as(bitcc_state state) {
  threads[current].state = state;
  if (_setjmp(threads[current].place) == 0)
    _longjmp(scheduler, 1);
}

static inline void wait_at(int barrier) {
  threads[current].barrier = barrier;
  if (barrier != left_out)
    wait_as(AT_BARRIER);
}
#define __syncthreads() wait_at(__COUNTER__)

static void start(void) {
  entry();
  wait_as(ENDED);
}

static void resume(int thread) {
  current = thread;
  threadIdx.x = thread;
  threads[thread].state = READY;
  if (_setjmp(scheduler) != 0)
    return;
  if (threads[thread].started)
    _longjmp(threads[thread].place, 1);
  threads[thread].started = true;
  setcontext(&threads[thread].context);
}

static void make_order(int *order, int count, bitcc_order kind) {
  for (int i = 0; i < count; i++)
    order[i] = kind == DESCENDING ? count - 1 - i : i;
  for (int i = count - 1; i > 0 && kind == DRAWN; i--) {
    drawn = drawn * 1664525u + 1013904223u;
    int j = (int)((drawn >> 8) % (uint32_t)(i + 1)), other = order[j];
    order[j] = order[i];
    order[i] = other;
  }
}

/* Until all threads of a warp are at a barrier or have ended. */
static bitcc_failure run_warp(int first, bitcc_order kind) {
  int order[WARP];
  for (;;) {
    int exchanging = 0;
    make_order(order, WARP, kind);
    for (int i = 0; i < WARP; i++)
      resume(first + order[i]);
    for (int i = 0; i < WARP; i++)
      exchanging += threads[first + i].state == IN_WARP;
    if (exchanging == 0)
      return NONE;
    if (exchanging != WARP)
      return DIVERGED_IN_WARP;
  }
}

static bitcc_failure run_block(int count, bitcc_order kind) {
  int order[WARP];
  for (;;) {
    make_order(order, count / WARP, kind);
    for (int i = 0; i < count / WARP; i++) {
      bitcc_failure failure = run_warp(order[i] * WARP, kind);
      if (failure != NONE)
        return failure;
    }
    for (int i = 1; i < count; i++)
      if (threads[i].state != threads[0].state ||
          (threads[i].state == AT_BARRIER && threads[i].barrier != threads[0].barrier))
        return DIVERGED_AT_BARRIER;
    if (threads[0].state == ENDED)
      return NONE;
  }
}

/* Run all blocks of a grid; `without` is the number of a barrier to leave out, or -1. */
static bitcc_failure run_grid(int blocks_x, int blocks_y, int count, bitcc_order kind, int without) {
  bitcc_failure failure = NONE;
  char *stacks = static_cast<char *>(malloc(static_cast<size_t>(count) * STACK));
  threads = static_cast<bitcc_thread *>(malloc(static_cast<size_t>(count) * sizeof *threads));
  left_out = without;
  for (int block = 0; block < blocks_x * blocks_y && failure == NONE; block++) {
    blockIdx = {block % blocks_x, block / blocks_x};
    memset(__start_bitcc_shared, 0xa5, static_cast<size_t>(__stop_bitcc_shared - __start_bitcc_shared));
    memset(threads, 0, static_cast<size_t>(count) * sizeof *threads);
    for (int i = 0; i < count; i++) {
      getcontext(&threads[i].context);
      threads[i].context.uc_stack.ss_sp = stacks + static_cast<size_t>(i) * STACK;
      threads[i].context.uc_stack.ss_size = STACK;
      makecontext(&threads[i].context, start, 0);
    }
    failure = run_block(count, kind);
  }
  free(threads);
  free(stacks);
  return failure;
}

static void *closure;
template <typename Body>
static int launch(Body body, int blocks_x, int blocks_y, int count, int kind, int without) {
  closure = &body;
  entry = [] { (*static_cast<Body *>(closure))(); };
  return run_grid(blocks_x, blocks_y, count, static_cast<bitcc_order>(kind), without);
}

/* ---- what the kernels call ---- */

static inline int64_t *give(void) { return threads[current].given[threads[current].exchanges % 2]; }

/* What the 32 threads of the warp gave, by number. */
struct bitcc_warp {
  int first, turn;
  const int64_t *operator[](int lane) const { return threads[first + lane].given[turn]; }
};
static inline bitcc_warp exchange(void) {
  bitcc_warp warp = {current / WARP * WARP, threads[current].exchanges % 2};
  threads[current].exchanges++;
  wait_as(IN_WARP);
  return warp;
}

template <typename T> static inline T __shfl_xor_sync(uint32_t, T value, int distance) {
  memcpy(give(), &value, sizeof value);
  int lane = current % WARP;
  T result;
  memcpy(&result, exchange()[lane ^ distance], sizeof result);
  return result;
}

static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8)
    c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}

/* As the PTX manual gives the fragments of mma.m16n8k32 for bytes. */
static inline void bitcc_mma(int *acc, int a0, int a1, int a2, int a3, int b0, int b1) {
  int64_t fragments[] = {a0, a1, a2, a3, b0, b1};
  memcpy(give(), fragments, sizeof fragments);
  int group = current % WARP / 4, in_group = current % 4;
  bitcc_warp warp = exchange();
  for (int i = 0; i < 4; i++)
    for (int part = 0; part < 4; part++) {
      const int64_t *a = warp[4 * group + part], *b = warp[4 * (2 * in_group + i % 2) + part];
      acc[i] = __dp4a(static_cast<int>(a[i / 2]), static_cast<int>(b[4]), acc[i]);
      acc[i] = __dp4a(static_cast<int>(a[2 + i / 2]), static_cast<int>(b[5]), acc[i]);
    }
}

/* The same for mma.m8n8k16. */
static inline void bitcc_mma_8x16(int *acc, int a, int b) {
  int64_t fragments[] = {a, b};
  memcpy(give(), fragments, sizeof fragments);
  int group = current % WARP / 4, in_group = current % 4;
  bitcc_warp warp = exchange();
  for (int i = 0; i < 2; i++)
    for (int part = 0; part < 4; part++)
      acc[i] = __dp4a(static_cast<int>(warp[4 * group + part][0]),
                      static_cast<int>(warp[4 * (2 * in_group + i) + part][1]), acc[i]);
}

/* ---- memory ---- */

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) ushort4 {
  ushort x, y, z, w;
};
template <typename T> static inline void bitcc_load_quad(T *out, const T *x, int count) {
  for (int i = 0; i < 4; i++)
    out[i] = i < count ? x[i] : T(0);
}
static inline void bitcc_store_quad(float *out, float a, float b, float c, float d) {
  *reinterpret_cast<float4 *>(out) = float4{a, b, c, d};
}
static inline void bitcc_store_quad(uint16_t *out, int a, int b, int c, int d) {
  *reinterpret_cast<ushort4 *>(out) = ushort4{(ushort)a, (ushort)b, (ushort)c, (ushort)d};
}

/* A copy is done as late as it may be: when its thread waits for it. */
static inline void bitcc_copy(int *shared, const int *global) {
  bitcc_thread *thread = &threads[current];
  if (thread->copies == MAX_COPIES)
    abort();
  thread->copy[thread->copies++] = {shared, global, thread->groups};
}
static inline void bitcc_end_copies(void) { threads[current].groups++; }
template <int pending> static inline void bitcc_wait_copies(void) {
  bitcc_thread *thread = &threads[current];
  int kept = 0;
  for (int i = 0; i < thread->copies; i++)
    if (thread->copy[i].group < thread->groups - pending)
      *reinterpret_cast<int4 *>(thread->copy[i].shared) =
          *reinterpret_cast<const int4 *>(thread->copy[i].global);
    else
      thread->copy[kept++] = thread->copy[i];
  thread->copies = kept;
}

#define __device__
namespace turing {
#include "cuda_turing.h"
}

/* One multiplication both ways, of [32][6] fragments to [32][4] sums each. */
extern "C" int multiply_both_ways(const int *fragments, int *whole, int *parts) {
  return launch(
      [=] {
        const int *f = fragments + 6 * threadIdx.x;
        bitcc_mma(whole + 4 * threadIdx.x, f[0], f[1], f[2], f[3], f[4], f[5]);
        turing::bitcc_mma(parts + 4 * threadIdx.x, f[0], f[1], f[2], f[3], f[4], f[5]);
      },
      1, 1, WARP, ASCENDING, -1);
}

static inline void load_16_bytes(int *out, const int *address, int there) {
  int4 v = there ? *reinterpret_cast<const int4 *>(address) : make_int4(0, 0, 0, 0);
  memcpy(out, &v, sizeof v);
}
#define bitcc_load_weights load_16_bytes
#define bitcc_load_codes load_16_bytes

static inline int __float_as_int(float value) { return static_cast<int>(bitcc_bits(value)); }
static inline float __int_as_float(int bits) { return bitcc_float(static_cast<uint32_t>(bits)); }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int atomicMax(int *address, int value) {
  int old = *address;
  *address = max(old, value);
  return old;
}
