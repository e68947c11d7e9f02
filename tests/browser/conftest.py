"""A real Chromium on ComfyUI's own page, served by the real `darkroom serve`."""

import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "protocols"))

# Bounds of what hangs, not of what is slow: a page of 40 MB of scripts on a busy machine takes its time.
LIMIT_MS = 120_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser():
    """The program $CHROMIUM names, or one that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def frontend():
    """The directory of ComfyUI's page, as the wheel installed it."""
    import comfyui_frontend_package

    return pathlib.Path(comfyui_frontend_package.__file__).parent


@pytest.fixture(scope="session")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed, and $CHROMIUM names none")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Nothing but the server under test is asked: extensions, updates and translations of the browser are off.
        arguments = [
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=LIMIT_MS)
        yield browser
        browser.close()


class Tab:
    """A page, and what it complained about."""

    def __init__(self, context):
        self.page = context.new_page()
        self.page.set_default_timeout(LIMIT_MS)
        self.complaints = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _said(self, message):
        # What the page asks of other servers fails, as it does without the Internet: that is not Darkroom's.
        address = (message.location or {}).get("url", "")
        if message.type == "error" and (address.startswith("http://127.0.0.1") or not address.startswith("http")):
            self.complaints.append(f"{message.text} ({address})")

    def graph_is_drawn(self):
        """Waits until ComfyUI's own code has made its graph and knows its nodes."""
        self.page.wait_for_selector("canvas#graph-canvas")
        self.page.wait_for_function("() => window.app?.graph && window.LiteGraph?.registered_node_types?.SaveImage")


@pytest.fixture
def tab(browser, request):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = Tab(context)
    yield tab
    # For whoever wants to see what the page looked like at the end; the server may be gone by then.
    shots = os.environ.get("DARKROOM_SCREENSHOTS")
    if shots:
        pathlib.Path(shots).mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=pathlib.Path(shots) / f"{request.node.name}.png")
    context.close()
