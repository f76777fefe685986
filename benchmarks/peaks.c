/* What an x86-64 core can do at most: instructions on registers alone, and reads of memory. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Enough independent sums that none waits for its last addition. */
#define TWELVE(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11)
#define CLOBBERED                                                                                 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
#define PEAK(name, one)                                                                           \
  void name(int64_t rounds) {                                                                     \
    for (int64_t i = 0; i < rounds; i++)                                                          \
      __asm__ volatile(TWELVE(one)::: CLOBBERED);                                                 \
  }

#define VNNI_512(k) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #k "\n"
#define VNNI_256(k) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #k "\n"
#define MADDUBS(k) "vpmaddubsw %%ymm14, %%ymm15, %%ymm" #k "\n"
PEAK(peak_avx512vnni, VNNI_512)
PEAK(peak_avxvnni, VNNI_256)
PEAK(peak_avx2, MADDUBS)

/* Six sums in tiles of 16 rows of 64 bytes. The tiles are this thread's alone; none stay configured. */
#define TILES(k) "tdpbsud %%tmm7, %%tmm6, %%tmm" #k "\n"
#define SIX(one) one(0) one(1) one(2) one(3) one(4) one(5)
void peak_amx(int64_t rounds) {
  unsigned char config[64] = {1};
  for (int tile = 0; tile < 8; tile++) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  for (int64_t i = 0; i < rounds; i++)
    __asm__ volatile(SIX(TILES) SIX(TILES)::);
  __asm__ volatile("tilerelease");
}

/* The best way to read depends on the machine: so many streams side by side, each prefetched so far
 * ahead. The result depends on every byte, so that none is left out. */
#define READ(name, isa, vector, zero, load, add)                                                  \
  __attribute__((target(isa), always_inline)) static inline int64_t name##_streams(               \
      const char *data, size_t bytes, size_t ahead, size_t streams) {                             \
    vector sums[8];                                                                               \
    size_t stride = bytes / streams;                                                              \
    int64_t out[sizeof(vector) / 8], total = 0;                                                   \
    for (size_t i = 0; i < streams; i++)                                                          \
      sums[i] = zero();                                                                           \
    for (size_t at = 0; at < stride; at += 64)                                                    \
      for (size_t i = 0; i < streams; i++) {                                                      \
        const char *line = data + i * stride + at;                                                \
        if (ahead != 0)                                                                           \
          _mm_prefetch(line + ahead, _MM_HINT_T0);                                                \
        for (size_t byte = 0; byte < 64; byte += sizeof(vector))                                  \
          sums[i] = add(sums[i], load((const void *)(line + byte)));                              \
      }                                                                                           \
    for (size_t i = 0; i < streams; i++) {                                                        \
      __builtin_memcpy(out, &sums[i], sizeof out);                                                \
      for (size_t lane = 0; lane < sizeof(vector) / 8; lane++)                                    \
        total += out[lane];                                                                       \
    }                                                                                             \
    return total;                                                                                 \
  }                                                                                               \
  __attribute__((target(isa))) int64_t name(const char *data, size_t bytes, size_t ahead,         \
                                            int streams) {                                        \
    switch (streams) {                                                                            \
    case 8:                                                                                       \
      return name##_streams(data, bytes, ahead, 8);                                               \
    case 4:                                                                                       \
      return name##_streams(data, bytes, ahead, 4);                                               \
    case 2:                                                                                       \
      return name##_streams(data, bytes, ahead, 2);                                               \
    default:                                                                                      \
      return name##_streams(data, bytes, ahead, 1);                                               \
    }                                                                                             \
  }
READ(read_avx512vnni, "avx512f", __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_add_epi64)
READ(read_avx2, "avx2", __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_add_epi64)
