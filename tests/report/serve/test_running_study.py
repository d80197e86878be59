"""A running study is followed batch by batch."""

import json
import os
import shutil

import numpy as np
import pytest

from backtest.base.atomic_files import LOCK, hold_lock_file
from backtest.report.serve.pages import find_state
from backtest.store.entry import take_stamp
from backtest.tune.journal import OUTCOME, STUDY, TRIALS, Journal
from tests.report.serve.served import batch_of, begin_again, rows_of
from tests.tuning import stand_in


@pytest.fixture
def study(store, monkeypatch, tmp_path):
    """Return the folder of a study that has begun, its journal, and how to finish it at once.

    We are its process.
    """
    stand_in(put=monkeypatch.setattr)
    finished, aside = begin_again(store, tmp_path)
    folder = finished.folder

    def finish():
        shutil.rmtree(folder / TRIALS)
        for part in (TRIALS, OUTCOME):
            (aside / part).rename(folder / part)
        return finished

    with hold_lock_file(folder / LOCK):
        yield folder, Journal(folder, finished.facts["id"]), finish


def test_a_running_study_is_followed_batch_by_batch(ask, study):
    folder, journal, finish = study

    def progress():
        answer, text = ask(f"/progress/{folder.name}")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        return json.loads(text)

    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["link"] == f"/live/{folder.name}"
    assert row["under"].startswith("running, ")
    now = progress()
    assert (now["state"], now["sets"], now["best"], now["rate"]) == ("running", 0, None, 0.0)
    journal.append(batch_of([1.0, 3.0, 2.0], 2.0))
    now = progress()
    assert (now["sets"], now["rate"], now["asked"]) == (3, 1.5, 40)
    assert now["best"]["score"] == 3.0
    assert now["best"]["values"] == {"x": 3.0}
    journal.append(batch_of([np.nan, 2.5], 4.0, errors=["it failed", ""]))
    journal.append(batch_of([9.0], 5.0, stage="part"))
    journal.append(batch_of([4.0], 8.0, stage="neighbour"))
    now = progress()
    assert (now["sets"], now["failed"], now["stage"]) == (6, 1, "neighbour")
    assert now["points"] == [[2, 3.0], [6, 4.0]]
    assert now["best"]["score"] == 4.0
    page = ask(f"/live/{folder.name}")
    assert page[0].status == 200
    assert "connect-src 'self'" in page[0].headers["Content-Security-Policy"]
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["order"][6] == 4.0, "the best so far stands in the list"
    best = finish().best
    assert progress()["state"] == "finished"
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["link"] == f"/result/{folder.name}"
    assert row["order"][6] == best["sharpe"]


def test_a_file_that_vanishes_while_it_is_listed_damages_nothing(study, monkeypatch):
    """A batch is written under another name and renamed: it may be gone when it is looked at."""
    folder, journal, _ = study
    journal.append(batch_of([1.0], 1.0))

    class Gone:
        name = ".draft-of-a-batch"

        def stat(self, follow_symlinks):
            raise FileNotFoundError(self.name)

    class Listing:
        def __init__(self, path):
            self.found = real(path)

        def __enter__(self):
            return iter([Gone(), *self.found])

        def __exit__(self, *error):
            self.found.close()

    real = os.scandir
    monkeypatch.setattr("backtest.store.entry.os.scandir", Listing)
    marks = take_stamp(folder)
    assert {STUDY, f"{TRIALS}/000000.parquet"} <= {name for name, *_ in marks}


def test_a_study_whose_process_has_ended_is_not_running(ask, study):
    folder, _, _ = study
    assert find_state(folder) == "running"
    (folder / LOCK).unlink()
    assert find_state(folder) == "stopped"
    for text in (f"{os.getpid()}\n", "", "nonsense"):  # whoever it names, nobody holds it
        (folder / LOCK).write_text(text)
        assert find_state(folder) == "stopped"
    answer, text = ask(f"/result/{folder.name}")
    assert answer.status == 422
    assert "needs at least one set, this one evaluated none" in text


def test_a_damaged_batch_is_said(ask, study):
    folder, journal, _ = study
    journal.append(batch_of([1.0], 1.0))
    path = folder / TRIALS / "000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    answer, text = ask(f"/progress/{folder.name}")
    assert answer.status == 422
    assert "a batch of trials is not a readable Parquet file" in json.loads(text)["error"]
    assert ask(f"/live/{folder.name}")[0].status == 422


def test_trials_that_were_deleted_are_read_again(ask, study):
    folder, journal, _ = study
    journal.append(batch_of([1.0, 5.0], 1.0))
    journal.append(batch_of([6.0], 2.0))
    assert json.loads(ask(f"/progress/{folder.name}")[1])["sets"] == 3
    (folder / TRIALS / "000001.parquet").unlink()
    now = json.loads(ask(f"/progress/{folder.name}")[1])
    assert (now["sets"], now["best"]["score"]) == (2, 5.0)


def test_only_studies_are_followed(ask, names):
    answer, text = ask(f"/live/{names[0]}")
    assert answer.status == 422
    assert "only a study can be followed, this is a run" in text


def test_a_study_that_is_deleted_while_it_runs_takes_no_other_page_with_it(ask, study):
    folder, _, _ = study
    assert ask("/")[0].status == 200
    (folder / STUDY).unlink()
    assert ask("/")[0].status == 200
    shutil.rmtree(folder)
    assert ask("/")[0].status == 200
    assert ask(f"/live/{folder.name}")[0].status == 404
