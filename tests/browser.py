"""Browser: a page in headless Chromium, driven over the DevTools protocol as a person drives it.

It goes through pipes: there is no port to find, and Chromium and its profile go even if the process
that holds them is killed. Clicks and keys are input events, so focus and covered elements count.
`Browser.wait_for` waits for the thing itself; a limit makes an error of what never comes.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "google-chrome"])), None)
LIMIT = 120.0  # seconds that anything may take
START = """"$0" --headless --remote-debugging-pipe --user-data-dir="$1" --no-sandbox \
  --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update \
  --disable-breakpad --disable-sync --disable-extensions --no-first-run --mute-audio \
  --hide-scrollbars --force-color-profile=srgb about:blank 3<&0 4>&1 </dev/null >/dev/null
rm -rf "$1" """
CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35}
CODES |= {"Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Browser:
    """A fresh Chromium with one empty page; a context manager, after which nothing is left of it.

    Attributes:
        requests: the address of everything that was asked for since `open`, as of the last call.
        errors: the text of each uncaught exception and each error in the console, likewise.
    """

    def __init__(self, width: int = 1280, height: int = 900):
        self._profile = tempfile.mkdtemp(prefix="digitcnn-browser-")
        self._process = subprocess.Popen(
            ["sh", "-c", START, str(CHROMIUM), self._profile], bufsize=0, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.requests, self.errors, self._loaded = [], [], set()
        self._session, self._replies, self._count, self._unread = {}, {}, 0, b""
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            page = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = {"sessionId": page["sessionId"]}
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.call("Page.setLifecycleEventsEnabled", enabled=True)
            self.view(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End Chromium with all its processes, and remove its profile."""
        with contextlib.suppress(OSError, AssertionError, subprocess.TimeoutExpired):
            self._session = {}
            self.call("Browser.close")
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()  # closes the pipes
        until = time.monotonic() + LIMIT
        while Path(self._profile).exists() and time.monotonic() < until:  # some may still be dying
            shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict:
        """The result of a command of the protocol. Raises AssertionError with what it says."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters} | self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        until = time.monotonic() + LIMIT
        while self._count not in self._replies:
            self._read(until - time.monotonic(), method)
        reply = self._replies.pop(self._count)
        assert "error" not in reply, f"{method}: {reply['error']['message']}"
        return reply["result"]

    def _read(self, patience: float, what: str) -> None:
        """Take in what Chromium says next, within `patience` seconds."""
        there, _, _ = select.select([self._process.stdout], [], [], max(patience, 0))
        assert there, f"Chromium took longer than {LIMIT:g} s for this: {what}"
        said = self._process.stdout.read(1 << 20)
        assert said, "Chromium has ended."
        *messages, self._unread = (self._unread + said).split(b"\0")
        for message in map(json.loads, messages):
            self._replies[message.get("id")] = message
            self._note(message.get("method"), message.get("params"))

    def _note(self, event: str | None, about: dict | None) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Page.lifecycleEvent" and about["name"] == "load":
            self._loaded.add(about["loaderId"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(_text(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.errors.append(" ".join(str(each.get("value", each)) for each in about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded with all that it names."""
        self.requests, self.errors = [], []
        found = self.call("Page.navigate", url=url)
        assert not found.get("errorText"), f"{url}: {found.get('errorText')}"
        until = time.monotonic() + LIMIT
        while "loaderId" in found and found["loaderId"] not in self._loaded:
            self._read(until - time.monotonic(), f"loading {url}")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, of its promise if it is one, as JSON has it."""
        options = dict.fromkeys(["awaitPromise", "returnByValue", "userGesture"], True)
        found = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in found, f"{script}: {_text(found['exceptionDetails'])}"
        return found["result"].get("value")

    def wait_for(self, condition: str, limit: float = LIMIT) -> Any:
        """The value of a JavaScript expression as soon as it is truthy."""
        until = time.monotonic() + limit
        while not (value := self.evaluate(condition)):
            shown = self.evaluate("document.body.innerText") if time.monotonic() > until else ""
            assert time.monotonic() < until, f"never so: {condition}\n{self.errors}\n{shown}"
            time.sleep(0.01)
        return value

    def view(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """The window's size in CSS pixels; a phone has touch and no mouse; dark or light."""
        self._touch = phone
        size = {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": ("light", "dark")[dark]}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key, such as ``a`` or ``Tab``; modifiers: 1 Alt, 2 Control, 4 Meta, 8 Shift."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 and not modifiers & 7 else "")
        code = CODES.get(key) or ord(key.upper())
        about = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str, *path: tuple[float, float]) -> None:
        """Click or tap an element as soon as nothing covers or moves it, or drag along a path.

        The path's points are shares of the element's width and height.
        """
        path = path or ((0.5, 0.5),)
        (x, y), name = path[0], json.dumps(selector)
        look = f"""(() => {{ const it = document.querySelector({name});
          if (!it) return "there is no " + {name};
          it.scrollIntoView({{ block: "nearest", inline: "nearest", behavior: "instant" }});
          const f = it.getBoundingClientRect();
          const top = document.elementFromPoint(f.left + {x} * f.width, f.top + {y} * f.height);
          return top && (it.contains(top) || top.contains(it) && top.matches("label")) ?
            [f.left, f.top, f.width, f.height] : {name} + " is hidden or covered";
        }})()"""
        # What has just come into the page may still move, as its pictures do while they load.
        until, before, frame = time.monotonic() + LIMIT, None, self.evaluate(look)
        while frame != before or isinstance(frame, str):
            assert time.monotonic() < until, frame
            time.sleep(0.02)
            before, frame = frame, self.evaluate(look)
        left, top, width, height = frame
        points = [(left + x * width, top + y * height) for x, y in path]
        self._point("mousePressed", "touchStart", *points[0])
        for point in points[1:]:
            self._point("mouseMoved", "touchMove", *point)
        if self._touch and points[1:]:
            time.sleep(0.2)  # a finger lifted while it moves flings, and the next tap is lost
        self._point("mouseReleased", "touchEnd", *points[-1])

    def _point(self, mouse: str, touch: str, x: float, y: float) -> None:
        if self._touch:
            points = [] if touch == "touchEnd" else [{"x": x, "y": y}]
            self.call("Input.dispatchTouchEvent", type=touch, touchPoints=points)
        else:
            self.call("Input.dispatchMouseEvent", type=mouse, x=x, y=y, button="left", clickCount=1)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input of files."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=node["result"]["objectId"])

    def accessibility(self) -> list[str]:
        """What axe finds against WCAG 2.2 AA, a rule with its elements each; skips without axe."""
        package = importlib.util.find_spec("axe_playwright_python")
        if not package:
            pytest.skip("axe is not here: `make test-all` installs it")
        self.evaluate(Path(package.origin).with_name("axe.min.js").read_text("utf-8"))
        return self.evaluate("""axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a",
          "wcag21aa", "wcag22aa"] }).then(found => found.violations.map(rule => rule.id + ": " +
          rule.nodes.slice(0, 5).map(node => node.target.join(" ")).join(", ")))""")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(shot))


def _text(details: dict) -> str:
    return details.get("exception", {}).get("description") or details["text"]
