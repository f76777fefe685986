/* libcuda.so.1 on a host without a GPU: its memory is memory of the host that the host cannot
 * touch, and its kernels are the emulated ones.
 *
 * A device address is no address of the host, so that either one in place of the other is a fault
 * or an error. New memory is junk, and ends before a page that nobody may touch. Work on a stream
 * is done when the host waits for that stream and no sooner; streams do not wait for each other.
 * Every call can be made to fail. What is alive is counted.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bitcc/cuda_api.h"

enum { PAGE = 4096, JUNK = 0x7f, ALIGNMENT = 256, MOST = 4096, ARGUMENTS = 20 };
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400 };
enum { NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, LAUNCH_FAILURE = 719, UNKNOWN = 999 };
static const CUdeviceptr NOT_OF_THE_HOST = 1ull << 60;

/* ---- what tests set and read ---- */

long fake_capability = 90, fake_has_pools = 1, fake_processors = 1;
long fake_order;            /* in which the threads of a block run, as emulation.h numbers it */
const char *fake_broken;    /* the kernel that does nothing */
long fake_until_fault = -1; /* the call that brings it to 0 fails */
long fake_calls;
long fake_live;              /* blocks, pools and modules */
long fake_depth;             /* contexts pushed and not popped */
long fake_violations;        /* what a kernel was given and may not have */
char fake_loaded[64];        /* the begin of the last image */
char fake_launched[1 << 16]; /* names of kernels that ran, with the stream, one a line */

static bool fails(void) {
  fake_calls++;
  return fake_until_fault > 0 && --fake_until_fault == 0;
}
#define MAY_FAIL                                                                                  \
  if (fails())                                                                                    \
  return UNKNOWN

/* ---- contexts: one of them is current from the begin, as onnxruntime makes it ---- */

struct CUctx_st {
  int device;
};
static struct CUctx_st contexts[2] = {{0}, {1}};
static _Thread_local CUcontext stack[16] = {contexts};
static _Thread_local int top;

void fake_make_current(int which) { stack[top] = which < 0 ? NULL : &contexts[which]; }

CUresult cuInit(unsigned flags) {
  MAY_FAIL;
  return flags == 0 ? 0 : INVALID_VALUE;
}
CUresult cuGetErrorString(CUresult error, const char **out) {
  *out = error == OUT_OF_MEMORY ? "out of memory" : error == UNKNOWN ? "unknown error" : NULL;
  return *out == NULL ? INVALID_VALUE : 0;
}
CUresult cuCtxGetCurrent(CUcontext *out) {
  MAY_FAIL;
  *out = stack[top];
  return 0;
}
CUresult cuCtxPushCurrent_v2(CUcontext context) {
  MAY_FAIL;
  stack[++top] = context;
  fake_depth++;
  return 0;
}
CUresult cuCtxPopCurrent_v2(CUcontext *out) {
  *out = stack[top--];
  fake_depth--;
  MAY_FAIL;
  return 0;
}
CUresult cuCtxGetDevice(CUdevice *out) {
  MAY_FAIL;
  if (stack[top] == NULL)
    return INVALID_CONTEXT;
  *out = stack[top]->device;
  return 0;
}
CUresult cuDeviceGetName(char *out, int size, CUdevice device) {
  MAY_FAIL;
  snprintf(out, (size_t)size, "a GPU of paper %d", device);
  return 0;
}
CUresult cuDeviceGetAttribute(int *out, int attribute, CUdevice device) {
  (void)device;
  MAY_FAIL;
  *out = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? (int)fake_capability / 10
         : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? (int)fake_capability % 10
         : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT     ? (int)fake_processors
         : attribute == CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED   ? (int)fake_has_pools
                                                                     : -1;
  return *out < 0 ? INVALID_VALUE : 0;
}

/* ---- memory ---- */

typedef struct {
  char *pages, *begin;
  size_t all, bytes;
} block;
static block blocks[MOST];

static block *find(CUdeviceptr address) {
  for (int i = 0; i < MOST; i++) {
    CUdeviceptr begin = (CUdeviceptr)(uintptr_t)blocks[i].begin + NOT_OF_THE_HOST;
    if (blocks[i].begin != NULL && address >= begin && address - begin < blocks[i].bytes)
      return &blocks[i];
  }
  return NULL;
}

/* The host's address of device memory of which so much is there; NULL if it is not. */
static void *device(CUdeviceptr address, size_t bytes) {
  block *found = find(address);
  char *here = (char *)(uintptr_t)(address - NOT_OF_THE_HOST);
  if (found != NULL && bytes <= (size_t)(found->begin + found->bytes - here))
    return here;
  fake_violations++;
  return NULL;
}

