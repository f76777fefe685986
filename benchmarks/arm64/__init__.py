"""Instructions of arm64 kernels, ours and those of peers, counted in qemu."""
