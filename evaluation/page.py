"""Self-contained HTML pages for reports: one file, no scripts, no network, light and dark, narrow and wide.

    page = Page("Does it help?", lead="Five labelled cases.")
    page.note("Yes: +0.04 Dice.", tone="good")
    page.heading("Learning curves")
    figure, axes = new_figure(4.6, 3.2)               # of nnunetv2_voco.evaluation.svg
    axes[0, 0].plot(epochs, dice, color=SERIES[0])    # of nnunetv2_voco.evaluation.page_style
    page.drawings([Drawing(figure, alt="Dice by epoch, rising from 0.1 to 0.8", caption="Validation Dice")])
    page.table(["organ", "Dice"], [["liver", 0.93], ["spleen", Cell("0.88", tone="good")]], caption="Dice by organ")
    page.pictures([Picture(rgb_YX3, alt="Slice with the true labels", caption="truth")])
    page.write(Path("report.html"))

All text is plain: it is escaped, and only what stands between `backquotes` is set as code. Equal calls give equal
bytes.

Shape suffixes: Y, X = pixels; 3 = red, green, blue.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.evaluation.page_style import STYLE_SHEET
from nnunetv2_voco.evaluation.svg import inline_svg

if TYPE_CHECKING:  # imported where it is used, so that commands answer --help at once
    import numpy as np
    from matplotlib.figure import Figure

TONES = ("", "good", "bad", "quiet")
PROSE = 30
"""A column of a table in which a text is longer than this many letters is kept wide enough to be read."""


@dataclass(frozen=True)
class Cell:
    """A table's cell with a tone; say the same in the text, for colour alone does not reach everyone."""

    text: str
    tone: str = ""
    """One of `TONES`."""


@dataclass(frozen=True)
class Drawing:
    """A figure of matplotlib; make it with `svg.new_figure`, draw in `page_style.SERIES` and black."""

    figure: "Figure"
    alt: str
    """What is to be seen, in words; required."""
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """Pixels, uint8 (Y, X, 3) or (Y, X); small ones are shown larger than they are."""

    pixels: "np.ndarray"
    alt: str
    """What is to be seen, in words; required."""
    caption: str = ""


