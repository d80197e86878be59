"""A thumbnail for each study of the gallery: the lines or bars of the figure that its block shows.

python -m docs.ext.thumbnails draws them again, from what the blocks of the pages printed, and runs
those that were not. A study without a figure shows the first lines of its output.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from docs.ext import block_cache, blocks
from docs.ext.pictures import PICTURES, draw

GALLERY = Path(__file__).parents[1] / "gallery"
WIDTH, HEIGHT = 240, 96
"""Of a thumbnail, in pixels."""
LEFT, RIGHT, TOP, FOOT = 8, 232, 8, 88
"""Where its lines begin and end."""
COLORS = ("blue", "red", "", "dash")
"""Classes of the lines of a figure, in their order; more begin again."""
N_POINTS = 112
"""Of a line, at most: one for two pixels."""
N_BINS = 12
N_LINES = 4
LINE_LENGTH = 41
"""Of a text, which is cut there."""


class Trace(NamedTuple):
    kind: str
    x: Sequence[Any]
    y: np.ndarray


def main() -> None:
    for page in sorted(GALLERY.glob("*.md")):
        outputs = read_outputs(page)
        path = PICTURES / f"study-{page.stem}.svg"
        path.write_text(draw_study(page.stem, outputs), encoding="utf-8")
        sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


def read_outputs(page: Path) -> list[blocks.Output]:
    """Return what the blocks of a page printed, as the site shows it."""
    text = page.read_text(encoding="utf-8")
    is_run = "run: true" in text.partition("\n# ")[0]
    listed = [b for b in blocks.find_blocks(text) if b.language == "python" or is_run]
    kept = block_cache.find_file(listed, is_shared=False)
    outputs = block_cache.read_outputs(kept)
    if outputs is None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            blocks.write_samples(folder)
            outputs = [block_cache.time_block(each, folder, page.stem, None) for each in listed]
        block_cache.write_outputs(kept, f"gallery/{page.stem}", outputs)
    return outputs


def draw_study(name: str, outputs: Sequence[blocks.Output]) -> str:
    """Return the thumbnail of a study from what its blocks printed."""
    for output in outputs:
        traces = read_traces(output.html)
        if traces:
            return draw(WIDTH, HEIGHT, name, [*draw_traces(traces)])
        lines = re.findall(r'<(?:polyline|path)[^>]* (?:points|d)="([^"]+)"', output.html)
        if lines:
            return draw(WIDTH, HEIGHT, name, [*draw_lines(read_lines(lines))])

    shown = "\n".join(output.text for output in outputs).strip().splitlines()
    return draw(WIDTH, HEIGHT, name, [*draw_text(shown)])


def read_traces(shown: str) -> list[Trace]:
    """Return the lines and bars of the figure in an output; none if it has no figure."""
    start = shown.find("Plotly.newPlot(")
    if start < 0:
        return []
    figure, _ = json.JSONDecoder().raw_decode(shown[shown.index("[", start) :])
    traces = []
    for trace in figure:
        if trace["type"] == "histogram":
            heights, _ = np.histogram(read_values(trace["x"]), bins=N_BINS)
            traces.append(Trace("bar", range(N_BINS), heights.astype(float)))
        else:
            traces.append(Trace(trace["type"], trace["x"], read_values(trace["y"])))
    return traces


def read_values(packed: Any) -> np.ndarray:
    """Return the numbers of an axis, which Plotly packs or lists."""
    if isinstance(packed, dict):
        return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).astype(float)
    return np.asarray(packed, dtype=float)


def read_lines(texts: Sequence[str]) -> list[np.ndarray]:
    """Return the heights of the lines of a drawing, whose own point down."""
    lines = []
    for text in texts:
        numbers = np.array(re.findall(r"-?\d+(?:\.\d+)?", text), dtype=float)
        lines.append(-numbers[1::2])
    return lines


def draw_traces(traces: Sequence[Trace]) -> Iterator[str]:
    """Yield the parts of a figure of bars, else of lines."""
    if traces[0].kind == "bar":
        return draw_bars([trace.y for trace in traces])
    return draw_lines([trace.y for trace in traces])


def draw_axis(height: float) -> str:
    return f'<path d="M{LEFT} {height:.1f} L{RIGHT} {height:.1f}"/>'


def draw_lines(lines: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield lines over one width, on one axis from their lowest value to their highest."""
    yield draw_axis(FOOT)
    low = min(float(np.nanmin(line)) for line in lines)
    high = max(float(np.nanmax(line)) for line in lines)
    for place, line in enumerate(lines):
        rows = np.unique(np.linspace(0, len(line) - 1, N_POINTS).round().astype(int))
        rows = rows[np.isfinite(line[rows])]
        x = LEFT + (RIGHT - LEFT) * rows / (len(line) - 1)
        y = FOOT - (FOOT - TOP) * (line[rows] - low) / (high - low)
        points = " L".join(f"{a:.0f} {b:.1f}" for a, b in zip(x, y, strict=True))
        yield f'<path d="M{points}" class="{COLORS[place % len(COLORS)]}"/>'


def draw_bars(groups: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield bars, those of a group beside each other, from zero up or down."""
    low = min(0.0, *(float(np.nanmin(group)) for group in groups))
    high = max(0.0, *(float(np.nanmax(group)) for group in groups))
    step = (RIGHT - LEFT) / len(groups[0])
    width = 0.8 * step / len(groups)

    def place_height(value: float) -> float:
        return FOOT - (FOOT - TOP) * (value - low) / (high - low)

    zero = place_height(0.0)
    yield draw_axis(zero)
    for place, group in enumerate(groups):
        for k, value in enumerate(np.nan_to_num(group)):
            x = LEFT + (k + 0.1) * step + place * width
            end = place_height(float(value))
            size = f'width="{width:.1f}" height="{abs(end - zero):.1f}"'
            color = COLORS[place % len(COLORS)]
            yield f'<rect x="{x:.1f}" y="{min(end, zero):.1f}" {size} class="{color}"/>'


def draw_text(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first lines of what was printed, as a terminal has them."""
    for place, line in enumerate(lines[:N_LINES]):
        words = html.escape(line[:LINE_LENGTH])
        yield f'<text x="{LEFT}" y="{24 + 20 * place}" style="font:9px monospace">{words}</text>'


if __name__ == "__main__":
    main()
