/* What is alive, what fails, and errors. */
#include <stdarg.h>

#include "host.h"

void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

atomic_int live_statuses, live_infos;
atomic_long until_fault = -1;

bool fails(void) {
  return atomic_load(&until_fault) > 0 && atomic_fetch_sub(&until_fault, 1) == 1;
}

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) {
  return fails() ? NULL : __real_calloc(count, size);
}

void *memory(size_t size) {
  void *block = __real_malloc(size);
  if (block == NULL)
    die("the host is out of memory");
  return block;
}

OrtStatus *create_status(OrtErrorCode code, const char *message) {
  (void)code;
  OrtStatus *status = memory(sizeof *status);
  snprintf(status->message, sizeof status->message, "%s", message);
  atomic_fetch_add(&live_statuses, 1);
  return status;
}

void release_status(OrtStatus *status) {
  atomic_fetch_sub(&live_statuses, status != NULL);
  free(status);
}

void check_nothing_lives(const char *where) {
  if (atomic_load(&live_statuses) != 0 || atomic_load(&live_infos) != 0)
    die("%s: %d statuses and %d shapes were not released", where, atomic_load(&live_statuses),
        atomic_load(&live_infos));
}