static CUresult allocate(CUdeviceptr *out, size_t bytes) {
  block *free_one = blocks;
  while (free_one < blocks + MOST && free_one->begin != NULL)
    free_one++;
  if (bytes == 0 || free_one == blocks + MOST)
    return bytes == 0 ? INVALID_VALUE : OUT_OF_MEMORY;
  size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  size_t inner = (room + PAGE - 1) / PAGE * PAGE;
  char *pages = mmap(NULL, inner + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + PAGE, inner, PROT_READ | PROT_WRITE) != 0)
    return OUT_OF_MEMORY;
  memset(pages + PAGE, JUNK, inner);
  *free_one = (block){pages, pages + PAGE + inner - room, inner + 2 * PAGE, bytes};
  *out = (CUdeviceptr)(uintptr_t)free_one->begin + NOT_OF_THE_HOST;
  fake_live++;
  return 0;
}

static CUresult release(CUdeviceptr address) {
  block *found = find(address);
  if (found == NULL || (char *)(uintptr_t)(address - NOT_OF_THE_HOST) != found->begin) {
    fake_violations++;
    return INVALID_VALUE;
  }
  for (char *rest = found->begin + found->bytes; rest < found->pages + found->all - PAGE; rest++)
    fake_violations += *rest != JUNK;
  munmap(found->pages, found->all);
  *found = (block){NULL};
  fake_live--;
  return 0;
}

/* ---- kernels ---- */

/* int run(grid_x, grid_y, threads, order, without, the arguments...), of the emulation */
typedef void (*any_function)(void);
struct CUfunc_st {
  const char *name;
  any_function run;
  int (*call)(any_function run, const unsigned *grid, void **arguments);
  int count; /* of its arguments, and */
  int bytes[ARGUMENTS];
};

#define INT(i) (*(int *)arguments[i])
#define FLOAT(i) (*(float *)arguments[i])
#define POINTER(i) device(*(CUdeviceptr *)arguments[i], 1)
#include "kernels.inc"

enum { KERNELS = sizeof kernels / sizeof kernels[0] };

void fake_set_kernel(const char *name, void *run) {
  for (int i = 0; i < KERNELS; i++)
    if (strcmp(kernels[i].name, name) == 0)
      memcpy(&kernels[i].run, &run, sizeof run);
}

/* ---- streams ---- */

typedef struct {
  CUstream stream;
  enum { DONE, TO_DEVICE, TO_HOST, SET, FREE, LAUNCH } kind;
  CUdeviceptr address;
  void *host;
  size_t bytes;
  unsigned value, grid[3];
  CUfunction function;
  char arguments[ARGUMENTS][8];
} work;
static work queue[MOST];
static int queued;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static CUresult launch(work *w) {
  void *arguments[ARGUMENTS];
  long before = fake_violations;
  if (fake_broken != NULL && strcmp(fake_broken, w->function->name) == 0)
    return 0;
  size_t used = strlen(fake_launched);
  snprintf(fake_launched + used, sizeof fake_launched - used, "%s %d\n", w->function->name,
           (int)(intptr_t)w->stream);
  for (int i = 0; i < w->function->count; i++)
    arguments[i] = w->arguments[i];
  /* what a pointer is must be known before anything is run */
  int failure = w->function->call(NULL, w->grid, arguments);
  if (fake_violations != before)
    return ILLEGAL_ADDRESS;
  failure = w->function->call(w->function->run, w->grid, arguments);
  return failure == 0 ? 0 : LAUNCH_FAILURE;
}

static CUresult carry_out(work *w) {
  void *there = w->kind == LAUNCH || w->kind == FREE ? NULL : device(w->address, w->bytes);
  if (w->kind == LAUNCH)
    return launch(w);
  if (w->kind == FREE)
    return release(w->address);
  if (there == NULL)
    return ILLEGAL_ADDRESS;
  if (w->kind == TO_DEVICE)
    memcpy(there, w->host, w->bytes);
  if (w->kind == TO_HOST)
    memcpy(w->host, there, w->bytes);
  for (size_t i = 0; w->kind == SET && i < w->bytes / 4; i++)
    memcpy((char *)there + 4 * i, &w->value, 4);
  return 0;
}

static CUresult finish(bool all, CUstream stream) {
  CUresult result = 0;
  for (int i = 0; i < queued; i++)
    if (queue[i].kind != DONE && (all || queue[i].stream == stream)) {
      CUresult one = carry_out(&queue[i]);
      queue[i].kind = DONE;
      result = result == 0 ? one : result;
    }
  while (queued > 0 && queue[queued - 1].kind == DONE)
    queued--;
  return result;
}

static CUresult put(work w) {
  pthread_mutex_lock(&lock);
  CUresult result = queued < MOST ? 0 : OUT_OF_MEMORY;
  if (result == 0)
    queue[queued++] = w;
  pthread_mutex_unlock(&lock);
  return result;
}

