"""Hostile and broken files are refused, and leave nothing."""

import gzip
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.market import files
from tests.layouts import MARKET, kline_text

GOOD = kline_text(MARKET.bars(), unit=1_000_000, has_header=True)
PLAIN = MARKET.bars().to_csv(index_label="time")


def text(content: str | bytes, name: str = "x.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return folder / name

    return write


def archive(*entries: tuple[str, str], **settings: int) -> Callable[[Path], Path]:
    """Return a writer of a zip with these entries; settings of the first one's header."""

    def write(folder: Path) -> Path:
        path = folder / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number, (name, content) in enumerate(entries):
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                if number == 0:
                    for key, value in settings.items():
                        setattr(info, key, value)
                file.writestr(info, content)
        return path

    return write


def locked(folder: Path) -> Path:
    """Write a zip whose headers say it needs a password."""
    path = archive(("x.csv", GOOD))(folder)
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    path.write_bytes(data)
    return path


def changed(cell: str, column: int = 4, row: int = 3) -> str:
    lines = PLAIN.splitlines()
    cells = lines[row].split(",")
    cells[column] = cell
    return "\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]])


HOSTILE: list[tuple[str, Callable[[Path], Path], str]] = [
    ("zip-slip", archive(("../../evil.csv", "x")), "must have rows, found none"),
    ("zip-slip beside a good file", archive(("x.csv", GOOD), ("../e.csv", "")), "found 2"),
    ("zip with a link", archive(("x.csv", "/etc/passwd"),
     external_attr=(stat.S_IFLNK | 0o777) << 16), "must have rows, found none"),
    ("zip in a zip", archive(("x.zip", "PK")), "must hold one .csv"),
    ("zip with a password", locked, "must be whole and readable.*password"),
    ("zip of a thousand", archive(*((f"{n}.csv", "") for n in range(1001))), "found 1001"),
    ("pickle in a gzip", text(gzip.compress(pickle.dumps([1, 2])), "x.csv.gz"), "must be whole"),
    ("pickle", text(pickle.dumps([1, 2]), "x.pkl"), "a file must end in"),
    ("pickle under another name", text(pickle.dumps([1, 2]), "x.parquet"), "must be whole"),
    ("formula in a price", text(changed("=1+2")), "must be numbers, got '=1"),
    ("huge field", text(changed("9" * 5_000_000)), "got inf"),
    ("zero bytes", text(PLAIN[:200].encode() + b"\0" * 5000), "must be|is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "rule"), HOSTILE, ids=[each[0] for each in HOSTILE])
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path: Path, name, write, rule):
    inside = tmp_path / "in"
    inside.mkdir()
    path = write(inside)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(bt.DataError, match=rule) as refused:
        bt.Market.load(path).save(tmp_path / "out")
    assert len(str(refused.value)) < 5000
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_larger_than_the_limit_is_refused_packed_or_not(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 5_000)
    for write in (
        text(GOOD),
        archive(("x.csv", GOOD)),
        text(gzip.compress(GOOD.encode()), "x.csv.gz"),
    ):
        with pytest.raises(bt.DataError, match="a file must hold at most"):
            bt.Market.load(write(tmp_path))


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(bt.DataError, match="must be a plain file"):
        bt.Market.load(tmp_path / "x.csv")


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather", "zip", "csv.gz"])
def test_files_damaged_at_random_load_or_are_refused_in_words(tmp_path: Path, kind: str):
    """Twenty of each kind: bytes changed, or the end cut off."""
    path = tmp_path / f"bars.{kind}"
    frame = MARKET.bars().reset_index(names="time")
    if kind in ("parquet", "feather"):
        getattr(frame, f"to_{kind}")(path)
    else:
        path = {"zip": archive(("x.csv", PLAIN))}.get(kind, text(PLAIN, path.name))(tmp_path)
        if kind == "csv.gz":
            path.write_bytes(gzip.compress(PLAIN.encode()))
    whole = path.read_bytes()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if seed % 2 else whole)
        for place in rng.integers(0, len(data), 1 + seed):
            data[place] = int(rng.integers(256))
        path.write_bytes(data)
        with suppress(bt.DataError, bt.ParameterError):
            assert bt.Market.load(path).n_bars > 0
        assert isinstance(bt.quality(path).defects, tuple)
