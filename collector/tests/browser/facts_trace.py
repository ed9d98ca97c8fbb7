"""What must hold of the view of one trace."""

import json
import re
import time
from datetime import timedelta

from playwright.sync_api import expect

from harness import ago, fact, row, rows, section, tab
from traces import Trace, agent, research


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
def errors_are_counted_alike_wherever_they_are_shown(browser):
    with tab(browser) as t:
        trace = Trace("t", ago(60))
        run = trace.run("Order", None, 0, 500, "order-7")
        # An activity and its only attempt, which share a line; and one that is retried.
        alone = trace.fail(trace.activity("charge", run["id"], 10, 100), "declined")
        trace.fail(next(span for span in trace.spans if span["id"] == alone["parent_id"]), "declined")
        trace.activity("notify", run["id"], 110, 400, ["busy"])
        t.collector.send(trace.spans)
        page = t.open("/")
        expect(page.locator(".traces tbody tr td").nth(5)).to_have_text("3")
        page = t.open("/traces/t")
        expect(page.locator(".figure-box", has_text="errors")).to_have_text("errors3")
        expect(row(page, "charge")).to_have_count(1)
        page.locator(".wf-body").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        expect(row(page, "Order")).to_contain_text("+5, 3 failed")
        page.get_by_role("tab", name="Names").click()
        cells = page.locator(".names-view tbody td:nth-child(3)").all_text_contents()
        assert sum(int(text) for text in cells if text != "·") == 3, cells
        spans = page.locator(".names-view tbody td:nth-child(2)").all_text_contents()
        assert sum(map(int, spans)) == len(trace.spans), spans


@fact
def what_cannot_be_known_is_said(browser):
    with tab(browser) as t:
        t.collector.send(research("r", ago(60)))
        page = t.open("/")
        expect(page.get_by_text("incomplete")).to_have_attribute("title", re.compile("1 span whose parent.*1 attempt lost.*12 spans dropped", re.S))
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
def typed_spans_are_shown_as_what_they_are(browser):
    with tab(browser) as t:
        t.collector.send(agent("a", ago(60)))
        page = t.open("/traces/a")
        row(page, "decide").click()
        detail = page.locator(".detail")
        messages = detail.locator(".message")
        expect(messages).to_have_count(3)
        expect(messages.nth(0)).to_contain_text("You help customers. <b>Be kind.</b>")
        expect(messages.nth(1).locator("b")).to_have_text("user")
        expect(messages.nth(1).locator(".said")).to_have_text("My order 17 never came.")
        expect(messages.nth(2).locator(".said")).to_have_text('→ refund({"order":17,"amount":12.5})')
        facts = detail.locator(".facts")
        for fact_of_call in ["gpt-x", "876", "$0.0123"]:
            expect(facts).to_contain_text(fact_of_call)
        for title, value in [("Usage", "512"), ("Model settings", "0.1"), ("Events", "first token"), ("Metrics", "0.93")]:
            expect(section(detail, title)).to_contain_text(value)
        expect(detail.locator(".tags")).to_contain_text("cached")
        detail.get_by_role("button", name="Copy Messages").click()
        assert page.evaluate("navigator.clipboard.readText()").startswith("system: You help customers.")
        # The whole of it is there, folded.
        section(detail, "Input").locator("> summary").click()
        expect(detail.locator(".json .key", has_text="role").first).to_be_visible()
        # What failed is red, on the critical path or not, and says how long it took within the picture.
        expect(row(page, "refund").locator(".critical")).not_to_have_count(0)
        red = page.evaluate("getComputedStyle(Object.assign(document.body.appendChild(document.createElement('i')), {style: 'background: var(--error-bar)'})).backgroundColor")
        expect(row(page, "refund").locator(".bar")).to_have_css("background-color", red)
        activity = page.locator(".wf-row", has_text="×3")
        inner, outer = activity.locator(".took").bounding_box(), activity.locator(".wf-time").bounding_box()
        assert inner["x"] + inner["width"] <= outer["x"] + outer["width"], (inner, outer)
        row(page, "refund").click()
        expect(detail.locator(".error-box")).to_contain_text("the bank refused the refund")
        expect(section(detail, "Error data")).to_contain_text("limit_exceeded")


