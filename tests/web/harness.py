"""The page as people meet it: a server in a process of its own, and a real browser without a window."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 90  # seconds; machines of tests are busy
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1280,1500",
)  # fmt: skip
# Gradio asks how far an upload is, which may be over by then: that is not found, and told twice.
HARMLESS = re.compile(r"/gradio_api/upload_progress\?|/assets/index-\S+\.js \S+ Response$")


def wait_for(condition: Callable[[], object], what: str) -> object:
    """What `condition` gives as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    pytest.fail(f"waited {PATIENCE} s for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """tools/web_demo.py with all its temporary files in a folder, and a proxy that must not be used."""

    def __init__(self, folder: Path, checkpoint: str, *options: str):
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self.output = folder / "server.txt"
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        self.proxy = socket.create_server(("127.0.0.1", 0))
        self.proxy.setblocking(False)
        proxy = f"http://127.0.0.1:{self.proxy.getsockname()[1]}"
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
        environment |= {"TMPDIR": str(self.folder)}
        command = [sys.executable, "tools/web_demo.py", "--checkpoint", checkpoint, "--port", str(port), *options]
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output, stderr=output)
        wait_for(lambda: "Ctrl-C" in self.said() or self.process.poll() is not None, "the server")
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def asked_outside(self) -> bool:
        """Whether the server has ever tried to reach something beyond this machine."""
        try:
            self.proxy.accept()[0].close()
        except BlockingIOError:
            return False
        return True


def find_browser() -> tuple[str, str]:
    browser, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    return browser, driver


class Page:
    """What a person does with mouse and files, and what they see."""

    def __init__(self, folder: Path, address: str, language: str = "en-US"):
        from selenium import webdriver

        browser, driver = find_browser()
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.address = address
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--lang={language}"):
            options.add_argument(flag)
        preferences = {"download.default_directory": str(self.downloads), "intl.accept_languages": language}
        options.add_experimental_option("prefs", preferences)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def find(self, selector: str, number: int = 0):
        """The element once it is there and shown; files are chosen in one that is hidden."""

        def look():
            found = self.driver.find_elements("css selector", selector)[number:]
            return found[0] if found and ("file" in selector or found[0].is_displayed()) else None

        return wait_for(look, selector)

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait_for_status("Paint over")  # the first sample is there

    def status(self) -> str:
        return self.driver.execute_script("return document.querySelector('#status')?.innerText || ''")

    def wait_for_status(self, text: str) -> str:
        wait_for(lambda: text in self.status(), f"'{text}' in the status line")
        return self.status()

    def choose_sample(self, number: int, name: str) -> None:
        self.find("#samples button", number).click()
        self.wait_for_status(name)

    def upload(self, place: str, path: Path, shown: str) -> None:
        self.find(f"#{place} input[type=file]").send_keys(str(path))
        wait_for(lambda: shown in self.driver.page_source, f"'{shown}' after the upload of {path.name}")

    def tab(self, number: int) -> None:
        self.find("button[role=tab]", number).click()

    def drag(self, selector: str, start: tuple[int, int], steps: Sequence[tuple[int, int]]) -> None:
        """From `start`, which is counted from the middle of the element."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver, duration=30)
        chain.move_to_element_with_offset(self.find(selector), *start).click_and_hold()
        for step in steps:
            chain.move_by_offset(*step)
        chain.release().perform()

    def click_at(self, selector: str, place: tuple[int, int]) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element_with_offset(self.find(selector), *place).click().perform()

    def complete(self) -> str:
        self.find("#complete").click()
        return self.wait_for_status("completed")

    def download(self) -> Path:
        self.find("#download").click()

        def done():
            names = [name for name in self.downloads.iterdir() if name.suffix == ".png"]
            return names[0] if names and not list(self.downloads.glob("*.crdownload")) else None

        path = wait_for(done, "the download")
        return path.rename(self.downloads.parent / path.name)

    def errors(self) -> list[str]:
        messages = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in messages if not HARMLESS.search(message)]

    def foreign_requests(self) -> list[str]:
        """Addresses that were asked for and are neither on this machine nor part of the browser."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == SENT]
        assert any(url.startswith(self.address) for url in asked)
        web = [url for url in asked if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
        return [url for url in web if urlsplit(url).hostname != "127.0.0.1"]


SENT = "Network.requestWillBeSent"
