"""Holds the page to its facts. Started by run.py: COMMAND CHROMIUM SCREENSHOTS [FACT ...]"""

import sys
import traceback

from playwright.sync_api import sync_playwright

import facts_list
import facts_trace
from harness import CHROMIUM, FACTS

assert facts_list and facts_trace, "they fill FACTS"


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
