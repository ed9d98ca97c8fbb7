"""Tests the traces page in a real headless Chromium, against the real command.

    python3 collector/tests/browser/run.py

Needs Rust, Python 3 with pip (which fetches Playwright to drive the browser into cargo's target folder), and a
Chromium: the one that CHROMIUM names, or one on PATH. As root on Debian or Ubuntu it is installed from the system's
packages. Screenshots go to target/browser/screenshots.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PLAYWRIGHT = "playwright==1.65.2"
NAMES = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]


def chromium():
    given = os.environ.get("CHROMIUM")
    if given:
        if shutil.which(given):
            return shutil.which(given)
        sys.exit(f"CHROMIUM names {given}, which is no program")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing chromium-headless-shell", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quietly = {"env": environment, "stdout": subprocess.DEVNULL}
        for package in ["chromium-headless-shell", "chromium"]:
            for update in [False, True]:
                if update:
                    subprocess.run(["apt-get", "update"], **quietly)
                command = ["apt-get", "install", "-y", "--no-install-recommends", package]
                if subprocess.run(command, **quietly).returncode == 0:
                    return shutil.which(package)
    sys.exit(
        "the tests of the page need a Chromium: install it (Debian: apt-get install chromium-headless-shell), "
        "or say where one is: CHROMIUM=/path/to/chromium"
    )


def main():
    build = ["cargo", "build", "--locked", "--bin", "durable-spans"]
    subprocess.run(build, cwd=ROOT, check=True)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    target = Path(json.loads(metadata.stdout)["target_directory"])
    home = target / "browser"
    python = home / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", PLAYWRIGHT], check=True)
    (home / "screenshots").mkdir(exist_ok=True)
    command = [python, HERE / "page.py", target / "debug" / "durable-spans", chromium(), home / "screenshots"]
    sys.exit(subprocess.run([*command, *sys.argv[1:]]).returncode)


if __name__ == "__main__":
    main()
