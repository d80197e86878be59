"""Bars as files of every kind, with odd cells, and damaged."""

import io
import json
import random

import numpy as np
import pandas as pd


def write_market(n: int) -> bytes:
    """Return bars as CSV."""
    times = pd.date_range("2024-01-01", periods=n, freq="h")
    rows = [
        f"{t:%Y-%m-%dT%H:%M}Z,{100 + k % 7},{102 + k % 7},{99 + k % 7},{101 + k % 7},{k % 5}"
        for k, t in enumerate(times)
    ]
    return "\n".join(["time,open,high,low,close,volume", *rows, ""]).encode()


CELLS = ("", "nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", "abc", "1,5", "9" * 400, "\x00",
         "1.2.3", "0x10", "TRUE", "2024-01-01", "é", "'1'", "1e", " 1 ", "NULL", "1_0")  # fmt: skip


def write_data(suffix: str, rng: random.Random) -> bytes:
    """Return bars in a format, with odd cells where it is text."""
    frame = pd.read_csv(io.BytesIO(write_market(48)))
    if suffix in (".parquet", ".feather"):
        for _ in range(rng.randint(0, 2)):
            column = rng.choice(list(frame)[1:])
            value = rng.choice((np.nan, np.inf, -1.0, 0.0, 1e308, "x", None))
            frame[column] = frame[column].astype(object if isinstance(value, str) else float)
            frame.loc[rng.randrange(48), column] = value
            frame[column] = frame[column].astype(str) if isinstance(value, str) else frame[column]
        sink = io.BytesIO()
        (frame.to_parquet if suffix == ".parquet" else frame.to_feather)(sink)
        return sink.getvalue()
    if suffix == ".json":
        return json.dumps(frame.to_numpy().tolist()).encode()
    rows = [line.split(",") for line in write_market(48).decode().split("\n")]
    for _ in range(rng.randint(0, 4)):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    if rng.random() < 0.3:
        rows.insert(rng.randrange(len(rows)), rng.choice(rows))
    return "\n".join(",".join(row) for row in rows).encode()


def damage(rng: random.Random, content: bytes) -> bytes:
    """Return a file that is cut, flipped, doubled, emptied, or as it was."""
    place = rng.randrange(len(content))
    return content if rng.random() < 0.4 else rng.choice((
        content[:place], content[place:], b"", content * 2,
        content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :],
        b"\xff\xfe" + content, b"\xef\xbb\xbf" + content, content.replace(b",", b";"),
        content.replace(b"\n", b"\r"), bytes(rng.randrange(256) for _ in range(200)),
        b"[" * 5_000 + content,
    ))  # fmt: skip
