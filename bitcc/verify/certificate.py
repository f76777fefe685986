"""What a comparison of two models found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime as ort

from bitcc.errors import VerificationError

PASSED, PARTLY, FAILED, NOT_RUN = "passed", "partly passed", "failed", "not run"
TOLERANCE = 1e-2
HALF_TOLERANCE = 5e-2
"""Where the original rounds in half precision what the compiled model computes in float32, so that codes of
activations fall to the other side: exported models of two layers were up to 2e-2 away by that."""
ORIGINAL, BODY = "original", "function body"


@dataclass(frozen=True)
class Certificate:
    """What a comparison of two models found.

    Attributes:
        status: ``passed``; ``partly passed`` if the library did not run, as on another machine than it is
            for, and the compiled model without it computes what the original does; ``failed``; or ``not run``
            if nothing was compared.
        reason: Why it failed or was not run, or what was left out.
        inputs: What the models were run on; empty if none ran.
        against: What the differences are from: ``original``, or ``function body``, the compiled model without
            its library, where no original was given; empty if none ran.
        tolerance: The bound on both errors, relative to max|y|.
        max_error_library: Largest difference of the compiled model with the library; None if it did not run,
            as on another machine than it is for.
        max_error_body: The same without the library, through the function body; None without an original.
        library_equals_body: Whether those two gave the same bits; None if the library did not run.
        onnxruntime: The version that ran them.
    """

    status: str
    reason: str = ""
    inputs: str = ""
    against: str = ""
    tolerance: float = TOLERANCE
    max_error_library: float | None = None
    max_error_body: float | None = None
    library_equals_body: bool | None = None
    onnxruntime: str = ort.__version__

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return asdict(self)


def require(certificate: Certificate) -> None:
    """Raise what a failed certificate says.

    Raises:
        VerificationError: it failed.
    """
    if certificate.status == FAILED:
        raise VerificationError(
            certificate.reason,
            where="the compiled model",
            hint="do not use the bundle; report the model, or see `bitcc inspect` for the layers",
        )
