/* Memory for a call, without a lock: a node keeps one spare block, which a call takes and gives
 * back by atomic exchange. Calls that find none, because others run at the same time, allocate. */
#include <stdlib.h>

#include "layer.h"

/* A model has hundreds of nodes, and only one or few run at a time: what a node keeps is bounded.
 * A call that needs more works long enough not to notice an allocation. */
enum { KEPT = 64 * 1024, LINE = 64 };

void *bitcc_take_scratch(bitcc_node *node, size_t size, bitcc_scratch **scratch) {
  size += sizeof **scratch + LINE;
  bitcc_scratch *block = atomic_exchange(&node->spare, NULL);
  if (block == NULL || block->size < size) {
    free(block);
    block = malloc(size);
    if (block == NULL)
      return NULL;
    block->size = size;
  }
  *scratch = block;
  return (void *)(((uintptr_t)(block + 1) + LINE - 1) / LINE * LINE);
}

void bitcc_give_scratch(bitcc_node *node, bitcc_scratch *scratch) {
  if (scratch->size <= KEPT)
    scratch = atomic_exchange(&node->spare, scratch);
  free(scratch);
}
