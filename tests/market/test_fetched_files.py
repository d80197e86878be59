"""Downloaded files that are not what they should be: checksums, zip files, rows and bars."""

import io
import struct
import zipfile

import numpy as np
import pytest

from backtest.base.errors import DataError
from backtest.market.fetch.binance_archive import read_rows, unpack
from backtest.market.read.packed_files import Content
from tests.market.fetches import content, fetch
from tests.refusals import check_refused
from tests.replay import HEADER, epoch, kline_text, klines

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")


@pytest.mark.parametrize(("checksum", "said"), [
    (None, "the archive has no checksum"),
    (b"not a hash  x.zip\n", "must be a SHA-256"),
    (b"0" * 64 + b"  other.zip\n", "must be a SHA-256"),
    (b"0" * 64 + b"  BTCUSDT-1h-2024-01.zip\n", "its checksum says 0000"),
])  # fmt: skip
def test_a_file_without_its_own_checksum_is_refused(tmp_path, server, checksum, said):
    path = server.path("bars", "2024-01") + ".CHECKSUM"
    if checksum is None:
        del server.files[path]
    else:
        server.files[path] = checksum
    check_refused(lambda: fetch(tmp_path / "btc", server), said, DataError)


# zip files


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return stream.getvalue()


def patched(archive: bytes, form: str, place: int, value: int) -> bytes:
    """Return a zip file with another value in the entry of its directory."""
    content = bytearray(archive)
    struct.pack_into(form, content, content.rfind(b"PK\x01\x02") + place, value)
    return bytes(content)


TEXT = zip_of(**{"a.csv": b"x,y,z\n" * 50})


@pytest.mark.parametrize(("content", "said"), [
    (zip_of(**{"a.csv": b"1", "b.csv": b"2"}), "found 2: a.csv, b.csv"),
    (patched(TEXT, "<H", 8, 1), "needs a password"),
    (patched(zip_of(**{"a.csv": bytes(100_000)}), "<I", 24, 10), "whole"),
    (TEXT[:40] + bytes([TEXT[40] ^ 0xFF]) + TEXT[41:], "must be whole and readable"),
    (zip_of(**{"../../a.csv": b"1"}), "'../../a.csv' leads out of its folder"),
    (zip_of(**{"/etc/passwd": b"1"}), "'/etc/passwd' leads out of its folder"),
    (zip_of(**{"b.csv": b"1"}), "must hold a.csv, holds 'b.csv'"),
    (zip_of(), "found 0: nothing"),
    (zip_of(**{"a.csv": b"1"})[:-5], "not a zip file"),
    (b"", "not a zip file"),
    (b"PK\x05\x06" + bytes(18), "found 0: nothing"),
    (zip_of(**{"a.csv": bytes(1 << 20)}), "at most 0 MiB"),
    (zip_of(**{str(n) * 9: b"" for n in range(2000)}), "got 2000 entries"),
    (zip_of(**{"a.csv": b"x" * 99}).replace(b"a.csv", b"a.csw", 1), "got one that is not"),
])  # fmt: skip
def test_a_zip_file_of_anything_but_its_one_member_is_refused(content, said, monkeypatch):
    monkeypatch.setattr("backtest.market.fetch.binance_archive.LARGEST_TEXT", 1000)
    with pytest.raises(DataError, match=said):
        unpack(content, "a.zip", "test")


@pytest.mark.slow
def test_a_bomb_in_the_archive_writes_nothing(tmp_path, server):
    path = server.path("bars", "2024-01")
    name = path.rpartition("/")[2].replace(".zip", ".csv")
    server.put_zip(path, zip_of(**{name: bytes(70 << 20)}))
    with pytest.raises(DataError, match=r"at most 64 MiB|unpack to at most"):
        fetch(tmp_path / "btc", server, parallel=1)
    assert not (tmp_path / "btc" / "bars.parquet").exists()


# texts


@pytest.mark.parametrize(("line", "said"), [
    ("1704067200000,1,2,0.5", "as many cells as the header, 12, found 4"),
    ("1704067200000,1,2,0.5,=1+1,3,0,0,0,0,0,0", "close must be numbers, got '=1\\+1'"),
    ("1704067200000,1,2,0.5,,3,0,0,0,0,0,0", "numbers where they are needed, close lacks"),
    ("17,1,2,0.5,1,3,0,0,0,0,0,0", "epochs"),
    ("1704067200000,1,2,0.5,1," + "9" * 2_000_000 + "x,0,0,0,0,0,0", "a line must be at most"),
])  # fmt: skip
def test_a_row_that_cannot_be_read_is_refused(line, said):
    with pytest.raises(DataError, match=said):
        read_rows(Content("a.csv", f"{HEADER}\n{line}\n".encode()), "bars", "test")


FEBRUARY = klines(epoch("2024-02-01"), epoch("2024-03-01"), 3_600_000)
LOW = FEBRUARY.copy()
LOW[7, 2] = 1.0


@pytest.mark.parametrize(("rows", "said"), [
    (klines(epoch("2024-01-31"), epoch("2024-02-03"), 3_600_000), "2024-01-31 in 24 of 72"),
    (klines(epoch("2024-02-01") + 60_000, epoch("2024-02-02"), 3_600_000), "2024-02-01 00:01"),
    (LOW, "high must be at least open and close"),
])  # fmt: skip
def test_rows_that_cannot_be_are_refused_and_nothing_is_stored(tmp_path, server, rows, said):
    server.put("bars", "2024-02", kline_text(rows, server.length))
    check_refused(lambda: fetch(tmp_path / "btc", server), said, DataError)
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}


def test_rows_that_are_there_twice_count_once_and_may_not_differ(tmp_path, server, calm):
    twice = np.concatenate([FEBRUARY[:50], FEBRUARY[20:], FEBRUARY[-9:]])
    server.put("bars", "2024-02", kline_text(twice, server.length))
    fetch(tmp_path / "twice", server)
    assert content(tmp_path / "twice")["bars.parquet"] == calm["bars.parquet"]
    twice[60, 4] += 1.0
    server.put("bars", "2024-02", kline_text(twice, server.length))
    with pytest.raises(DataError, match=r"one close, 2024-02-02 06:00 UTC has 3\d+\.\d+ and 3"):
        fetch(tmp_path / "torn", server)
