"""browser.py: Chromium without a window, driven through its own protocol (DevTools) over a pair of pipes.

Nothing but Python and Chromium is needed. `with Browser(command, folder) as browser: page = browser.open(path, ...)`.
"""
import base64
import json
import os
import pathlib
import select
import subprocess
import time

PATIENCE = 60  # seconds for one answer; a busy machine is slow


class Browser:
    """A browser of its own: its profile is in `folder`, which must be the caller's to remove."""

    def __init__(self, command, folder):
        to_browser, self.to = os.pipe()
        self.back, from_browser = os.pipe()

        def give_pipes():  # the browser reads from 3 and writes to 4; those two may be any of ours
            ends = os.dup(to_browser), os.dup(from_browser)
            os.dup2(os.dup(ends[0]), 3)
            os.dup2(ends[1], 4)

        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu",
                   "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--hide-scrollbars", "--force-color-profile=srgb"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium refuses to be root with one
        self.log = open(os.path.join(folder, "log"), "wb")
        self.process = subprocess.Popen([command, *options, "about:blank"], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, close_fds=False, preexec_fn=give_pipes)
        os.close(to_browser)
        os.close(from_browser)
        self.count, self.rest, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.send("Browser.close")
            self.process.wait(20)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.log.close()

    def receive(self, until):
        """The next message; None when it is later than `until`."""
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0, until - time.monotonic()))[0]:
                return None
            piece = os.read(self.back, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def send(self, method, session=None, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        until = time.monotonic() + PATIENCE
        while True:
            answer = self.receive(until)
            if answer is None:
                raise RuntimeError(f"{method}: no answer in {PATIENCE} s")
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, path, **manner):
        return Page(self, path, **manner)


class Page:
    """A page of a file, as wide, light or dark as said, with or without scripts."""

    def __init__(self, browser, path, width=1280, height=900, dark=False, scripts=True, paper=False):
        self.browser = browser
        self.target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(domain + ".enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", media="print" if paper else "screen",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        browser.events = []
        self.send("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        until = time.monotonic() + PATIENCE
        while not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
            event = browser.receive(until)
            if event is None:
                raise RuntimeError(f"{path}: not loaded in {PATIENCE} s")
            browser.events.append(event)

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def ask(self, expression):
        """The value of an expression in the page, also where its own scripts do not run."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def point(self, x, y):
        """Move the pointer there."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def complaints(self):
        """Errors and warnings on the console, and whatever was asked of anything but the file itself."""
        words = []
        for event in self.browser.events:
            what, params = event.get("method"), event.get("params", {})
            if what == "Runtime.exceptionThrown":
                words.append(params["exceptionDetails"]["text"])
            elif what == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                words.append(str(params["args"]))
            elif what == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                words.append(params["entry"]["text"])
            elif what == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
                words.append("asked for " + params["request"]["url"])
        return words

    def screenshot(self, path):
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self.browser.send("Target.closeTarget", targetId=self.target)
