"""Pages in a real Chromium without a window, driven through its debugging pipe.

Sizes of a phone can be set only this way: windows are at least 500 pixels wide.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--remote-debugging-pipe", "--no-first-run", "--disable-background-networking"),
)
# Chromium wants the pipe as file descriptors 3 and 4. A new Python moves them there, as code in
# this process between fork and exec would not be safe beside the threads of JAX.
_START = "import os, sys; a, b, *c = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4)"
_START += "; os.execvp(c[0], c)"


class Browser:
    """One page at a time, and everything it asked for and complained about.

    Args:
      profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        binary = next(filter(None, map(shutil.which, _NAMES)), None)
        if binary is None:
            pytest.skip("there is no Chromium")
        child_in, self._to = _pipe()
        self._from, child_out = _pipe()
        start = (sys.executable, "-S", "-E", "-c", _START, str(child_in), str(child_out))
        with (profile / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*start, binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                pass_fds=(child_in, child_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(child_in)
        os.close(child_out)
        self._read = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def open(self, page: Path, width: int, height: int = 844, dark: bool = False) -> None:
        """Load a page, in a window of this size, and wait until all of it is there."""
        mobile = width < 700
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Wait until a page has loaded since `events` was last cleared."""
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, expression: str):
        """The value of a JavaScript expression, awaited."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What the window shows, or all of the page, as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """The addresses asked for since `open`, data within the page apart."""
        asked = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def complaints(self) -> list[dict]:
        """What was written to the console, and exceptions, since `open`."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def send(self, method: str, **params):
        """Call a method of the DevTools protocol, and give its result."""
        self._number += 1
        number = self._number
        message: dict = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self) -> None:
        """End the browser."""
        os.close(self._to)  # at which it goes
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def _receive(self, seconds: float = 60.0) -> dict:
        deadline = time.monotonic() + seconds
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._from, 1 << 20)
            assert read, "the browser is gone"
            self._read += read
        message, self._read = self._read.split(b"\0", 1)
        received: dict = json.loads(message)
        if "method" in received:
            self.events.append(received)
        return received


def _pipe() -> tuple[int, int]:
    """The ends for reading and writing, with numbers that leave 3 and 4 free."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
