"""A page of sections: one HTML file without scripts or network, and its pictures beside it."""

import base64
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mutorch.utils import require, whole_file

_LARGEST = 400_000
"""Letters of a vector graphic above which a picture is put into the page as an image."""
_DPI = 130


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        head: the names of the columns.
        rows: their cells.
        numbers: the columns that are set to the right.
        marked: the rows that stand out.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of matplotlib.

    Attributes:
        name: of its file, without `.png`.
        figure: what is drawn.
        alt: what it shows, for who does not see it.
    """

    name: str
    figure: Any
    alt: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: a title, and below it whatever is given, in this order.

    Attributes:
        title: its heading.
        picture, table: see these.
        text: paragraphs.
        code: text as it is, such as settings.
    """

    title: str
    picture: Picture | None = None
    table: Table | None = None
    text: Sequence[str] = ()
    code: str | None = None


def write_page(path: str | os.PathLike[str], title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write a page, and each of its pictures as a PNG beside it. Needs the extra `report`.

    Pictures are vector graphics inside the page, or images where they would be large.

    Errors:
        MissingExtraError: the extra is not installed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> page = write_page(folder / "page.html", "Title", "A line below it", [Section("First", text=["A paragraph."])])
        >>> "A paragraph." in page.read_text()
        True
    """
    path = Path(path)
    jinja2 = require("jinja2", extra="report")
    template = jinja2.Template((files("mutorch.reporting") / "page.html").read_text(encoding="utf-8"), autoescape=True)
    drawn = {number: one.picture for number, one in enumerate(sections) if one.picture is not None}
    pictures = {number: _markup(picture, f"picture{number}-") for number, picture in drawn.items()}
    for picture in drawn.values():
        with whole_file(path.parent / f"{picture.name}.png") as partial:
            picture.figure.savefig(partial, format="png", dpi=_DPI)
    text = template.render(title=title, subtitle=subtitle, sections=list(enumerate(sections)), pictures=pictures)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _markup(picture: Picture, prefix: str) -> str:
    svg = _svg(picture.figure, prefix)
    if len(svg) <= _LARGEST:
        return svg
    drawn, buffer = io.BytesIO(), io.BytesIO()
    picture.figure.savefig(drawn, format="png", dpi=_DPI)
    # 256 colours are enough for what is drawn, and a third of the bytes.
    require("PIL.Image", extra="report").open(drawn).convert("RGB").quantize(256, dither=0).save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'


def _svg(figure: Any, prefix: str) -> str:
    """The figure as a part of a page: with ids of its own, and without the addresses that a file of its own would name."""
    buffer = io.StringIO()
    with require("matplotlib", extra="report").rc_context({"svg.hashsalt": "mutorch"}):
        figure.savefig(buffer, format="svg", dpi=_DPI)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", text)
