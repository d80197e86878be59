"""Check every link of the built site to itself, anchors included, and to files of the repository.

python -m docs.ext.links build/docs
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = "https://github.com/leverage-backtest/leverage-backtest/blob/main/"
ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element refers to, and its name."""
        for name, value in attrs:
            if value and name in {"href", "src"}:
                self.links.add(value)
            elif value and name == "id":
                self.anchors.add(value)


def read_page(path: Path) -> Page:
    """Return a page."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def find_dead(site: Path) -> list[str]:
    """Return the links to the site or the repository that lead nowhere."""
    pages = {path.resolve(): read_page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if link.startswith(REPOSITORY):
                file = ROOT / unquote(urlsplit(link.removeprefix(REPOSITORY)).path)
                dead += [] if file.exists() else [f"{path.name}: {link}"]
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            known = pages.get(target)
            if not target.exists() or (anchor and known and anchor not in known.anchors):
                dead.append(f"{path.name}: {link}")
    return sorted(dead)


def main() -> int:
    """Print the dead links; the exit code is 1 if there are any."""
    dead = find_dead(Path(sys.argv[1]))
    sys.stdout.write("".join(f"dead link: {each}\n" for each in dead))
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
