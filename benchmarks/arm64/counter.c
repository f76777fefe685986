/* A plugin of qemu that counts the instructions of the emulated program.

   It writes the count to a file, one a line, whenever the program calls getpriority(2), which nothing else in it
   does. The declarations are those of the interface that qemu documents for plugins, as far as it is used. */

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin;
struct qemu_plugin_tb;
struct qemu_info_t;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin, void (*)(plugin, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

#define EXPORT __attribute__((visibility("default")))
enum { NO_REGISTERS = 0, GETPRIORITY = 141 };

EXPORT int qemu_plugin_version = INTERFACE;

static _Atomic uint64_t count;
static FILE *out;

static void run(unsigned cpu, void *instructions) {
  (void)cpu;
  atomic_fetch_add_explicit(&count, (uintptr_t)instructions, memory_order_relaxed);
}

/* A block of instructions that always run one after the other. */
static void translate(plugin id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, run, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void call(plugin id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                 uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == GETPRIORITY) {
    fprintf(out, "%" PRIu64 "\n", atomic_load(&count));
    fflush(out);
  }
}

EXPORT int qemu_plugin_install(plugin id, const struct qemu_info_t *info, int count_of_arguments, char **arguments) {
  (void)info;
  if (count_of_arguments != 1 || strncmp(arguments[0], "out=", 4) != 0 || !(out = fopen(arguments[0] + 4, "w")))
    return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, call);
  return 0;
}
