"""A headless Chromium, driven over a pipe by the DevTools protocol; standard library only.

https://chromedevtools.github.io/devtools-protocol/. Messages over ``--remote-debugging-pipe`` are
JSON; a zero byte ends each.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = "chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"
TIMEOUT_S = 60


def program() -> str | None:
    """Return the path of this machine's browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page, with its console messages and the URLs that it requested."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest = read, write, b""
        self._number, self._session = 0, None
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        answer = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while True:
            while b"\0" in self._rest:
                line, self._rest = self._rest.split(b"\0", 1)
                message = json.loads(line)
                self._record(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser does not answer any more"
            self._rest += data

    def _record(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(json.dumps(params))
        elif method == "Network.requestWillBeSent":
            if not (url := params["request"]["url"]).startswith("data:"):
                self.requests.append(url)
        elif method == "Page.loadEventFired":
            self._events.append(method)

    def open(
        self,
        page: Path,
        width: int,
        dark: bool = False,
        script: bool = True,
        height: int = 900,
        calm: bool = False,
    ) -> None:
        """Open a page in a window of this width and height; a narrow one is touched.

        Args:
            page: an HTML file.
            width, height: of the window, in pixels.
            dark, calm: whether the user prefers a dark page, and reduced motion.
            script: whether scripts run.
        """
        narrow = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=narrow)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if calm else ""}
        self.call("Emulation.setEmulatedMedia", features=[scheme, motion])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.messages.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        if not self._events:
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def drag(self, points: list[tuple[float, float]], pause_s: float = 0.0) -> Iterator[None]:
        """Press at the first point and move over all others; yield there; release at the last."""
        for number, (x, y) in enumerate(points):
            place = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            kind = "mouseMoved" if number else "mousePressed"
            self.call("Input.dispatchMouseEvent", type=kind, **place)
            time.sleep(pause_s)
            yield
        self.call("Input.dispatchMouseEvent", **{**place, "type": "mouseReleased", "buttons": 0})

    def swipe(self, points: list[tuple[float, float]], pause_s: float = 0.0) -> Iterator[None]:
        """Touch the first point and move over all others; yield there; lift the finger."""
        for number, (x, y) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
            time.sleep(pause_s)
            yield
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])


@contextlib.contextmanager
def tab() -> Iterator[Tab]:
    """Start a headless browser; yield its page."""
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:

        def connect_pipes() -> None:  # the browser reads from 3 and writes to 4
            read, write = os.dup(to_browser[0]), os.dup(from_browser[1])
            high = os.dup2(read, 103), os.dup2(write, 104)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        browser = subprocess.Popen(
            [
                str(program()),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect_pipes,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Tab(from_browser[0], to_browser[1])
        finally:
            browser.terminate()
            browser.wait(TIMEOUT_S)
            os.close(to_browser[1])
            os.close(from_browser[0])
