"""What the page must do, each as a fact. Started by run.py: COMMAND CHROMIUM SCREENSHOTS [FACT ...]"""

import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from traces import Trace, research, send, small

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


@fact
def new_traces_stream_into_the_list_without_a_reload(browser):
    with tab(browser) as t:
        page = t.open("/")
        expect(page.get_by_text("No traces yet")).to_be_visible()
        page.evaluate("window.stillHere = true")
        t.collector.send(small("first", ago(10), 1))
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        t.collector.send(small("second", ago(5), 2))
        expect(page.locator(".traces tbody tr")).to_have_count(2)
        assert page.evaluate("window.stillHere") is True
        assert page.locator(".traces tbody tr").first.get_attribute("data-id") == "second"


@fact
def filters_are_kept_in_the_address(browser):
    with tab(browser) as t:
        for seed, (name, tenant, status) in enumerate([("Pay", "acme", "ERROR"), ("Pay", "globex", "SUCCESS"), ("Ship", "acme", "SUCCESS")]):
            trace = Trace(f"t{seed}", ago(60 * seed + 5))
            trace.span(name, None, 0, 10 * (seed + 1), status=status, metadata={"tenant": tenant}, input={"city": "Zürich" if seed == 2 else "Bern"})
            t.collector.send(trace.spans)
        page = t.open("/")
        expect(page.locator(".traces tbody tr")).to_have_count(3)
        page.keyboard.press("/")
        page.keyboard.type("tenant:acme")
        expect(page.locator(".traces tbody tr")).to_have_count(2)
        assert "q=tenant%3Aacme" in page.url
        page.get_by_role("radio", name="error").click()
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        page.reload()
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        expect(page.get_by_label("Search traces")).to_have_value("tenant:acme")
        expect(page.get_by_role("radio", name="error")).to_have_attribute("aria-checked", "true")
        page.go_back()
        expect(page.locator(".traces tbody tr")).to_have_count(2)
        for query, found in [("zürich", ["Ship"]), ("name:pay -tenant:acme", ["Pay"]), ("duration:>15ms", ["Pay", "Ship"]), ("no such thing", [])]:
            page.get_by_label("Search traces").fill(query)
            expect(page.locator(".traces tbody td.name a")).to_have_text(found)
        page.get_by_label("Search traces").fill("status:green")
        expect(page.get_by_text("status must be ok, error")).to_be_visible()
        t.wrong.clear()  # The browser logs the refusal.
        page.get_by_label("Search traces").fill("")
        page.get_by_label("Time range").select_option("1h")
        expect(page.locator(".traces tbody tr")).to_have_count(3)
        assert page.url.endswith("?range=1h")


@fact
def figures_and_statistics_are_those_of_the_spans(browser):
    with tab(browser) as t:
        trace = Trace("t", ago(60))
        root = trace.span("Agent", None, 0, 2000, metadata={"tags": ["beta"]})
        for n in range(3):
            usage = {"usage": {"input_tokens": 1000, "output_tokens": 500}, "cost_usd": 0.5}
            trace.span("chat", root["id"], n, n + 1, type="COMPLETION", metadata=usage)
        trace.fail(trace.span("tool", root["id"], 5, 6), "boom")
        t.collector.send(trace.spans)
        page = t.open("/")
        cells = page.locator(".traces tbody td")
        expect(cells.nth(3)).to_contain_text("2.00s")
        expect(cells.nth(4)).to_have_text("5")
        expect(cells.nth(5)).to_have_text("1")
        expect(cells.nth(6)).to_have_text("4500")
        expect(cells.nth(7)).to_have_text("$1.50")
        expect(cells.nth(8)).to_have_text("beta")
        expect(page.locator(".names tbody td")).to_have_text(["Agent", "1", "0%", "2.00s", "2.00s"])


