"""A headless Chromium by its DevTools protocol over a pipe: no driver, no port, no package.

with Chromium(tmp_path) as page:
    page.open(path)
    page.run("document.title")
"""

import contextlib
import json
import os
import shutil
import subprocess

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_MODIFIERS = {"Enter": "\r"}


def executable():
    """Path of a Chromium; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(_NAMES)} (Debian: apt install chromium)")
    return found


class Chromium:
    """One tab. `requests` has the address of all that it asked for, `errors` what it complained of:
    exceptions, errors and warnings of the console, refused requests and scripts.
    """

    def __init__(self, profile):
        self.requests, self.errors = [], []
        self._last, self._loaded = 0, False
        command = [
            executable(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars",
            "--disable-extensions", "--disable-component-update", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        inward, self._write = os.pipe()
        self._read, outward = os.pipe()

        def as_3_and_4():  # where Chromium looks for its pipes; first out of their way
            high = os.dup(inward), os.dup(outward)
            os.dup2(os.dup(high[0]), 3)
            os.dup2(high[1], 4)
            for file in (3, 4):
                os.set_inheritable(file, True)  # also where one was there already

        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4),
            preexec_fn=as_3_and_4, start_new_session=True,
        )  # fmt: skip
        os.close(inward)
        os.close(outward)
        self._buffer = b""
        self._session = None
        target = self.call("Target.getTargets")["targetInfos"][0]["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._send("Browser.close", session=False)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **parameters):
        """The result of a command."""
        number = self._send(method, **parameters)
        while True:
            said = self._next()
            if said.get("id") == number:
                assert "error" not in said, (method, said["error"])
                return said["result"]

    def open(self, path):
        """Loads a file until its load event."""
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._next()

    def run(self, script):
        """The value of an expression of JavaScript, as JSON; of a promise what it comes to."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def mouse(self, kind, x, y):
        """`mouseMoved`, `mousePressed` or `mouseReleased` at a place of the window."""
        button = "none" if kind == "mouseMoved" else "left"
        count = int(kind != "mouseMoved")
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=count)

    def click(self, x, y):
        """Moves there, presses and releases."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def key(self, name):
        """Presses and releases a key of that name: Tab, Enter, ArrowRight."""
        text = {"text": _MODIFIERS[name]} if name in _MODIFIERS else {}
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(name, 0)
        look = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **look, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **look)

    def emulate(self, width=1200, height=900, dark=False, media=""):
        """A window of that size, in a light or dark theme, on `screen` or in `print`."""
        narrow = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=narrow)  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=narrow)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def _send(self, method, session=True, **parameters):
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session and self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._last

    def _next(self):
        while b"\0" not in self._buffer:
            read = os.read(self._read, 1 << 16)
            assert read, "Chromium ended"
            self._buffer += read
        text, self._buffer = self._buffer.split(b"\0", 1)
        said = json.loads(text)
        self._noted(said.get("method"), said.get("params", {}))
        return said

    def _noted(self, event, about):
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(about["exceptionDetails"])
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.errors.append(about["args"])
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.errors.append(about["entry"])
