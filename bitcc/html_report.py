"""``bitcc inspect --html``: one page that needs nothing else, to send to somebody or keep with a build."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from bitcc.facts import PACKED
from bitcc.report import size
from bitcc.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.facts import LayerFacts

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1c1e21; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #dadde1; vertical-align: top; }
th { font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
.bar { display: flex; height: .9rem; min-width: 8rem; background: #eceef1; }
.bar div { height: 100%; } .minus { background: #4267b2; } .zero { background: #c9ccd1; }
.plus { background: #e0803a; } .size { background: #4267b2; }
.packed { color: #1b7f3b; } .kept { color: #a05a00; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6eb; background: #18191a; } th, td { border-color: #3a3b3c; }
  .bar { background: #303133; }
  .packed { color: #5fd38a; } .kept { color: #f0b35e; } .zero { background: #6b6e73; }
}
"""


def page(name: str, layers: Sequence[LayerFacts]) -> str:
    """The report on a model's layers as an HTML page.

    Args:
        name: What to call the model.
        layers: Its candidate layers.
    """
    packed = [layer for layer in layers if layer.status == PACKED]
    before = sum(layer.bytes_before for layer in layers)
    after = sum(layer.bytes_after for layer in layers)
    rows = "\n".join(_row(layer) for layer in layers)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>bitcc: {escape(name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(name)}</h1>
<p id="summary">{len(packed)} of {len(layers)} layers packed.</p>
<h2>Size of the weights</h2>
<table>
<tr><th>before</th><td class="number">{size(before)}</td><td>{_size_bar(before, before)}</td></tr>
<tr><th>after</th><td class="number">{size(after)}</td><td>{_size_bar(after, before)}</td></tr>
</table>
<h2>Layers</h2>
<p>Levels: the shares of weights that are -1 (left), 0 and +1 (right).</p>
<table id="layers">
<tr><th>layer</th><th>N x K</th><th>weights</th><th>levels</th><th>activations</th><th>before</th>
<th>after</th><th>error</th><th>result</th></tr>
{rows}
</table>
<p>bitcc {escape(__version__)}. Error: largest difference from the original layer, relative to max|y| of a
token, on random and adversarial tokens.</p>
</body>
</html>
"""


def _row(layer: LayerFacts) -> str:
    packed = layer.status == PACKED
    error = "" if layer.max_error is None else f"{layer.max_error:.0e}"
    scope = f", {layer.scope}" if layer.scope else ""
    why = "".join([f": {layer.reason}" if layer.reason else "", f"; fix: {layer.fix}" if layer.fix else ""])
    why += f", merged: {layer.merged}" if layer.merged else ""
    return f"""<tr>
<td>{escape(layer.name)}</td>
<td class="number">{f"{layer.N} x {layer.K}" if layer.N else ""}</td>
<td>{escape(layer.scheme + scope)}</td>
<td>{_levels(layer)}</td>
<td>{escape(layer.activation)}</td>
<td class="number">{size(layer.bytes_before)}</td>
<td class="number">{size(layer.bytes_after) if packed else ""}</td>
<td class="number">{error}</td>
<td class="{escape(layer.status)}">{escape(layer.status + why)}</td>
</tr>"""


def _levels(layer: LayerFacts) -> str:
    if layer.zeros is None or layer.positive is None:
        return ""
    shares = {"minus": 1 - layer.zeros - layer.positive, "zero": layer.zeros, "plus": layer.positive}
    parts = "".join(f'<div class="{name}" style="width:{share:.2%}"></div>' for name, share in shares.items())
    title = ", ".join(
        f"{label} {share:.1%}" for label, share in zip(("-1", "0", "+1"), shares.values(), strict=True)
    )
    return f'<div class="bar" title="{title}">{parts}</div>'


def _size_bar(part: int, whole: int) -> str:
    return f'<div class="bar"><div class="size" style="width:{part / max(whole, 1):.2%}"></div></div>'
