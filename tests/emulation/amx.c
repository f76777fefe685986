/* The tile instructions of AMX-INT8 in plain C, by the operation sections of Intel's manual: on a CPU
 * without them a kernel of TVM's TIR calls these. What would be a fault there is kept as a sentence here.
 * A thread has tiles of its own; the first fault of any thread counts. */
#include <stdint.h>
#include <string.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

#define EXPORT __attribute__((visibility("default")))

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[TILES];
  uint8_t reserved_row_bytes[16];
  uint8_t rows[TILES];
  uint8_t reserved_rows[8];
} config;
_Static_assert(sizeof(config) == 64, "as in memory");

static _Thread_local config now; /* palette 0: not configured */
static _Thread_local uint8_t data[TILES][ROWS][ROW_BYTES];
static const char *fault; /* atomic */

static void fail(const char *what) {
  const char *none = NULL;
  __atomic_compare_exchange_n(&fault, &none, what, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The first fault since the last call, or NULL. */
EXPORT const char *emulated_fault(void) {
  return __atomic_exchange_n(&fault, NULL, __ATOMIC_SEQ_CST);
}

static int is_zero(const uint8_t *bytes, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (bytes[i] != 0)
      return 0;
  return 1;
}

static const char *problem_of(const config *c) {
  if (c->palette > 1)
    return "ldtilecfg: palette";
  if (!is_zero(c->reserved, sizeof c->reserved) ||
      !is_zero(c->reserved_row_bytes, sizeof c->reserved_row_bytes) ||
      !is_zero(c->reserved_rows, sizeof c->reserved_rows))
    return "ldtilecfg: reserved bytes";
  if (c->start_row != 0)
    return "ldtilecfg: start row"; /* legal, and of no use but to go on after a page fault */
  for (int i = 0; i < TILES; i++) {
    if (c->row_bytes[i] > ROW_BYTES)
      return "ldtilecfg: bytes of a row";
    if (c->rows[i] > ROWS)
      return "ldtilecfg: rows";
    if ((c->row_bytes[i] == 0) != (c->rows[i] == 0))
      return "ldtilecfg: rows without bytes, or bytes without rows";
  }
  return NULL;
}

EXPORT void emulated_ldtilecfg(const uint8_t *bytes) {
  config c;
  memcpy(&c, bytes, sizeof c);
  if (c.palette == 0)
    memset(&c, 0, sizeof c);
  const char *problem = problem_of(&c);
  if (problem != NULL) {
    fail(problem);
    return;
  }
  now = c;
  memset(data, 0, sizeof data);
}

EXPORT void emulated_sttilecfg(uint8_t *bytes) { memcpy(bytes, &now, sizeof now); }

EXPORT void emulated_tilerelease(void) {
  memset(&now, 0, sizeof now);
  memset(data, 0, sizeof data);
}

static int is_usable(uint8_t tile) {
  if (now.palette == 0)
    fail("no configuration");
  else if (tile >= TILES)
    fail("no such tile");
  else if (now.rows[tile] == 0)
    fail("a tile without rows");
  else
    return 1;
  return 0;
}

EXPORT void emulated_tileloadd64(uint8_t tile, const uint8_t *from, int64_t stride) {
  if (!is_usable(tile))
    return;
  memset(data[tile], 0, sizeof data[tile]);
  for (int row = 0; row < now.rows[tile]; row++)
    memcpy(data[tile][row], from + row * stride, now.row_bytes[tile]);
}

EXPORT void emulated_tilestored64(uint8_t tile, uint8_t *to, int64_t stride) {
  if (!is_usable(tile))
    return;
  for (int row = 0; row < now.rows[tile]; row++)
    memcpy(to + row * stride, data[tile][row], now.row_bytes[tile]);
}

/* sums += signed bytes of `a` times unsigned bytes of `b`, four at a time. */
EXPORT void emulated_tdpbsud(uint8_t sums, uint8_t a, uint8_t b) {
  if (!is_usable(sums) || !is_usable(a) || !is_usable(b))
    return;
  int columns = now.row_bytes[sums] / 4, fours = now.row_bytes[a] / 4;
  if (sums == a || sums == b || a == b) {
    fail("tdpbsud: the same tile twice");
    return;
  }
  if (now.row_bytes[sums] % 4 || now.row_bytes[a] % 4 || now.row_bytes[b] != now.row_bytes[sums] ||
      now.rows[sums] != now.rows[a] || fours != now.rows[b]) {
    fail("tdpbsud: shapes");
    return;
  }
  for (int row = 0; row < now.rows[sums]; row++)
    for (int column = 0; column < columns; column++) {
      uint32_t total; /* wraps around */
      memcpy(&total, &data[sums][row][4 * column], 4);
      for (int four = 0; four < fours; four++)
        for (int i = 0; i < 4; i++)
          total += (uint32_t)((int8_t)data[a][row][4 * four + i] * data[b][four][4 * column + i]);
      memcpy(&data[sums][row][4 * column], &total, 4);
    }
}
