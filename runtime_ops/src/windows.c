/* What a library on Windows would take from a compiler's runtime: the entry point, stack probes and
 * printf. Everything else is in the C runtime that Windows 10 and newer bring along. */
#include "library.h"

#if defined(_WIN32)

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

int DllMainCRTStartup(void *module, uint32_t reason, void *reserved);
void ___chkstk_ms(void);

enum { STANDARD_SNPRINTF = 2 }; /* ends what it cuts with a zero, and counts all of it */

int DllMainCRTStartup(void *module, uint32_t reason, void *reserved) {
  (void)module, (void)reason, (void)reserved;
  return 1;
}

int vsnprintf(char *out, size_t size, const char *format, va_list arguments) {
  return __stdio_common_vsprintf(STANDARD_SNPRINTF, out, size, format, NULL, arguments);
}

int snprintf(char *out, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = vsnprintf(out, size, format, arguments);
  va_end(arguments);
  return written;
}

int fprintf(FILE *file, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = __stdio_common_vfprintf(0, file, format, NULL, arguments);
  va_end(arguments);
  return written;
}

/* Compilers call it with the size of a frame of more than a page in rax, before the stack pointer
 * moves: Windows grows the stack only where each page is touched in turn. Every register is kept. */
__attribute__((naked)) void ___chkstk_ms(void) {
  __asm__("pushq %rax\n\t"
          "pushq %rcx\n\t"
          "leaq 24(%rsp), %rcx\n" /* the caller's stack pointer */
          "1:\n\t"
          "cmpq $4096, %rax\n\t"
          "jbe 2f\n\t"
          "subq $4096, %rcx\n\t"
          "orb $0, (%rcx)\n\t"
          "subq $4096, %rax\n\t"
          "jmp 1b\n"
          "2:\n\t"
          "subq %rax, %rcx\n\t"
          "orb $0, (%rcx)\n\t"
          "popq %rcx\n\t"
          "popq %rax\n\t"
          "retq");
}

#endif