static CUresult wait_for(bool all, CUstream stream) {
  pthread_mutex_lock(&lock);
  CUresult result = finish(all, stream);
  pthread_mutex_unlock(&lock);
  return result;
}

CUresult cuStreamSynchronize(CUstream stream) {
  CUresult result = wait_for(false, stream);
  MAY_FAIL;
  return result;
}
CUresult cuCtxSynchronize(void) {
  CUresult result = wait_for(true, NULL);
  MAY_FAIL;
  return result;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  MAY_FAIL;
  return put((work){stream, TO_DEVICE, to, (void *)(uintptr_t)from, bytes, 0, {0}, NULL, {{0}}});
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  MAY_FAIL;
  return put((work){stream, TO_HOST, from, to, bytes, 0, {0}, NULL, {{0}}});
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  MAY_FAIL;
  return put((work){stream, SET, to, NULL, 4 * count, value, {0}, NULL, {{0}}});
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned shared_bytes, CUstream stream, void **arguments, void **extra) {
  MAY_FAIL;
  if (stack[top] == NULL)
    return INVALID_CONTEXT;
  if (grid_x == 0 || grid_y == 0 || grid_y > 65535 || grid_z != 1 || block_y != 1 ||
      block_z != 1 || shared_bytes != 0 || extra != NULL)
    return INVALID_VALUE;
  work w = {stream, LAUNCH, 0, NULL, 0, 0, {grid_x, grid_y, block_x}, function, {{0}}};
  for (int i = 0; i < function->count; i++)
    memcpy(w.arguments[i], arguments[i], (size_t)function->bytes[i]);
  return put(w);
}

/* Of the tests, for X and Y: these do not fail. */
CUresult fake_new_block(CUdeviceptr *out, size_t bytes) {
  pthread_mutex_lock(&lock);
  CUresult result = allocate(out, bytes);
  pthread_mutex_unlock(&lock);
  return result;
}

CUresult fake_copy(CUdeviceptr there, void *here, size_t bytes, int to_device) {
  void *found = bytes == 0 ? NULL : device(there, bytes);
  if (found != NULL)
    memcpy(to_device ? found : here, to_device ? here : found, bytes);
  return bytes == 0 || found != NULL ? 0 : ILLEGAL_ADDRESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
  MAY_FAIL;
  return fake_new_block(out, bytes);
}
CUresult cuMemFree_v2(CUdeviceptr address) {
  pthread_mutex_lock(&lock);
  CUresult earlier = finish(true, NULL), result = release(address);
  pthread_mutex_unlock(&lock);
  MAY_FAIL;
  return earlier == 0 ? result : earlier;
}

/* ---- pools and modules ---- */

struct CUmemPoolHandle_st {
  CUcontext context;
};
struct CUmod_st {
  CUcontext context;
};

static void *new_handle(void) {
  struct CUmod_st *made = malloc(sizeof *made);
  made->context = stack[top];
  fake_live++;
  return made;
}
static CUresult end_handle(void *handle) {
  bool is_of_this = ((struct CUmod_st *)handle)->context == stack[top];
  free(handle);
  fake_live--;
  MAY_FAIL;
  return is_of_this ? 0 : INVALID_CONTEXT;
}

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *properties) {
  MAY_FAIL;
  if (properties->allocType != CU_MEM_ALLOCATION_TYPE_PINNED || properties->handleTypes != 0 ||
      properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      properties->location.id != stack[top]->device || !fake_has_pools)
    return INVALID_VALUE;
  *out = new_handle();
  return 0;
}
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value) {
  MAY_FAIL;
  return pool != NULL && attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD && value != NULL
             ? 0
             : INVALID_VALUE;
}
CUresult cuMemPoolDestroy(CUmemoryPool pool) { return end_handle(pool); }
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t bytes, CUmemoryPool pool,
                                 CUstream stream) {
  (void)stream;
  return pool == NULL || pool->context != stack[top] ? INVALID_HANDLE : cuMemAlloc_v2(out, bytes);
}
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  CUresult result = put((work){stream, FREE, address, NULL, 0, 0, {0}, NULL, {{0}}});
  MAY_FAIL;
  return result;
}

CUresult cuModuleLoadData(CUmodule *out, const void *image) {
  MAY_FAIL;
  snprintf(fake_loaded, sizeof fake_loaded, "%s", (const char *)image);
  *out = new_handle();
  return 0;
}
CUresult cuModuleUnload(CUmodule module) { return end_handle(module); }
CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name) {
  MAY_FAIL;
  if (module->context != stack[top])
    return INVALID_CONTEXT;
  for (int i = 0; i < KERNELS; i++)
    if (strcmp(kernels[i].name, name) == 0) {
      *out = &kernels[i];
      return 0;
    }
  return NOT_FOUND;
}
