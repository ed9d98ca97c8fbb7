"""What must hold of the list, of files and of keys."""

import json
from pathlib import Path

from playwright.sync_api import expect

from harness import CHROMIUM, Collector, ago, fact, row, tab
from traces import Trace, agent, research, small


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
            exports[item] = Path(download.value.path()).read_bytes().decode()
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
            bad = (lines[0] + "\n{]\n").encode()
            page.locator("input[type=file]").set_input_files({"name": "bad.jsonl", "mimeType": "text/plain", "buffer": bad})
            expect(page.locator(".toast")).to_contain_text("not imported: line 2: is not valid JSON at column 2")
            other.wrong.clear()  # The browser logs the refusal.
        for item, format in [("OTLP JSON", "otlp"), ("CSV", "csv")]:
            with tab(browser) as other:
                page = other.open("/")
                page.locator("input[type=file]").set_input_files({"name": f"spans.{format}", "mimeType": "text/plain", "buffer": exports[item].encode()})
                expect(page.locator(".toast")).to_contain_text(f"{len(spans)} spans imported")
                again = page.request.get(other.collector.url + f"/page/export?format={format}&trace=r").body().decode()
                assert again == exports[item], item


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
        # A browser that was led here by that name is told why.
        url = t.collector.url.replace("127.0.0.1", "evil.example")
        renamed = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"])
        page = renamed.new_page()
        page.goto(url)
        expect(page.locator(".toast")).to_contain_text("by a local name only")
        assert page.locator(".traces tbody tr").count() == 0
        renamed.close()


@fact
def the_page_looks_right_in_light_and_dark(browser):
    collector = Collector()
    try:
        for seed in range(60):
            collector.send(small(f"{seed:032x}", ago(3600 - 55 * seed), seed))
        collector.send(research("research", ago(30), sections=6, steps=16))
        collector.send(agent("agent", ago(20)))
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
                page = t.open("/traces/agent")
                for name in ["decide", "refund", "load customer"]:
                    row(page, name).click()
                    expect(page.locator(".detail h2")).to_contain_text(name)
                    expect(page.locator(".detail .section").first).to_be_visible()
                    t.shot(f"agent-{name.split()[0]}-{scheme}")
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