@fact
def what_a_lost_attempt_did_is_below_its_activity(browser):
    with tab(browser) as t:
        t.collector.send(agent("a", ago(60)))
        page = t.open("/traces/a")
        expect(row(page, "load customer")).to_contain_text("in #2, lost")
        expect(row(page, "load customer")).to_have_attribute("aria-level", "3")
        activity = page.locator(".wf-row", has_text="×3")
        expect(activity).to_contain_text("#2 lost")
        expect(page.locator(".notices")).to_contain_text("lost with")
        expect(page.locator(".notices")).not_to_contain_text("waits for its parent")
        # A child workflow's call and its run are one line.
        expect(row(page, "Escalate")).to_have_count(1)
        row(page, "load customer").click()
        link = page.locator(".detail").get_by_role("link", name="Temporal")
        expect(link).to_have_attribute("href", re.compile("/namespaces/prod/workflows/support-12/run-0/history$"))


@fact
def the_server_says_where_temporals_own_page_is(browser):
    with tab(browser, "--temporal-ui", "https://temporal.example/base") as t:
        t.collector.send(agent("a", ago(60)))
        page = t.open("/traces/a")
        row(page, "decide").click()
        link = page.locator(".detail").get_by_role("link", name="Temporal")
        expect(link).to_have_attribute("href", "https://temporal.example/base/namespaces/prod/workflows/support-12/run-0/history")


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
def the_critical_path_is_what_the_trace_waited_for(browser):
    with tab(browser) as t:
        trace = Trace("t", ago(60))
        root = trace.span("root", None, 0, 100)
        for name, start, end in [("early", 0, 30), ("slow", 5, 60), ("beside", 50, 55), ("last", 70, 95)]:
            trace.span(name, root["id"], start, end)
        trace.span("inner", trace.spans[2]["id"], 10, 40)
        t.collector.send(trace.spans)
        page = t.open("/traces/t")
        expect(row(page, "inner")).to_be_visible()
        # The root at its ends and between, and of what ran at once what ended last.
        segments = {name: row(page, name).locator(".critical").count() for name in ["root", "early", "slow", "inner", "beside", "last"]}
        assert segments == {"root": 3, "early": 0, "slow": 2, "inner": 1, "beside": 0, "last": 1}, segments
        page.keyboard.press("c")
        expect(page.locator(".critical")).to_have_count(0)


@fact
def time_is_zoomed_by_dragging_and_by_keys(browser):
    with tab(browser) as t:
        trace = Trace("t", ago(60))
        root = trace.span("root", None, 0, 1000)
        trace.span("first", root["id"], 0, 100)
        trace.span("second", root["id"], 600, 700)
        t.collector.send(trace.spans)
        page = t.open("/traces/t")
        width = lambda name: row(page, name).locator(".bar").evaluate("bar => parseFloat(bar.style.width)")
        expect(row(page, "second")).to_be_visible()
        assert 9 < width("second") < 11
        axis = page.locator(".wf-head .wf-time").bounding_box()
        page.mouse.move(axis["x"] + axis["width"] * 0.5, axis["y"] + 10)
        page.mouse.down()
        page.mouse.move(axis["x"] + axis["width"] * 0.8, axis["y"] + 10)
        page.mouse.up()
        expect(page.get_by_role("button", name="Zoom out")).to_be_visible()
        assert 30 < width("second") < 37
        expect(row(page, "first").locator(".bar")).to_have_count(0)
        expect(row(page, "first").locator(".took")).to_have_text("‹")
        page.keyboard.press("0")
        expect(row(page, "first").locator(".bar")).to_have_count(1)
        row(page, "second").click()
        page.keyboard.press("+")
        assert 19 < width("second") < 21


@fact
def flame_and_names_lead_to_spans(browser):
    with tab(browser) as t:
        t.collector.send(research("r", ago(60)))
        page = t.open("/traces/r?view=flame")
        canvas = page.locator(".flame-canvas")
        canvas.hover(position={"x": 200, "y": 30})
        expect(page.locator(".flame-tip")).to_contain_text("ResearchPipeline")
        canvas.click(position={"x": 200, "y": 50})
        expect(page.locator(".detail h2")).to_contain_text("Section")
        expect(page.locator(".crumbs button")).to_have_text(["all", "ResearchPipeline", "Section"])
        page.keyboard.press("3")
        expect(page).to_have_url(re.compile("view=names"))
        page.get_by_role("button", name="Count", exact=True).click()
        counts = page.locator(".names-view tbody tr td:nth-child(2)").all_text_contents()
        assert [int(n) for n in counts] == sorted((int(n) for n in counts), reverse=True)
        page.locator(".names-view td.name button", has_text="publish").click()
        expect(page.locator(".found")).to_have_text("1")
        expect(row(page, "publish")).to_be_visible()
