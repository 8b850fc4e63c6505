"""What `mkdocs build` does beside building: it fills the menu, and copies files of the repository into the site.

Pages link to files of the repository, such as examples and model cards, by their place in it, so that the links also
work where the Markdown is read. The site has copies of these files, and its links lead there.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])([^)#\s]+)(?=[)#])")
FOLDER = "repository/"


def place(page: str) -> str:
    """Where the source of a page lies in the repository."""
    return page.removeprefix(FOLDER) if page.startswith(FOLDER) else f"docs/{page}"


def linked(page: str, link: str, root: Path) -> str:
    """What a link of a page leads to in the repository; for a folder, its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place(page)), link))
    return f"{path}/README.md" if (root / path / "README.md").is_file() else path


def filled(menu: list, docs: Path) -> list:
    """The menu, with the pages of a folder in place of its name: the index first, the others in their order."""
    entries = []
    for entry in menu:
        if isinstance(entry, str) and entry.endswith("/"):
            pages = sorted((docs / entry).glob("*.md"), key=lambda page: (page.name != "index.md", page.name))
            entries += [page.relative_to(docs).as_posix() for page in pages]
        elif isinstance(entry, dict):
            entries.append({name: filled(sub, docs) if isinstance(sub, list) else sub for name, sub in entry.items()})
        else:
            entries.append(entry)
    return entries


def on_config(config: Any) -> Any:
    """Fill the menu."""
    config.nav = filled(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside `docs/` that a page links to, and what is linked there in turn."""
    root = Path(config.config_file_path).parent
    pages = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while pages:
        page, text = pages.pop()
        for link in LINK.findall(text):
            path = linked(page, link, root)
            if path.startswith(("docs/", "..")) or FOLDER + path in files.src_uris or not (root / path).is_file():
                continue
            source = str(root / path)
            files.append(
                File.generated(config, FOLDER + path, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV)
            )
            if path.endswith(".md"):
                pages.append((FOLDER + path, Path(source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to their copies in the site."""
    name, root = page.file.src_uri, Path(config.config_file_path).parent

    def turned(match: re.Match) -> str:
        path = linked(name, match[1], root)
        target = path.removeprefix("docs/") if path.startswith("docs/") else FOLDER + path
        return posixpath.relpath(target, posixpath.dirname(name)) if target in files.src_uris else match[0]

    return LINK.sub(turned, markdown)
