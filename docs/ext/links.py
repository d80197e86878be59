"""Check every link of the built site to itself, anchors included, and to files of the repository.

python -m docs.ext.links build/docs
"""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = "https://github.com/leverage-backtest/leverage-backtest/blob/main/"
ROOT = Path(__file__).parents[2]


def find_all(pattern: str, path: Path) -> set[str]:
    text = re.sub(r"(?s)<script.*?</script>", "", path.read_text(encoding="utf-8"))
    return {unescape(each) for each in re.findall(pattern, text)}


def find_dead(site: Path) -> list[str]:
    anchors = {path.resolve(): find_all(r'\bid="([^"]+)"', path) for path in site.rglob("*.html")}

    dead = []
    for path in anchors:
        for link in find_all(r'\b(?:href|src)="([^"]+)"', path):
            parts = urlsplit(link)
            if link.startswith(REPOSITORY):
                file = ROOT / unquote(urlsplit(link.removeprefix(REPOSITORY)).path)
                dead += [] if file.exists() else [f"{path.name}: {link}"]
            if parts.scheme or parts.netloc:
                continue

            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            known = anchors.get(target)

            if not target.exists() or (anchor and known is not None and anchor not in known):
                dead.append(f"{path.name}: {link}")

    return sorted(dead)


if __name__ == "__main__":
    found = find_dead(Path(sys.argv[1]))
    sys.stdout.write("".join(f"dead link: {each}\n" for each in found))
    sys.exit(bool(found))
