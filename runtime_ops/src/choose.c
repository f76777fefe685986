/* Which variant runs in this process. */
#include <stdbool.h>
#include <stdlib.h>

#include "library.h"

bitcc_choice bitcc_choose(void) {
  const char *forced = getenv("BITCC_ISA"), *none_left;
  bool is_forced = forced != NULL && forced[0] != '\0';
  uint64_t cpu = bitcc_cpu_features();
  bitcc_choice choice = {.kernels = NULL};
  choice.kernels = bitcc_select(bitcc_variants, cpu, forced, &choice.error);
  while (choice.kernels != NULL) {
    const char *family = bitcc_self_test(choice.kernels);
    if (family == NULL)
      break;
    if (choice.wrong == NULL) {
      choice.wrong = choice.kernels;
      choice.family = family;
    }
    choice.kernels =
        is_forced ? NULL : bitcc_select(choice.kernels + 1, cpu, NULL, &none_left);
  }
  return choice;
}
