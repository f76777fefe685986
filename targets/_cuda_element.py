"""The types of X and Y in CUDA kernels: float32 in registers, halves as their bits in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_tir import QUAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._cuda_tir import Array, Cuda


@dataclass(frozen=True)
class Element:
    """One of the types.

    Attributes:
        name: As ONNX calls it in lower case; the suffix of kernels for it.
        number: ONNX's number of it, which `act_type` gives.
        storage: In memory.
        convert: What its device functions are called, after ``bitcc_from_`` and ``bitcc_to_``; empty
            for float32.
    """

    name: str
    number: int
    storage: str
    convert: str = ""

    def load_quad(self, t: Cuda, array: Array, index: Any, count: Any) -> list[Any]:
        """Four elements as float32, of any alignment; from the `count`th on zeros."""
        values = t.registers(QUAD, self.storage)
        t.run("bitcc_load_quad", values.address(0), array.address(index), count)
        loaded = [values.load(i) for i in range(QUAD)]
        if not self.convert:
            return loaded
        return [t.call("float32", f"bitcc_from_{self.convert}", value) for value in loaded]

    def store(self, t: Cuda, array: Array, index: Any, value: Any) -> None:
        """Write a float32."""
        array.store(index, t.call(self.storage, f"bitcc_to_{self.convert}", value) if self.convert else value)

    def store_quad(self, t: Cuda, array: Array, index: Any, values: Sequence[Any]) -> None:
        """Write four float32 from `index` on, which is a multiple of four, by one store."""
        if self.convert:
            values = [t.call(self.storage, f"bitcc_to_{self.convert}", value) for value in values]
        t.run("bitcc_store_quad", array.address(index), *values)

    def rounded(self, t: Cuda, value: Any) -> Any:
        """A float32, rounded to this type."""
        half = t.call(self.storage, f"bitcc_to_{self.convert}", value)
        return t.call("float32", f"bitcc_from_{self.convert}", half)


FLOAT = Element("float", 1, "float32")
HALVES = (Element("float16", 10, "uint16", "half"), Element("bfloat16", 16, "uint16", "bfloat16"))
ELEMENTS = (FLOAT, *HALVES)