@fact
def a_trace_is_a_tree_that_folds_with_the_keyboard(browser):
    with tab(browser) as t:
        t.collector.send(research("r", ago(60)))
        page = t.open("/")
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/traces/r")
        expect(row(page, "ResearchPipeline").first).to_be_visible()
        # The activity and its only attempt are one line, those of a retry are not.
        expect(row(page, "plan")).to_have_count(1)
        expect(row(page, "plan").first).to_contain_text("queued 180ms")
        retried = page.locator(".wf-row", has_text="×2").first
        expect(retried.locator(".bar")).to_have_count(2)
        expect(retried.locator(".bar.failed")).to_have_count(1)
        page.locator(".wf-body").focus()
        page.keyboard.press("Home")
        selected = page.locator(".wf-row[aria-selected=true]")
        expect(selected).to_contain_text("ResearchPipeline")
        expect(selected).to_contain_text("gen 1")
        page.keyboard.press("ArrowLeft")
        expect(selected).to_have_attribute("aria-expanded", "false")
        # The run that goes on is beside the first one.
        page.keyboard.press("ArrowDown")
        expect(selected).to_contain_text("gen 2")
        expect(selected).to_have_attribute("aria-level", "1")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        expect(selected).to_contain_text("plan")
        page.keyboard.press("Enter")
        expect(page.locator(".detail h2")).to_contain_text("plan")
        page.keyboard.press("Escape")
        expect(page.locator(".detail")).to_be_hidden()
        page.keyboard.press("Escape")
        page.wait_for_url(t.collector.url + "/")


@fact
def what_cannot_be_known_is_said(browser):
    with tab(browser) as t:
        t.collector.send(research("r", ago(60)))
        page = t.open("/")
        expect(page.get_by_text("incomplete")).to_have_attribute("title", re.compile("1 spans whose parents.*1 attempts lost.*12 spans dropped", re.S))
        page = t.open("/traces/r")
        expect(page.locator(".notices")).to_contain_text("1 span waits for its parent")
        expect(page.locator(".notices")).to_contain_text("12 spans dropped")
        expect(page.locator(".notices")).to_contain_text("values that were cut")
        page.locator(".notice", has_text="lost with their worker").click()
        expect(page.locator(".wf-row.selected")).to_contain_text("#1 lost")
        expect(page.locator(".detail")).to_contain_text("Attempt 1 left no span: it was lost with its worker")
        page.locator(".notice", has_text="waits for its parent").click()
        expect(page.locator(".wf-row.selected")).to_contain_text("parent pending")
        expect(page.locator(".detail")).to_contain_text("Its parent has not arrived")
        page.locator(".notice", has_text="cut").click()
        expect(page.locator(".detail")).to_contain_text("input.text")


@fact
def open_spans_grow_and_end_when_their_end_arrives(browser):
    with tab(browser) as t:
        trace = Trace("t", ago(3))
        root = trace.span("Job", None, 0, None)
        t.collector.send(trace.spans)
        page = t.open("/traces/t")
        took = row(page, "Job").locator(".took")
        before = float(took.text_content().rstrip("s"))
        expect(page.locator(".pill")).to_have_text("open")
        deadline = time.monotonic() + 10
        while float(took.text_content().rstrip("s")) <= before:
            assert time.monotonic() < deadline
        # A child whose parent is to come, then the parent.
        late = trace.span("late", "00000000-0000-4000-8000-000000000001", 100, 200)
        t.collector.send([late])
        expect(row(page, "late")).to_contain_text("parent pending")
        t.collector.send([trace.span("parent", root["id"], 90, 210, id=late["parent_id"])])
        expect(row(page, "late")).to_have_attribute("aria-level", "3")
        root["end_timestamp"] = (trace.base + timedelta(seconds=1)).isoformat()
        t.collector.send([root])
        expect(page.locator(".pill")).to_have_text("ok")
        expect(took).to_have_text("1.00s")