class Page:
    """A page that grows from top to bottom.

    Args:
        title: Heading and window title.
        lead: One paragraph below it.
    """

    def __init__(self, title: str, *, lead: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{inline(title)}</h1>"]
        self._ids: set[str] = set()
        self._drawings: list[Drawing] = []
        if lead:
            self._parts.append(f'<p class="lead">{inline(lead)}</p>')

    def heading(self, text: str, *, level: int = 2) -> None:
        """Add a heading of level 2 or 3, with an id made of its text, to be linked to."""
        if level not in (2, 3):
            raise ValueError(f"level {level}: 1 is the page's title; take 2 or 3")
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, 1000))) if n not in self._ids)
        self._ids.add(name)
        self._parts.append(f'<h{level} id="{name}">{inline(text)}</h{level}>')

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{inline(text)}</p>")

    def items(self, texts: Sequence[str]) -> None:
        """Add a list."""
        self._parts.append("<ul>" + "".join(f"<li>{inline(text)}</li>" for text in texts) + "</ul>")

    def note(self, text: str, *, tone: str = "") -> None:
        """Add a paragraph that stands out: a verdict, a warning. `tone` is one of `TONES`."""
        self._parts.append(f'<p class="{_classes("note", tone)}">{inline(text)}</p>')

    def code(self, text: str, *, summary: str = "") -> None:
        """Add lines as they stand; with a summary they are folded away below it."""
        block = f'<pre tabindex="0"><code>{html.escape(text.strip(chr(10)))}</code></pre>'
        if summary:
            block = f"<details><summary>{inline(summary)}</summary>{block}</details>"
        self._parts.append(block)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str) -> None:
        """Add a table; it scrolls by itself where it is too wide.

        Args:
            header: Title of each column.
            rows: Cells: text, `Cell`, or numbers as they should be read; None stays empty. The first of a row is its
                title. Columns of numbers are set flush right.
            caption: What the table shows.

        Raises:
            ValueError: If a row has another length than the header.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        for row in cells:
            if len(row) != len(header):
                raise ValueError(f"table '{caption}': a row has {len(row)} cells, the header {len(header)}")
        numeric = [_is_numeric([row[column].text for row in cells]) for column in range(len(header))]
        longest = [max((len(row[column].text) for row in cells), default=0) for column in range(len(header))]
        kinds = [
            "number" if right else "prose" if length > PROSE else ""
            for right, length in zip(numeric, longest, strict=True)
        ]
        head = "".join(f"<th{_class(kind)} scope=col>{inline(t)}</th>" for t, kind in zip(header, kinds, strict=True))
        body = "".join(f"<tr>{_row(row, kinds)}</tr>" for row in cells)
        self._parts.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
            f"<caption>{inline(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def drawings(self, drawings: Sequence[Drawing]) -> None:
        """Add figures, beside each other where there is room."""
        shown = []
        for drawing in drawings:
            self._drawings.append(drawing)
            svg = inline_svg(drawing.figure, alt=_required(drawing.alt), prefix=f"d{len(self._drawings)}")
            shown.append(_figure(f'<div class="drawing" tabindex="0">{svg}</div>', drawing.caption))
        self._parts.append(f'<div class="row">{"".join(shown)}</div>')

    def write_drawings(self, folder: Path) -> None:
        """Write every drawing as a PNG, numbered as they come in the page, for slides and documents."""
        folder.mkdir(exist_ok=True)
        for number, drawing in enumerate(self._drawings, start=1):
            words = re.sub(r"[^a-z0-9]+", "_", drawing.caption.lower()).strip("_")[:60]
            file = folder / f"{number:02d}_{words or 'drawing'}.png"
            write_atomically(file, partial(drawing.figure.savefig, dpi=150, format="png"))

    def pictures(self, pictures: Sequence[Picture]) -> None:
        """Add pictures of pixels, beside each other where there is room."""
        shown = [
            _figure(
                f'<img src="{data_uri(picture.pixels)}" alt="{html.escape(_required(picture.alt))}">', picture.caption
            )
            for picture in pictures
        ]
        self._parts.append(f'<div class="pictures">{"".join(shown)}</div>')

    def html(self) -> str:
        """Return the document."""
        title = html.escape(self._title.replace("`", ""))
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n"
            + "\n".join(self._parts)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the document, atomically; its folder must exist."""
        write_atomically(path, lambda temporary: temporary.write_text(self.html(), encoding="utf-8"))


def inline(text: str) -> str:
    """Escape text; what stands between backquotes becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def data_uri(pixels: "np.ndarray") -> str:
    """Return pixels, uint8 (Y, X, 3) or (Y, X), as a PNG inside a URI.

    Raises:
        ValueError: If the array is none of these.
    """
    import numpy as np
    from PIL import Image

    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"picture of {pixels.dtype} {pixels.shape}: expected uint8, (Y, X, 3) or (Y, X)")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value
    return Cell("" if value is None else str(value))


def _row(cells: Sequence[Cell], kinds: Sequence[str]) -> str:
    tags = ["th", *["td"] * (len(cells) - 1)]
    return "".join(
        f"<{tag}{_class(_classes(kind, cell.tone))}{' scope=row' if tag == 'th' else ''}>{inline(cell.text)}</{tag}>"
        for tag, cell, kind in zip(tags, cells, kinds, strict=True)
    )


def _is_numeric(texts: Sequence[str]) -> bool:
    """Whether every text that is not empty or a dash starts with a number."""
    told = [text for text in texts if text.strip(" –—-")]
    return bool(told) and all(re.match(r"\s*[+\-−±]?\s*\.?\d", text) for text in told)


def _classes(*names: str) -> str:
    if names[-1] not in TONES:
        raise ValueError(f"tone '{names[-1]}' is not one of {', '.join(filter(None, TONES))}")
    return " ".join(filter(None, names))


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _figure(content: str, caption: str) -> str:
    return (
        f"<figure>{content}<figcaption>{inline(caption)}</figcaption></figure>"
        if caption
        else f"<figure>{content}</figure>"
    )


def _required(alt: str) -> str:
    if not alt.strip():
        raise ValueError("alt text is empty: say in words what is to be seen")
    return alt
