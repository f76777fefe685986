#include <stdio.h>
#include <string.h>

#include "library.h"

const bitcc_kernels *bitcc_select(const bitcc_kernels *table, uint64_t cpu, const char *forced_isa,
                                  const char **error) {
  int forced = forced_isa != NULL && forced_isa[0] != '\0';
  for (const bitcc_kernels *variant = table; variant->isa != NULL; variant++) {
    if (forced && strcmp(variant->isa, forced_isa) != 0)
      continue;
    if ((variant->cpu & ~cpu) == 0)
      return variant;
    if (forced) {
      *error = "cannot run on this CPU";
      return NULL;
    }
  }
  *error = forced ? "is not in this library" : "has no variant that runs on this CPU";
  return NULL;
}

static void append(char *out, size_t size, const char *quote, const char *name) {
  size_t used = strlen(out);
  snprintf(out + used, size - used, "%s%s%s%s", used == 0 ? "" : ",", quote, name, quote);
}

void bitcc_list_variants(char *out, size_t size, const bitcc_kernels *table, uint64_t cpu,
                         const char *quote) {
  out[0] = '\0';
  for (const bitcc_kernels *variant = table; variant->isa != NULL; variant++)
    if ((variant->cpu & ~cpu) == 0)
      append(out, size, quote, variant->isa);
}

void bitcc_list_features(char *out, size_t size, uint64_t cpu, const char *quote) {
  static const struct {
    uint64_t bit;
    const char *name;
  } features[] = {{BITCC_CPU_AVX2, "avx2"},
                {BITCC_CPU_AVXVNNI, "avxvnni"},
                {BITCC_CPU_AVX512VNNI, "avx512vnni"},
                {BITCC_CPU_AVX512VBMI, "avx512vbmi"},
                {BITCC_CPU_ZEN5, "zen5"},
                {BITCC_CPU_AMXINT8, "amxint8"},
                {BITCC_CPU_NEON, "neon"},
                {BITCC_CPU_DOTPROD, "dotprod"},
                {BITCC_CPU_I8MM, "i8mm"}};
  out[0] = '\0';
  for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
    if (cpu & features[i].bit)
      append(out, size, quote, features[i].name);
}
