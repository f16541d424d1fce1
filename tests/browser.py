"""A headless Chromium that a test drives over the DevTools protocol: real keys and clicks, its console, pictures."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium")
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36}
PATIENCE = 60.0  # seconds


class Browser:
    """One page of a browser; `complaints` are what its console says, and errors of its scripts."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        (to_read, self.to), (self.of, to_write) = os.pipe(), os.pipe()
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        shell = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'  # the browser reads from 3 and writes to 4
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self.numbers, self.read, self.session = itertools.count(1), b"", ""
        self.complaints: list[str] = []
        (page,) = (one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        given = {"targetId": page["targetId"], "flatten": True}
        self.session = self.call("Target.attachToTarget", **given)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.of)

    def call(self, method: str, **given: Any) -> Any:
        """The result of a method of the protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": given}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self) -> Any:
        while b"\0" not in self.read:
            part = os.read(self.of, 1 << 20)
            assert part, "the browser has ended"
            self.read += part
        message, _, self.read = self.read.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(given["args"]))
            case "Log.entryAdded":
                self.complaints.append(str(given["entry"]))

    def look_like(self, width: int, dark: bool = False) -> None:
        """The width of the window, and whether the system is dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true, in a page that may be just replacing the one before."""
        end = time.monotonic() + PATIENCE
        while not self._is_true(code):
            assert time.monotonic() < end, code
            time.sleep(0.05)

    def _is_true(self, code: str) -> bool:
        try:
            return bool(self.run(code))
        except AssertionError as error:
            if "navigated" in str(error):
                return False
            raise

    def click(self, selector: str) -> None:
        """Click the middle of an element, once it lies still: pictures that arrive move what is below them."""
        find = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({ block: 'center' }); const r = e.getBoundingClientRect(); "
            "return { x: r.x + r.width / 2, y: r.y + r.height / 2 }; })()"
        )
        self.until("[...document.images].every((img) => img.complete || img.loading === 'lazy')")
        place, before = self.run(find), None
        while place != before:
            time.sleep(0.05)
            place, before = self.run(find), place
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        given = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text: str) -> None:
        """Replace what is in the focused field."""
        self.run("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))
