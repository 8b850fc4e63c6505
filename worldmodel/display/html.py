"""A self-contained HTML page: text, tables, pictures and videos embedded in one file."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from worldmodel.files import write_text

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a1d21; --soft: #4d545c; --paper: #fff; --line: #d0d5da; --box: #eef4fb; --mark: #1f6fb8;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #b3bac2; --paper: #16191d; --line: #3b424a; --box: #1d2936; --mark: #6db3f2; }
}
* { box-sizing: border-box; }
body {
  font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 960px; margin: 0 auto; padding: 16px; overflow-wrap: anywhere;
}
h1 { font-size: 28px; } h2 { font-size: 20px; margin: 2em 0 0.5em; } h1, h2 { line-height: 1.2; }
p { max-width: 70ch; }
.meaning { padding: 4px 16px; border-left: 4px solid var(--mark); border-radius: 4px; background: var(--box); }
.meaning h2 { margin-top: 0.5em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; } tbody th { font-weight: 400; }
th:first-child { padding-left: 0; text-align: left; }
figure { margin: 1em 0; } figcaption, footer { color: var(--soft); font-size: 14px; }
.plots { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.plots figure { margin: 0; }
.wide img { width: max(100%, 800px); max-width: none; }
img, video { display: block; max-width: 100%; height: auto; border-radius: 4px; }
img { background: #fff; } video { image-rendering: pixelated; }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
footer { margin-top: 3em; padding-top: 8px; border-top: 1px solid var(--line); }
"""


class Report:
    """Sections in the order they are added.

    The page is light or dark as the reader's system is, and fits a phone.

    Args:
        title: Heading of the page.
    """

    def __init__(self, title: str):
        self.title = title
        self.parts: list[str] = []

    def meaning(self, sentences: Sequence[str], *, titled: bool = True) -> None:
        """Add a box that says in words what the figures mean; nothing without sentences.

        Args:
            sentences: One paragraph each.
            titled: Whether the box is a section of its own, with a heading.
        """
        if sentences:
            lines = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
            heading = "<h2>What this means</h2>" if titled else ""
            self.parts.append(f'<div class="meaning">{heading}{lines}</div>')

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column names the rows. A wide table scrolls in its own box."""
        for row in rows:
            assert len(row) == len(columns), (row, columns)
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
        content = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self.parts.append(_scrolling(content, f"table of {columns[0]}", "scroll"))

    def facts(self, values: Mapping[str, object], kind: str = "setting") -> None:
        """Add a table of names and values; `kind` says what the names are."""
        self.table((kind, "value"), [(name, str(value)) for name, value in values.items()])

    def picture(self, file: Path, caption: str, *, wide: bool = False) -> None:
        """Embed a PNG file; a `wide` one keeps a readable size on a phone and scrolls in its own box."""
        picture = _picture(file.read_bytes(), caption)
        self.parts.append(_scrolling(picture, caption, "scroll wide") if wide else picture)

    def plots(self, pictures: Mapping[str, bytes]) -> None:
        """Embed small PNG pictures side by side, as many in a row as there is room for.

        Args:
            pictures: Contents of PNG files by their captions.
        """
        figures = "".join(_picture(content, caption) for caption, content in pictures.items())
        self.parts.append(f'<div class="plots">{figures}</div>')

    def video(self, file: Path, caption: str) -> None:
        """Embed an mp4 file that plays by itself, in a loop."""
        attributes = f'autoplay loop muted playsinline controls aria-label="{html.escape(caption)}"'
        source = data_uri("video/mp4", file.read_bytes())
        self.parts.append(_figure(f'<video {attributes} src="{source}"></video>', caption))

    def write(self, file: Path) -> None:
        """Write the page, with its size at the end."""
        title = html.escape(self.title)
        head = (
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}</style>'
        )
        body = f"<main><h1>{title}</h1>\n" + "\n".join(self.parts) + "\n</main>"
        size = megabytes(len(head.encode()) + len(body.encode()))
        foot = f"<footer>This page is one file of {size}. It needs no other file and no network.</footer>"
        write_text(
            file, f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}\n{foot}\n</body></html>\n'
        )


def _scrolling(content: str, label: str, classes: str) -> str:
    return f'<div class="{classes}" role="region" aria-label="{html.escape(label)}" tabindex="0">{content}</div>'


def _cells(row: Sequence[str]) -> str:
    name, *values = map(html.escape, row)
    return f'<th scope="row">{name}</th>' + "".join(f"<td>{value}</td>" for value in values)


def _picture(content: bytes, caption: str) -> str:
    source = data_uri("image/png", content)
    return _figure(f'<img alt="{html.escape(caption)}" src="{source}">', caption)


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>"


def megabytes(size: int) -> str:
    """A number of bytes in words, such as `0.3 MB`; at least `0.1 MB`."""
    return f"{max(size / 1e6, 0.1):.1f} MB"


def data_uri(kind: str, content: bytes) -> str:
    """A data URI that contains `content`; `kind` is its media type, such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