@fact
def a_span_has_its_details_and_a_link(browser):
    with tab(browser) as t:
        trace = Trace("t/1 ?", ago(60))
        root = trace.run("Order", None, 0, 100, "order/7")
        span = trace.span("rank", root["id"], 10, 40, id="id/&?#", input={"big": 12345678901234567890, "nested": {"list": [1, {"deep": "x"}]}}, metadata={"k": "v"})
        trace.fail(span, "boom\nat rank.rs:7")
        t.collector.send(trace.spans)
        page = t.open("/traces/t%2F1%20%3F")
        row(page, "rank").click()
        detail = page.locator(".detail")
        expect(detail).to_contain_text("12345678901234567890")
        expect(detail).to_contain_text("at rank.rs:7")
        expect(detail).to_contain_text("deep")
        detail.get_by_role("button", name="Link").click()
        link = page.evaluate("navigator.clipboard.readText()")
        detail.get_by_role("button", name="JSON", exact=True).click()
        assert json.loads(page.evaluate("navigator.clipboard.readText()"))["id"] == "id/&?#"
        detail.get_by_role("button", name="Copy for LLM").click()
        expect(page.locator(".toast")).to_contain_text("subtree copied")
        assert json.loads(page.evaluate("navigator.clipboard.readText()"))["error"] == "boom\nat rank.rs:7"
        page.goto("about:blank")
        page.goto(link)
        expect(detail.locator("h2")).to_contain_text("rank")
        link = detail.get_by_role("link", name="Temporal")
        expect(link).to_have_attribute("href", "http://localhost:8233/namespaces/default/workflows/order%2F7/run-0/history")
        page.evaluate("localStorage.setItem('durable-spans.temporal', 'javascript:alert(1)')")
        page.reload()
        expect(detail.locator("h2")).to_contain_text("rank")
        expect(detail.get_by_role("link", name="Temporal")).to_have_count(0)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Address of Temporal's own web page").fill("https://temporal.example/ui/")
        page.get_by_role("button", name="Save").click()
        page.reload()
        expect(link).to_have_attribute("href", re.compile("^https://temporal.example/ui/namespaces/default/workflows/"))
        detail.get_by_role("link", name="alike").first.click(force=True)
        expect(page.get_by_label("Search traces")).to_have_value("k:v")
        expect(page.locator(".traces tbody tr")).to_have_count(1)


@fact
def what_comes_from_spans_is_text(browser):
    with tab(browser) as t:
        evil = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>'\"`${1}</td>"
        trace = Trace("evil\"><script>window.hacked=1</script>", ago(60))
        root = trace.run(evil, None, 0, 100, evil, **{"tags": [evil], evil: evil, "__proto__": {"hacked": 1}})
        child = trace.span(evil, root["id"], 1, 2, id=evil[:200], input={evil: evil}, output={"html": evil}, group_id=evil)
        trace.fail(child, evil, evil)
        t.collector.send(trace.spans)
        page = t.open("/")
        expect(page.locator(".traces td.name a")).to_have_text(evil)
        page.locator(".traces td.name a").click()
        for view in ["waterfall", "flame", "names"]:
            page.locator(f".segments button[value={view}]").click()
        page.locator(".segments button[value=waterfall]").click()
        rows(page).nth(1).click()
        expect(page.locator(".error-box")).to_contain_text(evil)
        assert page.evaluate("[window.hacked, {}.hacked]") == [None, None]
        assert page.locator("#main script, #main img").count() == 0
        headers = page.request.get(t.collector.url + "/").headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy and "default-src 'none'" in policy
        # What gets in all the same would not run.
        t.errors_expected = ("Content Security Policy", "violates")
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 2'}))")
        assert page.evaluate("window.hacked") is None


@fact
def a_trace_of_ten_thousand_spans_stays_usable(browser):
    with tab(browser) as t:
        trace = Trace("big", ago(60))
        root = trace.span("Root", None, 0, 10_000)
        for n in range(100):
            group = trace.span(f"group {n}", root["id"], 100 * n, 100 * n + 99)
            for k in range(99):
                trace.span(f"leaf {n}.{k}", group["id"], 100 * n + k, 100 * n + k + 0.5, input={"n": n, "k": k})
        t.collector.send(trace.spans)
        began = time.monotonic()
        page = t.open("/traces/big")
        expect(row(page, "group 0")).to_be_visible()
        opened = time.monotonic() - began
        page.keyboard.press("e")
        assert rows(page).count() < 120
        page.locator(".wf-body").focus()
        began = time.monotonic()
        page.keyboard.press("End")
        expect(row(page, "leaf 99.98")).to_be_visible()
        jumped = time.monotonic() - began
        page.get_by_label("Search in this trace").fill("leaf 57.42")
        expect(row(page, "leaf 57.42")).to_be_visible()
        expect(page.locator(".found")).to_have_text("1")
        steps = page.evaluate("""async () => {
            const body = document.querySelector(".wf-body");
            const frames = [];
            for (let n = 0; n < 40; n++) {
                const began = performance.now();
                body.scrollTop = (body.scrollHeight / 40) * n;
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                frames.push(performance.now() - began);
            }
            return frames.sort((a, b) => a - b)[36];
        }""")
        print(f"  10,001 spans: opened in {opened:.2f} s, end in {jumped:.2f} s, 90 % of scroll steps under {steps:.0f} ms")
        assert opened < 10 and jumped < 3 and steps < 200


