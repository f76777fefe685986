"""``bitcc inspect --html``: one page that needs nothing else, to send to somebody or keep with a build."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from bitcc.facts import PACKED
from bitcc.report import NUMERICS, activations, bits, error, shape, size, weights
from bitcc.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.facts import LayerFacts

MARK = b"<title>bitcc: "
"""Near the beginning of every page."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem;
       color: #1c1e21; background: #fff; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #dadde1; vertical-align: top; }
th { font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 8rem; } td.words { min-width: 12rem; }
td.result { min-width: 12rem; }
.bar { height: .9rem; min-width: 8rem; background: #eceef1; }
.bar div { height: 100%; background: #4267b2; }
svg { fill: #4267b2; background: #eceef1; display: block; }
.packed b { color: #1b7f3b; } .kept b { color: #a05a00; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6eb; background: #18191a; } th, td { border-color: #3a3b3c; }
  .bar, svg { background: #303133; } svg { fill: #7a9ae0; }
  .packed b { color: #5fd38a; } .kept b { color: #f0b35e; }
}
"""

_WIDTH, _HEIGHT = 128, 32  # of a histogram, in pixels


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
    kinds = [kind for kind in NUMERICS if any(layer.numerics == kind for layer in layers)]
    notes = "".join(f"\n<p>{escape(kind.capitalize())}: {escape(NUMERICS[kind])}.</p>" for kind in kinds)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{MARK.decode()}{escape(name)}</title>
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
<p>Levels: how many weights have which value; hover for figures. Bits: the entropy of the levels.</p>
<div class="wide">
<table id="layers">
<tr><th>layer</th><th>N x K</th><th>weights</th><th>levels</th><th>bits</th><th>activations</th>
<th>before</th><th>after</th><th>error</th><th>result</th></tr>
{rows}
</table>
</div>
<p>bitcc {escape(__version__)}. Error: largest difference from the original layer, relative to max|y| of a
token, on random and adversarial tokens.</p>{notes}
</body>
</html>
"""


def _row(layer: LayerFacts) -> str:
    packed = layer.status == PACKED
    why = f"<br>{escape(layer.reason)}" if layer.reason else ""
    why += f"<br>merged: {escape(layer.merged)}" if layer.merged else ""
    fix = f"<br><i>Fix:</i> {escape(layer.fix)}" if layer.fix else ""
    return f"""<tr>
<td class="name">{escape(layer.name)}</td>
<td class="number">{escape(shape(layer))}</td>
<td class="words">{escape(weights(layer, scope=True))}</td>
<td>{_histogram(layer)}</td>
<td class="number">{bits(layer)}</td>
<td>{escape(activations(layer))}</td>
<td class="number">{size(layer.bytes_before)}</td>
<td class="number">{size(layer.bytes_after) if packed else ""}</td>
<td class="number">{escape(error(layer))}</td>
<td class="result {escape(layer.status)}"><b>{escape(layer.status)}</b>{why}{fix}</td>
</tr>"""


def _histogram(layer: LayerFacts) -> str:
    """One bar for each level, at the place of its value."""
    pairs = list(zip(layer.levels, layer.shares, strict=False))
    if len(pairs) < 2:
        return ""
    low, high = min(layer.levels), max(layer.levels)
    width = max(_WIDTH / 2 / len(pairs), 2)
    scale = (_WIDTH - width) / ((high - low) or 1)
    tallest = max(layer.shares) or 1
    bars = "".join(
        f'<rect x="{(level - low) * scale:.1f}" y="{_HEIGHT * (1 - share / tallest):.1f}" '
        f'width="{width:.1f}" height="{_HEIGHT * share / tallest:.1f}">'
        f"<title>{level:g}: {share:.1%}</title></rect>"
        for level, share in pairs
    )
    return f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}">{bars}</svg>'


def _size_bar(part: int, whole: int) -> str:
    return f'<div class="bar"><div style="width:{part / max(whole, 1):.2%}"></div></div>'
