/* How the work of a call is cut, for onnxruntime's threads. */
#include "call.h"

/* Multiply-adds worth a task: some microseconds on the fastest variant, several times what it
 * costs to hand it to another thread. */
static const int64_t TASK_WORK = 1 << 19;
/* Multiply-adds that cost as much as quantizing an activation or finishing an output. */
enum { ELEMENT_WORK = 32 };
/* Enough tasks for any machine to balance; more of them would only cost. */
enum { MAX_TASKS = 256 };

OrtStatus *bitcc_parallel(const bitcc_call *call, void (*fn)(void *, size_t), void *argument,
                          size_t tasks) {
  if (tasks > 1)
    return call->node->api->KernelContext_ParallelFor(call->context, fn, tasks, 0, argument);
  if (tasks == 1)
    fn(argument, 0);
  return NULL;
}

int32_t bitcc_worth_tasks(const bitcc_call *call) {
  const bitcc_layer *layer = &call->node->layer;
  int64_t elements = (int64_t)layer->rows + layer->k_padded;
  int64_t work = (int64_t)layer->rows * layer->k_padded + ELEMENT_WORK * elements;
  int64_t tasks = work * call->tokens / TASK_WORK;
  return tasks < 1 ? 1 : tasks < MAX_TASKS ? (int32_t)tasks : MAX_TASKS;
}

int32_t bitcc_tiles_per_task(const bitcc_call *call, int32_t tasks, int32_t unit) {
  int32_t units = bitcc_divide_up(call->node->layer.tiles, unit);
  return bitcc_divide_up(units, bitcc_min(tasks, units)) * unit;
}

OrtStatus *bitcc_each_band(bitcc_call *call, int64_t tokens, int32_t band,
                           OrtStatus *(*step)(bitcc_call *)) {
  size_t size = bitcc_x_bytes(call->node->x_type);
  OrtStatus *status = NULL;
  for (int64_t done = 0; status == NULL && done < tokens; done += call->tokens) {
    call->tokens = (int32_t)(tokens - done < band ? tokens - done : band);
    status = step(call);
    call->x += (size_t)call->tokens * (size_t)call->node->layer.k * size;
    call->y += (size_t)call->tokens * (size_t)call->node->layer.n * size;
  }
  return status;
}
