"""What a model is run on: random values that every model takes, or those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bitcc.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime as ort
    from numpy.typing import NDArray

Feeds: TypeAlias = "dict[str, NDArray[Any]]"

_DYNAMIC_DIM, _FIRST_OF_UNLIKE = 4, 2
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def random_inputs(session: ort.InferenceSession, *, unlike: bool = False) -> Feeds:
    """Small random inputs; integers are 0 or 1.

    Args:
        session: Of the model.
        unlike: Give dynamic dimensions another size each, but one size to those of one name: what mixes them
            up is seen then. Else all have one size, which more models take.

    Raises:
        ModelError: an input is not a tensor of a type that can be drawn.
    """
    rng = np.random.default_rng(0)
    feeds: Feeds = {}
    sizes: dict[str, int] = {}
    for value in session.get_inputs():
        if value.type not in _TYPES:
            raise ModelError(
                f"the input `{value.name}` is {value.type}; random values make no sense for it",
                hint="give inputs with --inputs FILE.npz",
            )
        shape = []
        for axis, dim in enumerate(value.shape):
            name = dim or f"{value.name} {axis}"  # a name that no other has, where it has none
            new = _FIRST_OF_UNLIKE + len(sizes) if unlike else _DYNAMIC_DIM
            shape.append(dim if isinstance(dim, int) else sizes.setdefault(name, new))
        dtype = np.dtype(_TYPES[value.type])
        array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[value.name] = array.astype(dtype)
    return feeds


def load_inputs(path: Path) -> Feeds:
    """The arrays of a .npz file, by name.

    Raises:
        ModelError: it is none, or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return dict(data)
    except Exception as error:  # numpy, zipfile and zlib raise their own; an .npy file is a TypeError
        raise ModelError(
            f"not an .npz file of inputs: {error}",
            where=f"`{path}`",
            hint="write it with numpy.savez(FILE, name=array, ...)",
        ) from error
