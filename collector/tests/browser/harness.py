"""A collector of one's own, and a tab that looks at it."""

import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from traces import send

COMMAND, CHROMIUM, SCREENSHOTS = sys.argv[1], sys.argv[2], Path(sys.argv[3])
FACTS = []


def fact(function):
    FACTS.append(function)
    return function


def ago(seconds):
    return datetime.now(timezone.utc) - timedelta(seconds=seconds)


class Collector:
    """The command serving a new file, on a free port."""

    def __init__(self, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        db = Path(self.folder.name) / "spans.sqlite"
        command = [COMMAND, "serve", "--port", "0", "--db", db, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = next(line for line in self.process.stdout if "SGP_CLIENT_BASE_URL=" in line)
        self.url = line.split("=")[1].strip()

    def send(self, spans, key=None):
        send(self.url, spans, key)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class Tab:
    """A tab that must stay free of errors, and of requests to anywhere else."""

    def __init__(self, browser, collector, errors_expected=(), **options):
        self.collector = collector
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True, **options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=collector.url)
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self.said)
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}") or dialog.dismiss())
        self.page.on("request", self.asked)
        self.errors_expected = errors_expected

    def said(self, message):
        if message.type == "error" and not any(part in message.text for part in self.errors_expected):
            self.wrong.append(f"console: {message.text}")

    def asked(self, request):
        if not request.url.startswith((self.collector.url, "blob:", "data:")):
            self.wrong.append(f"request: {request.url}")

    def open(self, path):
        self.page.goto(self.collector.url + path)
        return self.page

    def shot(self, name):
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def close(self):
        self.context.close()
        assert not self.wrong, self.wrong


@contextmanager
def tab(browser, *arguments, collector=None, **options):
    own = collector is None
    collector = collector or Collector(*arguments)
    opened = Tab(browser, collector, **options)
    try:
        yield opened
        opened.close()
    finally:
        if own:
            collector.stop()


def row(page, name):
    return page.locator(".wf-row", has=page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$")))


def rows(page):
    return page.locator(".wf-row")


def section(detail, title):
    """A part of the detail pane, by its heading."""
    return detail.locator("details.section > summary", has_text=title).locator("..")
