/* Images for GPUs of paper: the fake driver reads no more of them than their names. */
.macro image name
  .global bitcc_\name\()_begin, bitcc_\name\()_end
bitcc_\name\()_begin:
  .ascii "\name"
bitcc_\name\()_end:
  .byte 0
.endm
.section .rodata
image sm_75
image sm_80
image sm_86
image compute_90
.section .note.GNU-stack, "", %progbits
