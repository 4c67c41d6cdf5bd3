"""Chromium as a test instrument: one headless browser driven over a pipe with the DevTools protocol, no driver package needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]

# Chromium reads commands from descriptor 3 and writes answers to 4; this small program puts the pipes there and becomes Chromium.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 100, inheritable=False), os.dup2(int(sys.argv[2]), 101, inheritable=False)
os.dup2(100, 3), os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 120.0
_KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


class Page:
    """One open page with everything it reported: console messages, uncaught errors, requests."""

    def __init__(self, to: BinaryIO, back: BinaryIO) -> None:
        self._to, self._back, self._count, self._session = to, back, 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self._send(f"{domain}.enable")

    def open(self, file: Path, width: int, height: int = 900, *, dark: bool = False, phone: bool = False) -> None:
        """Load a file at a width in CSS pixels and wait until it is loaded."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self._send("Page.navigate", url=file.resolve().as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        found = self._send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        place = f"document.querySelector({json.dumps(selector)})"
        box = self.run(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}}); {place}.getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        self._send("Input.dispatchMouseEvent", type="mousePressed", **at)
        self._send("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def press(self, key: str) -> None:
        """Press and release a key by its name: ``Enter``, ``Escape``, ``ArrowLeft`` or ``ArrowRight``."""
        text = {"text": "\r"} if key == "Enter" else {}
        self._send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=_KEYS[key], **text)
        self._send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def print(self, file: Path) -> None:
        """Save the page as a PDF."""
        found = self._send("Page.printToPDF", printBackground=True, preferCSSPageSize=False)
        file.write_bytes(base64.b64decode(found["data"]))

    def screenshot(self, file: Path, *, full: bool = True) -> None:
        """Save the whole page, or what is in the window, as PNG."""
        found = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=full, **({"clip": self._whole()} if full else {}))
        file.write_bytes(base64.b64decode(found["data"]))

    def _whole(self) -> dict[str, float]:
        size = self._send("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def _send(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": arguments} | ({"sessionId": self._session} if self._session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._notice(answer.get("method", ""), answer.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._back.read(1)) != b"\0":
            if not byte:
                raise AssertionError("Chromium ended or did not answer in time")
            data += byte
        return dict(json.loads(data))

    def _notice(self, method: str, found: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(str(found["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.errors.append(str(found["args"]))
            case "Log.entryAdded":
                self.errors.append(found["entry"]["text"])
            case "Audits.issueAdded" if found["issue"]["code"] == "ContentSecurityPolicyIssue":
                self.errors.append(str(found["issue"]["details"]))
            case "Network.requestWillBeSent":
                self.requests.append(found["request"]["url"])


@contextmanager
def browser() -> Iterator[Page]:
    """A running browser with one page; it ends with the block, and by itself when it does not answer for two minutes."""
    assert EXECUTABLE
    (read, to), (back, write) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [sys.executable, "-c", _LAUNCH, str(read), str(write), EXECUTABLE, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.start()
        try:
            with open(to, "wb") as sending, open(back, "rb") as receiving:
                yield Page(sending, receiving)
        finally:
            watch.cancel()
            process.kill()
            process.wait()
