"""The weight formats, one file each: packer, unpacker and layout version.

To add one, write ``<name>.py`` with a ``FORMAT`` and name it in ``_FORMATS``; the tests run over all.
"""

from __future__ import annotations

from bitcc.errors import PackedWeightError
from bitcc.formats import t2, t5
from bitcc.formats._base import Bytes, Int8, Order, WeightFormat
from bitcc.formats.packed_matrix import PackedMatrix

__all__ = ["FORMATS", "Bytes", "Int8", "Order", "PackedMatrix", "WeightFormat", "get"]

_FORMATS = (t2.FORMAT, t5.FORMAT)

FORMATS: dict[str, WeightFormat] = {fmt.name: fmt for fmt in _FORMATS}


def get(name: str, layout_version: int) -> WeightFormat:
    """The format of that name and version.

    Raises:
        PackedWeightError: this version of bitcc does not know it.
    """
    known = FORMATS.get(name)
    if known is None or known.layout_version != layout_version:
        names = ", ".join(f"{f.name} version {f.layout_version}" for f in FORMATS.values())
        raise PackedWeightError(
            f"weight format `{name}` version {layout_version} is unknown",
            hint=f"this bitcc knows {names}; update bitcc or compile the model again",
        )
    return known
