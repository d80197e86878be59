"""A small drawing for each study of the gallery: what its figure looks like, not its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 240, 96
"""Of a drawing, in pixels."""
LEFT, RIGHT, TOP, FOOT = 8, 232, 8, 88
"""Where its lines begin and end."""

Heights = Sequence[float]
"""Values from 0, the foot, to 1, the top, at even distances."""

LINES: Mapping[str, Mapping[str, Heights]] = {
    "own-data": {"": (.5, .62, .48, .7, .64, .8, .55, .68), "blue": (.5, .56, .5, .6, .57, .66)},
    "volatility-target": {"": (.4, .7, .2, .8, .3, .9), "blue": (.4, .5, .42, .56, .5, .62)},
    "hedge": {"red": (.6, .75, .7, .3, .1, .16), "blue": (.6, .7, .64, .5, .46, .5)},
    "carry": {"": (.2, .5, .3, .6, .4, .5), "blue": (.2, .28, .36, .46, .55, .66)},
    "loan": {"blue": (.9, .8, .85, .6, .5, .32), "red": (.25, .25, .25, .25, .25, .25)},
    "cascade": {"blue": (.9, .88, .7, .45, .25, .2), "red": (.9, .88, .8, .74, .7, .7)},
    "withdrawals": {"blue": (.8, .84, .7, .62, .4, .3, .1), "": (.8, .7, .6, .5, .4, .3, .2)},
    "next-order": {"": (.3, .4, .36, .5, .46, .6), "blue": (.2, .2, .45, .45, .45, .7)},
}  # fmt: skip
"""Lines by their color, of the studies that show some over time."""
BARS: Mapping[str, Heights] = {
    "walk-forward": (.5, .7, .35, .6, .2, .45, .55), "stress": (.35, .8, .5, .95, .25),
    "venues": (.3, .45, .5, .7, .9), "gate": (.6, .6, .6, .6, .85),
}  # fmt: skip
"""Bars, of the others; the last of the gate is the one that moved."""


def draw_thumbnails(draw: Callable[[int, int, str, list[str]], str]) -> dict[str, str]:
    """Return the text of each drawing by the name of its file; ``draw`` writes the whole of it."""
    drawings = {}
    for name, lines in LINES.items():
        parts = [draw_path(heights, color) for color, heights in lines.items()]
        drawings[f"study-{name}.svg"] = draw(WIDTH, HEIGHT, name, [draw_foot(), *parts])
    for name, heights in BARS.items():
        parts = draw_bars(heights)
        drawings[f"study-{name}.svg"] = draw(WIDTH, HEIGHT, name, [draw_foot(), *parts])
    return drawings


def draw_foot() -> str:
    return f'<path d="M{LEFT} {FOOT} L{RIGHT} {FOOT}"/>'


def draw_path(heights: Heights, color: str) -> str:
    step = (RIGHT - LEFT) / (len(heights) - 1)
    points = []
    for place, height in enumerate(heights):
        points.append(f"{LEFT + place * step:.0f} {FOOT - height * (FOOT - TOP):.0f}")
    return f'<path d="M{" L".join(points)}" class="{color}"/>'


def draw_bars(heights: Heights) -> list[str]:
    step = (RIGHT - LEFT) / len(heights)
    bars = []
    for place, height in enumerate(heights):
        x = LEFT + (place + 0.2) * step
        tall = height * (FOOT - TOP)
        size = f'x="{x:.0f}" y="{FOOT - tall:.0f}" width="{0.6 * step:.0f}" height="{tall:.0f}"'
        bars.append(f'<rect {size} class="{"red" if place == len(heights) - 1 else "blue"}"/>')
    return bars
