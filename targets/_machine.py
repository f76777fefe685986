"""Where candidates run: this machine, or one with an RPC server of TVM."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tvm
from tvm import rpc

from bitcc.errors import TargetError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bitcc.targets._tuned import Remote

_PATIENCE = 600  # seconds that a session of the server may last


@contextmanager
def connect(remote: Remote | None) -> Iterator[Callable[[Path], Any]]:
    """What loads a library there, so that its functions can be called.

    Raises:
        TargetError: the machine cannot be reached, or the connection breaks.
    """
    if remote is None:
        yield lambda path: tvm.runtime.load_module(str(path))
        return
    where = f"RPC server {remote.host}:{remote.port}"
    try:
        session = _session(remote)
    except Exception as error:  # tvm raises what it likes
        hint = "start `python -m tvm.exec.rpc_server --port PORT` there, with the same tvm and cloudpickle"
        raise TargetError(f"cannot be reached: {first_line(error)}", where=where, hint=hint) from error

    names = (f"{number}.so" for number in itertools.count())  # a loaded file must not be written again

    def load(path: Path) -> Any:
        name = next(names)
        session.upload(bytearray(path.read_bytes()), target=name)
        return session.load_module(name)

    try:
        yield load
    except (RuntimeError, tvm.error.RPCError) as error:
        raise TargetError(f"the connection broke: {first_line(error)}", where=where) from error


def _session(remote: Remote) -> Any:
    if not remote.key:
        return rpc.connect(remote.host, remote.port, session_timeout=_PATIENCE)
    tracker = rpc.connect_tracker(remote.host, remote.port)
    return tracker.request(remote.key, session_timeout=_PATIENCE)
