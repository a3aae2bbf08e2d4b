"""Figures of matplotlib as SVG inside a page: transparent, with the page's colours, light or dark."""

import html
import io
import re
from typing import TYPE_CHECKING, Any

from nnunetv2_voco.evaluation.page_style import COLOURS, INK, LINE, MUTED, SERIES

if TYPE_CHECKING:  # matplotlib is imported where it draws, so that commands answer --help at once
    from matplotlib.figure import Figure

FONT_POINTS = 9.0
SMALLEST = 0.8
"""On a narrow screen a drawing shrinks to this share of its size, so that its text stays readable; then it scrolls."""


def new_figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> "tuple[Figure, Any]":
    """Return an empty figure in the pages' style and its axes, an array (rows, columns).

    Args:
        width: In inches; 4.6 fits a telephone and, twice, a notebook's screen.
        height: In inches.
        rows: Axes below each other.
        columns: Axes beside each other.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {
        "font.size": FONT_POINTS,
        "axes.titlesize": FONT_POINTS + 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.prop_cycle": _cycle(),
        "lines.linewidth": 1.8,
    }
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def inline_svg(figure: "Figure", *, alt: str, prefix: str) -> str:
    """Return the figure as an `<svg>` element for a page of `page_style`.

    Black becomes the text's colour, the colours of `page_style` their variables; other colours stay. Text stays text,
    so that it can be searched, in the page's font. Legends lose their frames.

    Args:
        figure: What to show.
        alt: What is to be seen, for those who do not see it.
        prefix: Put before every id of the element, of which a page must hold none twice.
    """
    from matplotlib import rc_context

    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        if legend is not None:
            legend.set_frame_on(False)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;\"]*(sans-serif)?;?", " font-family: inherit;", body)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', lambda match: match[1] + prefix + "-", body)
    body = body.replace("xlink:href", "href")  # HTML knows the attribute without its XML name space
    for colour, variable in _VARIABLES.items():
        body = re.sub(colour, variable, body, flags=re.IGNORECASE)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    width = figure.get_figwidth() * 96  # CSS pixels
    size = f"width: {width:.0f}px; min-width: {SMALLEST * width:.0f}px"
    return f'<svg {box[0]} style="{size}" role="img" aria-label="{html.escape(alt)}">{body.strip()}'


_VARIABLES = {INK: "currentColor"} | {
    colour.light: f"var(--{role})" for role, colour in COLOURS.items() if role not in ("paper", "panel", "ink")
}
"""What the colours of a drawing become."""


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=SERIES)
