"""A server of a store on a free port of loopback, and what it answers."""

import http.client
import json
import re
import shutil
import socket
import threading

import numpy as np

import backtest as bt
from backtest.report.serve.server import Server
from backtest.strategies import Constant
from backtest.tune.journal import OUTCOME, TRIALS, Batch
from tests.tuning import seek

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
HOSTILE = "<script>alert(1)<|script>\u202e'\" {{ 7 * 7 }} %2e%2e%2f-00112233445566aa"
SECRET = "the secret outside"


def live(leverage, days=40, venue=VENUE):
    market = bt.Market.sample(bars=24 * days)
    policy = Constant(leverage=leverage)
    return bt.run(market, policy, venue=venue, account=bt.Account(), compile=False)


class serving:  # noqa: N801 - a context manager
    """A server of a store while it is asked."""

    def __init__(self, root, host="127.0.0.1"):
        self.server = Server(root, host, 0)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self.ask

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def ask(self, path, method="GET", **headers):
        port = self.server.server_port
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
                if value is not None:
                    line.putheader(name, value)
            line.endheaders()
            answer = line.getresponse()
            return answer, answer.read().decode()
        finally:
            line.close()

    def send(self, content):
        """Return the first line of the answer to bytes that may be no HTTP."""
        with socket.create_connection(self.server.server_address[:2], timeout=10) as line:
            line.sendall(content)
            line.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: line.recv(65_536), b"")).partition(b"\r\n")[0].decode()


def rows_of(text):
    """Return the rows of the list by the names of the folders that stand in them."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data[1])["rows"]


def batch_of(scores, seconds, stage="search", errors=None):
    n = len(scores)
    numbers = np.array(scores, dtype=float)
    sets = {"x": np.arange(n, dtype=float) + seconds}
    metrics = {"sharpe": numbers}
    lines = errors or [""] * n
    return Batch(stage, seconds, sets, metrics, numbers[:, None], np.zeros(n), lines)


def begin_again(store, tmp_path):
    """Return a finished study that looks as if it had just begun, and a copy of all of it."""
    finished = seek(store=store, trials=40)
    aside = shutil.copytree(finished.folder, tmp_path / "aside")
    shutil.rmtree(finished.folder / TRIALS)
    (finished.folder / OUTCOME).unlink()
    return finished, aside
