"""The library with its launcher, and the fake driver under it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from emulation import cuda

from bitcc.targets._cuda import KERNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@pytest.fixture(scope="session")
def launchers(
    tmp_path_factory: pytest.TempPathFactory, emulated: Any
) -> Callable[[], AbstractContextManager[cuda.Launcher]]:
    """A `with` block after which nothing may live."""
    library = cuda.build_driver(tmp_path_factory.mktemp("driver"), KERNELS)
    driver = cuda.Driver(library, emulated.library, KERNELS)
    launcher = cuda.Launcher(cuda.build_launcher(tmp_path_factory.mktemp("launcher"), KERNELS), driver)

    @contextmanager
    def use() -> Iterator[cuda.Launcher]:
        driver.reset()
        assert launcher.register() == cuda.ALL_OPS
        yield launcher
        assert driver.is_clean()
        assert launcher.host.host_is_clean()

    return use


@pytest.fixture
def launcher(launchers: Any) -> Iterator[cuda.Launcher]:
    """The library with nothing loaded yet."""
    with launchers() as made:
        yield made
