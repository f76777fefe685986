/* host numbers|refusals|faults|threads|overrun|race: as host.h says. */
#include "host.h"

void overrun(void) {
  int64_t dims[] = {3};
  OrtValue *value = new_value(ORT_UINT8, 1, dims, 1);
  const volatile char *data = value->data;
  if (data[3] == 1)
    puts("one");
  free_value(value);
}

int main(int count, char **arguments) {
  static const struct {
    const char *name;
    void (*run)(void);
  } modes[] = {{"numbers", numbers}, {"refusals", refusals}, {"faults", faults},
               {"threads", threads}, {"overrun", overrun},   {"race", race}};
  char about[1024];
  bitcc_library_info(about, sizeof about);
  fprintf(stderr, "%s\n", about);
  open_library();
  for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
    if (count == 2 && strcmp(arguments[1], modes[i].name) == 0) {
      modes[i].run();
      check_nothing_lives(modes[i].name);
      return 0;
    }
  die("usage: host MODE, one of those in host.h");
}
