"""Paths as onnxruntime takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitcc.errors import BitccError

if TYPE_CHECKING:
    import os


def for_onnxruntime(file: str | os.PathLike[str]) -> str:
    """The absolute path of a file that onnxruntime is to open.

    Raises:
        BitccError: it is not UTF-8, as file systems allow; onnxruntime's binding converts text alone.
    """
    path = str(Path(file).absolute())
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BitccError(
            "onnxruntime takes no path that is not UTF-8",
            where=f"`{path}`",
            hint="rename the folder or the file",
        ) from error
    return path
