/* onnxruntime keeps pointers into a custom op library after it has unloaded it, so this one stays.
 * On Linux and Android the linker says so (-z nodelete). */
#include "library.h"

#if defined(_WIN32)

#include <windows.h>

void bitcc_stay_loaded(void) {
  HMODULE module;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                     (LPCWSTR)(const void *)bitcc_variants, &module);
}

#elif defined(__APPLE__)

#include <dlfcn.h>

void bitcc_stay_loaded(void) {
  Dl_info here;
  if (dladdr(bitcc_variants, &here) != 0)
    dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

#else

void bitcc_stay_loaded(void) {}

#endif
