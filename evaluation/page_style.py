"""How the pages look: colours for light and dark, and the style sheet. Nothing comes from the network."""

from typing import NamedTuple


class Colour(NamedTuple):
    """One role's colour on light and on dark paper, as #rrggbb."""

    light: str
    dark: str


COLOURS = {
    "paper": Colour("#ffffff", "#14171a"),
    "panel": Colour("#f3f5f7", "#1f2429"),
    "ink": Colour("#1a1e22", "#e8eaec"),
    "muted": Colour("#59616a", "#a4adb6"),
    "line": Colour("#d4d9de", "#3a424a"),
    "good": Colour("#1b6e3c", "#7bd39b"),
    "bad": Colour("#a8321f", "#f29b8b"),
    "series-1": Colour("#1f5aa6", "#7fb4f5"),
    "series-2": Colour("#b8470f", "#f3985c"),
    "series-3": Colour("#217a4b", "#6fcf97"),
    "series-4": Colour("#7a4fa3", "#c49bec"),
    "series-5": Colour("#7d6a00", "#d9c04a"),
    "series-6": Colour("#00707a", "#5cc9d3"),
}
"""Roles and their colours; they are CSS variables of the page, too."""

SERIES = tuple(colour.light for role, colour in COLOURS.items() if role.startswith("series"))
"""Draw curves in these; in a dark page each becomes its dark partner."""

INK, MUTED, LINE = "#000000", COLOURS["muted"].light, COLOURS["line"].light
"""For figures: matplotlib's black becomes the text's colour, the others the page's muted ink and its thin lines."""


def _variables(side: str) -> str:
    return " ".join(f"--{role}: {getattr(colour, side)};" for role, colour in COLOURS.items())


STYLE_SHEET = f"""
:root {{ color-scheme: light dark; {_variables("light")} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables("dark")} }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{
  margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  background: var(--paper); color: var(--ink);
}}
h1, h2, h3 {{ line-height: 1.25; text-wrap: balance; }}
h1 {{ font-size: clamp(1.5rem, 1.1rem + 2vw, 2.2rem); margin: 0.5rem 0; }}
h2 {{ font-size: 1.35rem; margin: 2.6rem 0 0.6rem; padding-top: 1rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1.08rem; margin: 1.6rem 0 0.4rem; }}
p, ul {{ max-width: 46rem; margin: 0.6rem 0; overflow-wrap: break-word; }}
.lead {{ color: var(--muted); font-size: 1.08rem; }}
.note {{ border-left: 4px solid var(--muted); background: var(--panel); padding: 0.9rem 1.1rem; margin: 1.2rem 0;
  border-radius: 0 0.4rem 0.4rem 0; max-width: none; font-size: 1.12rem; }}
.note.good {{ border-color: var(--good); }}
.note.bad {{ border-color: var(--bad); }}
code, pre {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
code {{ font-size: 0.9em; overflow-wrap: anywhere; }}
pre {{ background: var(--panel); padding: 0.8rem 1rem; border-radius: 0.4rem; overflow-x: auto; line-height: 1.5;
  font-size: 0.86rem; margin: 0.6rem 0; }}
pre code {{ font-size: inherit; overflow-wrap: normal; }}
details {{ margin: 0.6rem 0; }}
summary {{ cursor: pointer; font-weight: 600; padding: 0.25rem 0; }}
.scroll {{ overflow-x: auto; margin: 1rem 0; }}
:focus-visible {{ outline: 3px solid var(--series-1); outline-offset: 2px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.94rem; }}
caption, figcaption {{ text-align: left; color: var(--muted); font-size: 0.9rem; max-width: 46rem; }}
caption {{ padding-bottom: 0.5rem; }}
th, td {{ padding: 0.35rem 0.8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }}
thead th {{ vertical-align: bottom; border-bottom: 2px solid var(--muted); font-weight: 600; }}
tbody th {{ font-weight: 500; }}
.prose {{ min-width: 13rem; }}
.number {{ text-align: right; white-space: nowrap; }}
thead .number {{ white-space: normal; }}
.good {{ color: var(--good); }} .bad {{ color: var(--bad); }} .quiet {{ color: var(--muted); }}
td.good, td.bad {{ font-weight: 600; }}
.note.good, .note.bad {{ color: inherit; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1.5rem 2rem; align-items: flex-start; margin: 1rem 0; }}
figure {{ margin: 0; min-width: 0; max-width: 100%; }}
body > figure {{ margin: 1rem 0; }}
.drawing {{ overflow-x: auto; }}
.drawing svg {{ display: block; height: auto; max-width: 100%; color: var(--ink); fill: currentColor; }}
.drawing svg text {{ fill: currentColor; }}
.drawing svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
.pictures {{ display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }}
.pictures figure {{ max-width: 36rem; }}
.pictures img {{ display: block; width: 100%; height: auto; border-radius: 0.3rem; image-rendering: auto; }}
@media (max-width: 34rem) {{ .pictures {{ grid-template-columns: 1fr 1fr; gap: 0.5rem; }} }}
@media print {{ body {{ max-width: none; padding: 0; }} .scroll, .drawing {{ overflow: visible; }} }}
"""
