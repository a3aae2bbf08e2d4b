import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nnunetv2_voco.evaluation.page import Cell, Drawing, Page, Picture, data_uri
from nnunetv2_voco.evaluation.page_style import COLOURS, INK, MUTED, SERIES
from nnunetv2_voco.evaluation.svg import new_figure

VOID = {"meta", "img"}
NASTY = "<script>alert('x')</script> & \"quotes\""


class Outline(HTMLParser):
    """Reads a page: balanced tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def curve(label: str = "Dice") -> Drawing:
    figure, axes = new_figure(4.6, 3)
    axes[0, 0].plot([0, 1], [0, 1], label=label)
    axes[0, 0].axhline(0.5, color=INK)
    axes[0, 0].legend()
    return Drawing(figure, alt="a rising line", caption=label)


def full_page(text: str = "text") -> Page:
    page = Page(text, lead=text)
    page.note(text, tone="good")
    page.heading(text)
    page.paragraph(text)
    page.items([text, text])
    page.code(text, summary=text)
    page.table([text, "Dice"], [[text, 0.5], [text, Cell(text, tone="bad")]], caption=text)
    page.drawings([curve(text), curve(text)])
    page.pictures([Picture(np.zeros((4, 5, 3), np.uint8), alt=text, caption=text)])
    return page


def test_every_text_is_escaped_wherever_it_is_put():
    outline = Outline(full_page(NASTY).html())
    assert not outline.all("script")
    titles, prose, table, figures = 4, 6, 5, 2 + 3  # figures: legends and captions
    assert outline.text.count("<script>") == titles + prose + table + figures
    assert outline.all("img")[0]["alt"] == NASTY


def test_backquotes_make_code_and_nothing_else_is_markup():
    page = Page("t")
    page.paragraph("run `voco_demo <OUT>` **now**")
    assert "<p>run <code>voco_demo &lt;OUT&gt;</code> **now**</p>" in page.html()


def test_a_page_asks_the_network_for_nothing_and_runs_nothing():
    text = full_page().html()
    assert "http" not in text
    assert "@import" not in text
    assert "@font-face" not in text
    for tag, attributes in Outline(text).tags:
        assert tag not in {"script", "link", "iframe", "object"}
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
        if "href" in attributes:
            assert attributes["href"].startswith("#")


def test_ids_are_unique_and_every_reference_has_its_target():
    page = full_page()
    page.heading("text")
    text = page.html()
    ids = [attributes["id"] for _, attributes in Outline(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert references
    assert references <= set(ids)


def test_equal_calls_give_equal_bytes():
    assert full_page().html() == full_page().html()


def test_drawings_take_the_colours_of_the_page():
    figure, axes = new_figure(4, 3)
    axes[0, 0].plot([0, 1], [0, 1], color=SERIES[1])
    axes[0, 0].plot([0, 1], [1, 0], color="#abcdef")
    axes[0, 0].set_title("title")
    page = Page("t")
    page.drawings([Drawing(figure, alt="lines")])
    (svg,) = re.findall(r"<svg.*?</svg>", page.html(), re.DOTALL)
    assert "var(--series-2)" in svg
    assert "#abcdef" in svg  # a colour of one's own stays
    for colour in (INK, MUTED, SERIES[1], "#ffffff"):
        assert colour not in svg
    assert ">title</text>" in svg
    assert "DejaVu" not in svg


def test_a_figure_without_a_description_is_refused():
    page = Page("t")
    figure, _ = new_figure(4, 3)
    with pytest.raises(ValueError, match="alt text"):
        page.drawings([Drawing(figure, alt=" ")])
    with pytest.raises(ValueError, match="alt text"):
        page.pictures([Picture(np.zeros((2, 2), np.uint8), alt="")])
    outline = Outline(full_page().html())
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in outline.all("svg"))


def test_numbers_stand_right_and_words_left():
    page = Page("t")
    rows = [["liver", "0.93 ± 0.02", "−0.1", "few"], ["spleen", None, "+0.2", "5"]]
    page.table(["organ", "Dice", "gain", "note"], rows, caption="c")
    header = Outline(page.html()).all("th")[:4]
    assert [cell.get("class") for cell in header] == [None, "number", "number", None]


def test_a_table_names_its_columns_rows_and_content():
    outline = Outline(full_page().html())
    assert [cell["scope"] for cell in outline.all("th")] == ["col", "col", "row", "row"]
    assert len(outline.all("caption")) == 1


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells, the header 2"):
        Page("t").table(["a", "b"], [["x"]], caption="c")


def test_an_unknown_tone_or_level_is_refused():
    with pytest.raises(ValueError, match="tone 'great'"):
        Page("t").note("x", tone="great")
    with pytest.raises(ValueError, match="level 1"):
        Page("t").heading("x", level=1)


def test_pixels_survive_the_way_into_the_page(rng):
    pixels = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    png = base64.b64decode(data_uri(pixels).removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)
    with pytest.raises(ValueError, match="float64"):
        data_uri(np.zeros((3, 3)))


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_contrast_is_sufficient(side, ground):
    paper = getattr(COLOURS[ground], side)
    assert contrast(getattr(COLOURS["ink"], side), paper) >= 7
    for role, colour in COLOURS.items():
        if role in ("muted", "good", "bad") or role.startswith("series"):
            assert contrast(getattr(colour, side), paper) >= 4.5, role


def test_drawings_are_written_as_pictures_in_the_order_of_the_page(tmp_path):
    page = Page("Title")
    for caption in ("Dice by epoch: VoCo", ""):
        figure, axes = new_figure(3, 2)
        axes[0, 0].plot([0, 1], [0, 1])
        page.drawings([Drawing(figure, alt="A line", caption=caption)])
    page.write_drawings(tmp_path / "figures")
    files = sorted((tmp_path / "figures").iterdir())
    assert [file.name for file in files] == ["01_dice_by_epoch_voco.png", "02_drawing.png"]
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (450, 300)
