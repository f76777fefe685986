#include <stdarg.h>
#include <stdio.h>

#include "library.h"

OrtStatus *bitcc_error(const OrtApi *api, OrtErrorCode code, const char *format, ...) {
  char message[1024]; /* a longer one is cut: node names have no limit */
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return api->CreateStatus(code, message);
}
