"""What can go wrong, in words: a fact, a place and a next step."""


class BitccError(Exception):
    """An error that the user can act on.

    Attributes:
        problem: One sentence with the user's own values, without a full stop.
        where: The node, tensor or file, such as ``node `/fc1/MatMul` ``; empty if there is none.
        hint: What to do next; empty if nothing is known.
        exit_code: The exit code of the command line tool.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        self.problem = problem
        self.where = where
        self.hint = hint
        super().__init__(f"{where}: {problem}" if where else problem)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}


def printable(words: str) -> str:
    """Words for a terminal: names in a model may be anything, also commands to it, which become visible."""
    return words.translate(_CONTROLS)


def first_line(error: BaseException) -> str:
    """What somebody else's error says, without the lines that follow: never empty."""
    return (str(error).strip() or repr(error)).splitlines()[0]


class ModelError(BitccError):
    """The model file cannot be read or is not something that bitcc can compile."""


class BundleError(BitccError):
    """A bundle is missing, damaged, or of a format that this version does not know."""


class PackedWeightError(BitccError):
    """Packed weights are not what their layout allows: wrong length, version or code."""


class TargetError(BitccError):
    """A target is unknown, or its library cannot be built or loaded."""


class VerificationError(BitccError):
    """The compiled model does not compute what the original computes."""

    exit_code = 4