@fact
def what_is_exported_can_be_imported(browser):
    with tab(browser) as t:
        spans = research("r", ago(60))
        t.collector.send(spans)
        t.collector.send(small("other", ago(30), 3))
        page = t.open("/?q=name:research")
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        exports = {}
        for item in ["JSON lines", "OTLP JSON", "CSV"]:
            page.get_by_role("button", name="Export").click()
            with page.expect_download() as download:
                page.get_by_role("menuitem", name=item).click()
            exports[item] = Path(download.value.path()).read_text()
        lines = exports["JSON lines"].splitlines()
        assert len(lines) == len(spans)
        otlp = [json.loads(line) for line in exports["OTLP JSON"].splitlines()]
        assert sum(len(one["resourceSpans"][0]["scopeSpans"][0]["spans"]) for one in otlp) == len(spans)
        assert exports["CSV"].startswith("trace_id,id,parent_id")
        with tab(browser) as other:
            page = other.open("/")
            page.locator("input[type=file]").set_input_files({"name": "spans.jsonl", "mimeType": "application/jsonl", "buffer": exports["JSON lines"].encode()})
            expect(page.locator(".toast")).to_contain_text(f"{len(spans)} spans imported")
            expect(page.locator(".traces tbody tr")).to_have_count(1)
            again = page.request.get(other.collector.url + "/page/export?format=jsonl&trace=r").text()
            assert again.splitlines() == lines
            page.locator("input[type=file]").set_input_files({"name": "bad.jsonl", "mimeType": "text/plain", "buffer": b"{]\n"})
            expect(page.locator(".toast")).to_contain_text("not imported: body is not valid JSON")
            other.wrong.clear()  # The browser logs the refusal.


@fact
def a_key_is_asked_for_and_data_is_not_shown_without_it(browser):
    with tab(browser, "--api-key", "hunter2", errors_expected=("401",)) as t:
        t.collector.send(small("secret", ago(5), 1), key="hunter2")
        page = t.open("/")
        field = page.get_by_label("API key", exact=True)
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_label("API key", exact=True)).to_be_visible()
        assert page.locator(".traces tbody tr").count() == 0
        page.get_by_label("API key", exact=True).fill("hunter2")
        page.get_by_label("API key", exact=True).press("Enter")
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name="CSV").click()
        assert "secret" in Path(download.value.path()).read_text()


@fact
def a_site_that_renames_itself_to_this_machine_reads_nothing(browser):
    with tab(browser) as t:
        for host, status in [("evil.example", 403), ("localhost:1", 200)]:
            answer = t.page.request.get(t.collector.url + "/page/traces", headers={"host": host})
            assert answer.status == status, host


@fact
def the_page_looks_right_in_light_and_dark(browser):
    collector = Collector()
    try:
        for seed in range(60):
            collector.send(small(f"{seed:032x}", ago(3600 - 55 * seed), seed))
        collector.send(research("research", ago(30), sections=6, steps=16))
        collector.send(research("large", ago(90), sections=12, steps=30, seed=1))
        grounds = []
        for scheme in ["light", "dark"]:
            with tab(browser, collector=collector, color_scheme=scheme) as t:
                page = t.open("/")
                expect(page.locator(".traces tbody tr").nth(40)).to_be_attached()
                expect(page.locator(".names tbody tr").first).to_be_visible()
                t.shot(f"list-{scheme}")
                page = t.open("/traces/research")
                row(page, "rank").first.click()
                expect(page.locator(".detail .section").first).to_be_visible()
                t.shot(f"trace-{scheme}")
                for view in ["waterfall", "flame", "names"]:
                    page = t.open(f"/traces/large?view={view}")
                    expect(page.locator(".pill")).to_be_visible()
                    t.shot(f"{view}-{scheme}")
                grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
                page.get_by_role("button", name="Theme").click()
                page.get_by_role("button", name="Theme").click()
                assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]
    finally:
        collector.stop()


def main():
    wanted = sys.argv[4:]
    failed = []
    with sync_playwright() as playwright:
        # Its sandbox does not work as root; what it opens is ours alone.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for test in FACTS:
            if wanted and test.__name__ not in wanted:
                continue
            try:
                test(browser)
                print(f"ok      {test.__name__}", flush=True)
            except Exception:
                failed.append(test.__name__)
                print(f"FAILED  {test.__name__}", flush=True)
                traceback.print_exc()
        browser.close()
    print(f"{len(failed)} failed" if failed else "all facts hold")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
