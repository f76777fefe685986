"""English text that every machine with Python has: the documentation in the standard library.

Docstrings, the language reference that `help()` prints, and comments of several lines. The text
depends on the Python version and on nothing else: files are read in sorted order, and third-party
packages and test suites are left out.
"""

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "_bundled", "dist-packages", "idle_test", "site-packages", "test", "tests"}
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
COMMENT_BLOCK = re.compile(r"(?:^[ \t]*#.*\n){2,}", re.MULTILINE)
COMMENT_SIGN = re.compile(r"^[ \t]*#+", re.MULTILINE)
HELD_OUT_EVERY = 50
SHORTEST_PARAGRAPH = 40
LETTERS_AND_SPACES = 0.85
WIDEST_LINE = 100


class Corpus(NamedTuple):
    """Two disjoint byte strings."""

    training: bytes
    held_out: bytes


def standard_library_corpus() -> Corpus:
    """The prose of the standard library; every 50th document is held out."""
    seen: set[str] = set()
    parts: tuple[list[str], list[str]] = ([], [])
    for index, document in enumerate(_documents()):
        # Copied docstrings would leak training text into the held-out part.
        fresh = [text for text in _paragraphs(document) if text not in seen]
        seen.update(fresh)
        if fresh:
            parts[index % HELD_OUT_EVERY == 0].append("\n\n".join(fresh) + "\n\n")
    training, held_out = ("".join(part).encode("ascii") for part in parts)
    return Corpus(training, held_out)


def _documents() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts):
            yield from _documents_of(path)


def _documents_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            source = path.read_text("utf-8")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    # The language reference, which `help()` prints, is a dictionary of strings.
    is_reference = path.parts[-2:] == ("pydoc_data", "topics.py")
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text
        elif is_reference and isinstance(node, ast.Dict):
            yield from map(inspect.cleandoc, _strings(node.values))
    for block in COMMENT_BLOCK.findall(source):
        yield COMMENT_SIGN.sub("", block)


def _strings(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _paragraphs(document: str) -> Iterator[str]:
    """The paragraphs that are prose, without indentation; signatures, tables and code are not."""
    for block in re.split(r"\n\s*\n", document.expandtabs()):
        lines = [line.strip() for line in block.strip().splitlines()]
        text = "\n".join(lines)
        if len(text) < SHORTEST_PARAGRAPH or not text.isascii() or ">>>" in text:
            continue
        readable = sum(character.isalpha() or character.isspace() for character in text)
        if readable >= LETTERS_AND_SPACES * len(text) and max(map(len, lines)) <= WIDEST_LINE:
            yield text
