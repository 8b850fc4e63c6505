"""A self-contained HTML page: text, tables, pictures and videos embedded in one file."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from worldmodel.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1em 0; } figcaption { color: #555; }
img, video { max-width: 100%; image-rendering: pixelated; }
"""


class Report:
    """Sections in the order they are added.

    Args:
        title: Heading of the page.
    """

    def __init__(self, title: str):
        self.title = title
        self.parts: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column names the rows."""
        for row in rows:
            assert len(row) == len(columns), (row, columns)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self.parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def facts(self, values: Mapping[str, object]) -> None:
        """Add a table of names and values."""
        self.table(("", ""), [(name, str(value)) for name, value in values.items()])

    def picture(self, file: Path, caption: str) -> None:
        """Embed a PNG file."""
        source = data_uri("image/png", file.read_bytes())
        self._figure(f'<img alt="{html.escape(caption)}" src="{source}">', caption)

    def video(self, file: Path, caption: str) -> None:
        """Embed an mp4 file that plays by itself, in a loop."""
        attributes = "autoplay loop muted playsinline controls"
        source = data_uri("video/mp4", file.read_bytes())
        self._figure(f'<video {attributes} src="{source}"></video>', caption)

    def write(self, file: Path) -> None:
        """Write the page."""
        title = html.escape(self.title)
        write_text(
            file,
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n" + "\n".join(self.parts) + "\n</body></html>\n",
        )

    def _figure(self, content: str, caption: str) -> None:
        self.parts.append(f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>")


def data_uri(kind: str, content: bytes) -> str:
    """A data URI that contains `content`; `kind` is its media type, such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
