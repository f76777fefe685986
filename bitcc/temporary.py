"""Files that are needed for a moment."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bitcc.errors import BitccError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for the files of the block, which go with it.

    Raises:
        BitccError: they cannot be written; what the disk refuses of other files is left as it is.
    """
    name = ""
    try:
        with tempfile.TemporaryDirectory(prefix="bitcc-") as name:
            yield Path(name)
    except OSError as error:
        # what was written has no name where it is the descriptor that is refused
        if isinstance(error.filename, str) and not Path(error.filename).is_relative_to(name or "/"):
            raise
        raise BitccError(
            f"temporary files cannot be written: {error.strerror or error}",
            where=f"`{Path(name).parent}`" if name else "",
            hint="free some space, or set TMPDIR to another folder",
        ) from error
