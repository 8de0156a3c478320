"""The demonstration's server: what it serves, and what it refuses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import one_sentence, png

from digitcnn.demo import server
from digitcnn.demo import session as module
from digitcnn.files import DigitcnnError
from digitcnn.sources import NAMES

pytest_plugins = ["demonstration"]
ROOT = Path(__file__).resolve().parent.parent


def ask(running, path, method="GET", body=None, **headers):
    """Status, content type and body of a request, the body parsed if it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    kind, content = reply.headers["Content-Type"], reply.read()
    connection.close()
    return reply.status, kind, json.loads(content) if "json" in kind else content.decode()


def refused(running, path, **more) -> tuple[int, str]:
    status, _, found = ask(running, path, **more)
    return status, one_sentence(DigitcnnError(found["error"]))


def test_the_page_needs_nothing_from_elsewhere(served):
    kinds = {}
    for path in server.FILES:
        status, kinds[path], text = ask(served, path)
        assert status == 200 and len(text) > 1000
        assert not re.search(r"https?:|//[a-z]+\.|@import", text)
    assert [kind.split(";")[0] for kind in kinds.values()] == [
        "text/html",
        "text/css",
        "text/javascript",
        "text/javascript",
    ]


def test_json_of_samples_maps_and_pictures(served, answers):
    status, kind, found = ask(served, "/api/samples?data=mnist&digit=4")
    assert status == 200 and kind == "application/json" and len(found["samples"]) == server.DRAWN
    sample = found["samples"][0]
    assert sample["label"] == 4 and sample["pixels"].startswith("data:image/png;base64,")
    status, _, found = ask(served, "/api/map?model=svhn&data=mnist")
    assert status == 200 and len(found["points"]) == len(found["labels"]) == 180
    assert len(found["colours"]) == 10 and np.ptp(found["points"], axis=0).tolist() == [1000, 1000]
    body = png(np.full((50, 50), 7, np.uint8))
    for how in ("", "?prepare=auto", "?prepare=none"):
        status, _, found = ask(served, f"/api/picture{how}", "POST", body)
        assert status == 200
        for answer in (found["answers"][model] for model in NAMES):
            assert sum(answer["probabilities"]) == pytest.approx(1)
            assert answer["pixels"].startswith("data:image/png;base64,")
            assert answer["blank"] == (how != "?prepare=none")
    assert "auto, none" in refused(served, "/api/picture?prepare=x", method="POST", body=body)[1]
    status, _, found = ask(served, "/api/examples")
    assert status == 200 and all(src.startswith("data:image/png") for src in found.values())
    status, _, found = ask(served, "/api/state")
    assert found["parts"] == answers.state() and found["limit"] == server.LIMIT


@pytest.mark.parametrize(
    "path",
    [
        "/../digitcnn/cli.py",
        "/%2e%2e/README.md",
        "//etc/passwd",
        "/index.html",
        "/api/",
        "/demo.js/",
    ],
)
def test_only_the_page_is_served(served, path):
    assert refused(served, path)[0] == 404


def test_other_names_and_other_sites_are_refused(served):
    port = served.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
        assert refused(served, "/api/state", Host=host)[0] == 403
    assert refused(served, "/", Host="evil.example")[0] == 403
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert refused(served, "/api/picture", method="POST", body=b"x", Origin=origin)[0] == 403
    assert ask(served, "/api/state", Host=f"localhost:{port}")[0] == 200
    own = f"http://127.0.0.1:{port}"
    assert refused(served, "/api/picture", method="POST", body=b"x", Origin=own)[0] == 400


def test_bad_requests_are_sentences(served):
    for path, said in {
        "/api/samples": "There is no data set ''",
        "/api/samples?data=%1b[31m": "There is no data set",
        "/api/samples?data=mnist&digit=10": "0 to 9",
        "/api/samples?data=mnist&wrong=x": "There is no data set 'x'",
        "/api/map?model=mnist&data=../x": "../x",
    }.items():
        status, sentence = refused(served, path)
        assert status == 400 and said in sentence
    post = {"path": "/api/picture", "method": "POST"}
    assert "not a readable picture" in refused(served, **post, body=b"text")[1]
    assert refused(served, **post, Content_Length=str(server.LIMIT + 1))[0] == 413
    assert refused(served, **post, Content_Length="9" * 5000)[0] == 413
    assert refused(served, **post, Content_Length="-1")[0] == 411
    assert refused(served, "/api/state", method="DELETE")[0] == 501


def test_before_anything_is_loaded_the_page_is_there(served):
    loaded, served.answers = served.answers, None
    try:
        assert ask(served, "/")[0] == 200
        assert ask(served, "/api/state")[2]["parts"] == {}
        status, sentence = refused(served, "/api/samples?data=mnist")
        assert status == 503 and "loading" in sentence
    finally:
        served.answers = loaded


def test_a_bug_is_a_sentence_and_a_traceback_in_the_terminal(served, monkeypatch, capsys):
    monkeypatch.setattr(module.Answers, "draw", lambda *arguments: 1 / 0)
    status, sentence = refused(served, "/api/samples?data=mnist")
    assert status == 500 and "terminal" in sentence
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_only_this_machine_and_a_free_port(monkeypatch):
    first = server.listen()
    second = server.listen()
    try:
        assert first.server_address[0] == "127.0.0.1"
        assert second.server_port > first.server_port >= server.PORT
        monkeypatch.setattr(server, "PORT", first.server_port)
        monkeypatch.setattr(server, "TRIES", 1)
        for port in (first.server_port, -1, 65536, None):
            with pytest.raises(DigitcnnError) as caught:
                server.listen(port)
            one_sentence(caught.value)
    finally:
        first.server_close()
        second.server_close()


def test_ctrl_c_ends_the_command_cleanly(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"DIGITCNN_ROOT": str(tmp_path), "DIGITCNN_PROFILE": "full"}
    kept = {name: value for name, value in os.environ.items() if name != "DIGITCNN_DATA"}
    process = subprocess.Popen(
        [sys.executable, "-m", "digitcnn", "demo", "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=kept | variables,
    )  # fmt: skip
    try:
        assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
        for line in process.stdout:
            if line.startswith("Ready"):
                break
            said = one_sentence(DigitcnnError(line.strip()))
            assert said.startswith(("Missing: ", "What does not need it works: drawing"))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and output.strip() == "The demonstration has ended."
    assert errors == ""


def test_a_burst_is_answered_and_dripping_clients_are_left(served, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 1.0)
    address = ("127.0.0.1", served.server_port)
    ends = [[], [b"GET /api/state HTTP/1.1\r\nX: "], [b"POST /api/picture HTTP/1.1\r\nHost: "
            b"127.0.0.1\r\nContent-Length: 1000\r\n\r\n"]]  # fmt: skip
    before, clients = threading.active_count(), []
    for start in ends:
        clients.append(socket.create_connection(address))
        for content in start:
            clients[-1].sendall(content)
    began, left = time.monotonic(), set()
    while len(left) < len(clients):
        assert time.monotonic() - began < 60
        for client in clients:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.setblocking(False)
                if client not in left and client.recv(100) == b"":
                    left.add(client)
            with contextlib.suppress(OSError):
                client.send(b"a")  # a drip
        time.sleep(0.05)
    for client in clients:
        client.close()
    while threading.active_count() > before:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    monkeypatch.undo()
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda _: ask(served, "/api/state")[0], range(200)))
    assert found == [200] * 200
