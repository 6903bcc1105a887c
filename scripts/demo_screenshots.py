"""Pictures of the demo's page: after a run, during one, with a mask, with samples, with an error; light, dark, small.

    python scripts/demo_screenshots.py /tmp/demo            # starts a server of its own
    python scripts/demo_screenshots.py /tmp/demo --url http://127.0.0.1:7860

Needs a chromium on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = {"wide": 1400, "small": 400}


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """``url``, or that of a server which runs meanwhile."""
    if url is not None:
        yield url
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [Path(sys.executable).with_name("workbench"), "demo", "--port", port]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        if not any("The demo is at" in line for line in server.stdout):
            raise SystemExit("the server did not come up")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1400, scheme: str = "light") -> Iterator[Page]:
    """The page, once it shows its pictures."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(url)
    page.locator("#board img").nth(1).wait_for()
    yield page
    page.close()


def choose(page: Page, name: str, option: str) -> None:
    """Choose from the list with the id ``name``."""
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def restore(page: Page) -> None:
    """Run what is set, to its end."""
    page.locator("#go").click()
    page.locator("#status .prose", has_text="Done.").wait_for(timeout=120_000)
    page.locator("#scores [data-index]").first.wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # pictures of the slider


def paint(page: Page) -> None:
    """Some strokes on the picture to paint on."""
    canvas = page.locator("#painting canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(4000)  # until the editor has drawn it
    box = canvas.bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for down in (-40, 50):
        page.mouse.move(left - 80, top + down)
        page.mouse.down()
        page.mouse.move(left + 80, top + down + 20, steps=2)
        page.mouse.up()
        page.wait_for_timeout(4000)


def shoot(browser: Browser, url: str, out: Path) -> None:
    """All pictures, as PNG files in ``out``."""

    def save(page: Page, name: str) -> None:
        page.screenshot(path=out / f"{name}.png", full_page=True)
        print(out / f"{name}.png")

    for size, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            with opened(browser, url, width, scheme) as page:
                if scheme == "light":
                    save(page, f"opened-{size}")
                restore(page)
                save(page, f"done-{size}-{scheme}")
    with opened(browser, url) as page:
        page.locator("#go").click()
        page.wait_for_function("document.querySelector('#board progress')?.value > 5")
        save(page, "running")
        page.locator("#stop").click()
    with opened(browser, url) as page:
        choose(page, "preset", "Diversity: what the data leave open")
        for number in (1, 2):
            page.locator(f"#settings{number} input").fill("steps=20")
        restore(page)
        save(page, "samples")
    with opened(browser, url) as page:
        choose(page, "preset", "Old photo: colours and scratches")
        paint(page)
        save(page, "mask")
        restore(page)
        save(page, "mask-done")
    with opened(browser, url) as page:
        page.locator("#degradation input").fill("sr:0")
        page.locator("#status [role=alert]").wait_for()
        page.locator("#go").click()
        page.get_by_test_id("toast-text").wait_for()
        page.wait_for_timeout(500)
        save(page, "error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--url", help="of a demo that runs already")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on the PATH")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with served(arguments.url) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        shoot(browser, url, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
