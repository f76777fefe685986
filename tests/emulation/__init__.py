"""Instructions that the CPU at hand may not have, in plain C."""
