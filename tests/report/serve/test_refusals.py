"""What the server refuses: addresses, hosts, methods, and clients that take too long."""

import socket
import threading
import time

import pytest

from backtest.report.serve import server, site
from backtest.report.serve.server import Server
from tests.report.serve.served import SECRET, serving


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/result/../../secret.txt", "/result/..%2f..%2fsecret.txt",
        "/result/%2e%2e/%2e%2e/secret.txt", "/result/..%252f..%252fsecret.txt",
        "/result/%2fetc%2fpasswd", "/result//etc/passwd", "/result/..", "/result/.", "/result/",
        "/result", "/result/%00", "/result/{name}/manifest.json", "/result/{name}%2fmanifest.json",
        "/result/{name}/..", "/result/{name}%00", "/live/..%2f..%2fsecret.txt",
        "/progress/..%5c..%5csecret.txt", "/results", "/static/x.js", "/result/%ff%fe%80",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_list(ask, names, path):
    answer, text = ask(path.replace("{name}", names[0]))
    assert answer.status == 404
    assert SECRET not in text
    assert "root:" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_reading_is_answered(ask, method):
    answer, text = ask("/", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Only GET and HEAD" in text


def test_a_head_is_that_of_the_page_without_it(ask):
    answer, text = ask("/", "HEAD")
    assert (answer.status, text) == (200, "")
    assert int(answer.headers["Content-Length"]) > 1000
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200),
        ("127.0.0.2", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("evil@localhost", 421), ("192.168.0.1", 421),
        ("localhost:x", 421), ("localhost/x", 421), ("", 421), (None, 421), ("[::1", 421),
    ],
)  # fmt: skip
def test_only_the_names_of_loopback_are_answered(ask, host, status):
    """A name elsewhere may lead here (DNS rebinding); its pages must not read ours."""
    answer, text = ask("/", Host=host)
    assert answer.status == status
    if status == 421:
        assert "Constant" not in text


def test_bound_elsewhere_it_answers_numbers_and_its_own_name_only(saved, monkeypatch):
    server = Server(saved[0], "0.0.0.0", 0)
    server.server_close()
    assert server.allows("192.168.0.7:8642")
    assert server.allows("localhost")
    assert server.allows(socket.gethostname())
    assert not server.allows("evil.example")


@pytest.mark.parametrize(("content", "status"), [
    (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", 413),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
    (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET http://[x/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 505),
    (b"\x00\xff\xfe nonsense\r\n\r\n", 400),
])  # fmt: skip
def test_what_is_no_request_of_ours_is_refused(store, content, status):
    asked = serving(store)
    with asked:
        line = asked.send(content)
        assert line.split()[1] == str(status), line
        assert asked.ask("/")[0].status == 200


def test_a_mistake_of_ours_is_a_page_without_its_inner_things(ask, names, monkeypatch, capsys):
    monkeypatch.setattr(site, "load_saved", lambda folder: 1 / 0)
    answer, text = ask(f"/result/{names[0]}")
    assert answer.status == 500
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text
    assert "line " not in text
    assert capsys.readouterr().err == "error: ZeroDivisionError: division by zero\n"


def test_slow_clients_hold_only_so_many_threads(store, monkeypatch):
    """Before: a thread for every connection that says nothing, without end."""
    monkeypatch.setattr(server, "MOST_CLIENTS", 4)
    before = threading.active_count()
    with serving(store) as ask:
        slow = [socket.create_connection(ask.__self__.server.server_address) for _ in range(12)]
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        told = [each.makefile("rb").readline() for each in slow[4:]]
        assert {line.split()[1] for line in told} == {b"503"}
        assert threading.active_count() <= before + 1 + 4
        answer, text = ask("/")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "Busy" in text
        ask.__self__.server.end_late(time.monotonic() + server.PATIENCE + 1)
        assert [each.makefile("rb").read() for each in slow[:4]] == [b""] * 4
        assert wait_for_an_answer(ask) == 200
        for each in slow:
            each.close()


def wait_for_an_answer(ask) -> int:
    """Return the status of the list once a thread is free."""
    for _ in range(6_000):
        status = ask("/")[0].status
        if status != 503:
            return status
        time.sleep(0.01)
    return 503


def test_a_client_that_has_sent_its_request_is_not_late(store):
    with serving(store) as ask:
        line = socket.create_connection(ask.__self__.server.server_address)
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert line.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        line.close()
