/* Runs a model of one float32 input X [rows, columns] and one float32 output Y in onnxruntime on Windows, with
 * an op library: reads onnxruntime.dll, bitcc_ops.dll, model.onnx and x.bin, writes y.bin, and says what went
 * wrong on stdout. It has no runtime of its own, so that building it takes a second. */
#include <stdint.h>
#include <stdio.h>
#include <windows.h>

typedef void *(__stdcall *function)();
typedef struct {
  const function *(__stdcall *GetApi)(uint32_t version);
} api_base;

/* The places of functions in onnxruntime's table. */
enum {
  GET_ERROR_MESSAGE = 2,
  CREATE_ENV = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_SESSION_OPTIONS = 10,
  REGISTER_CUSTOM_OPS_LIBRARY = 29,
  CREATE_TENSOR_WITH_DATA = 49,
  GET_TENSOR_MUTABLE_DATA = 51,
  GET_TENSOR_ELEMENT_COUNT = 64,
  GET_TENSOR_TYPE_AND_SHAPE = 65,
  CREATE_CPU_MEMORY_INFO = 69,
};
enum { WARNING = 2, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0, FLOAT32 = 1, MAX_VALUES = 1 << 16 };

static const function *api;
static float x[MAX_VALUES];

static void check(void *status) {
  if (status == NULL)
    return;
  puts(api[GET_ERROR_MESSAGE](status));
  ExitProcess(1);
}

static size_t read_x(int64_t shape[2]) {
  FILE *file = fopen("x.bin", "rb");
  fread(shape, sizeof *shape, 2, file);
  size_t count = fread(x, sizeof *x, MAX_VALUES, file);
  fclose(file);
  return count;
}

static void write_y(void *y) {
  void *shape, *data;
  size_t count;
  check(api[GET_TENSOR_MUTABLE_DATA](y, &data));
  check(api[GET_TENSOR_TYPE_AND_SHAPE](y, &shape));
  check(api[GET_TENSOR_ELEMENT_COUNT](shape, &count));
  FILE *file = fopen("y.bin", "wb");
  fwrite(data, sizeof(float), count, file);
  fclose(file);
}

void start(void) {
  HMODULE onnxruntime = LoadLibraryA("onnxruntime.dll");
  if (onnxruntime == NULL) {
    puts("onnxruntime.dll cannot be loaded");
    ExitProcess(1);
  }
  api = ((api_base *)((function)(void *)GetProcAddress(onnxruntime, "OrtGetApiBase"))())->GetApi(17);
  void *environment, *options, *handle, *session, *memory, *input, *output = NULL;
  int64_t shape[2];
  size_t count = read_x(shape);
  check(api[CREATE_ENV](WARNING, "run_layer", &environment));
  check(api[CREATE_SESSION_OPTIONS](&options));
  check(api[REGISTER_CUSTOM_OPS_LIBRARY](options, "bitcc_ops.dll", &handle));
  check(api[CREATE_SESSION](environment, L"model.onnx", options, &session));
  check(api[CREATE_CPU_MEMORY_INFO](DEVICE_ALLOCATOR, DEFAULT_MEMORY, &memory));
  check(api[CREATE_TENSOR_WITH_DATA](memory, x, count * sizeof *x, shape, (size_t)2, FLOAT32, &input));
  const char *inputs[] = {"x"}, *outputs[] = {"y"};
  const void *values[] = {input};
  check(api[RUN](session, NULL, inputs, values, (size_t)1, outputs, (size_t)1, &output));
  write_y(output);
  ExitProcess(0);
}
