"""Fits have the same bits on one CPU and on two, and threads share the limit."""

import os

import pytest

from tests.kit import run_python

FITS = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cpus}])
import hashlib
import warnings
warnings.simplefilter("ignore")
import backtest as bt
market = bt.Market.sample()
for fit in (bt.indicators.garch_volatility, bt.indicators.har_volatility):
    print(fit.__name__, hashlib.sha256(fit(market).tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs that a process can be held to",
)
def test_fits_have_the_same_bits_on_one_cpu_and_on_two() -> None:
    """The sums of BLAS differ in their last bits by its threads, and the optimizer enlarges it."""
    one, two = (run_python(FITS.format(cpus=cpus)) for cpus in (1, 2))
    assert "garch" in one
    assert one == two


LEAVES = """
import threading
import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info
from backtest.core.one_thread import one_thread

def count_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

before = count_threads()
is_inside, may_leave = threading.Event(), threading.Event()

def fit():
    with one_thread():
        is_inside.set()
        may_leave.wait(timeout=60.0)

other = threading.Thread(target=fit)
other.start()
assert is_inside.wait(timeout=60.0)
with one_thread():
    may_leave.set()
    other.join()
    assert set(count_threads()) == {1}, count_threads()
assert count_threads() == before
print("restored")
"""


def test_the_last_to_leave_restores_the_threads_of_blas() -> None:
    """In a process of its own: other libraries set and restore the same limit in this one."""
    assert "restored" in run_python(LEAVES)
