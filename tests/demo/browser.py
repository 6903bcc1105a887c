"""The demo in a real browser: what a visitor does, and what is on the page then."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the PATH"),
]
# A camera that shows a test picture, and nobody who would have to allow it.
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
DEGRADED = '#board img[alt="Degraded"], #board img[alt="The photo as it came"]'
PATIENCE = 120_000  # milliseconds until a page is taken for dead; a busy machine draws slowly


class Demo:
    """The page of ``workbench demo``, used as a visitor does: control ids are those of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []  # of the browser: errors, and policies that were violated
        self.elsewhere: list[str] = []  # addresses that are not the server's
        self._listeners: dict[Any, Any] = {
            "console": lambda message: self._listen(message.type, message.text),
            "pageerror": lambda error: self._listen("error", str(error)),
            "request": lambda request: self._request(request.url),
            "response": lambda answer: self._listen(*(("error",) if answer.status >= 400 else ("fine",)), answer.url),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)

    def _listen(self, kind: str, text: str) -> None:
        # Gradio's editor logs this when it is hidden again before the picture to paint on has come, as fast switching
        # between presets does; the next time it is shown it gets its picture.
        if text.startswith("Error adding image from URL: TypeError"):
            return
        if kind == "error" or "Content Security Policy" in text:
            self.complaints.append(text)

    def _request(self, url: str) -> None:
        if not re.match(r"http://127\.0\.0\.1:\d+/|data:|blob:http://127\.0\.0\.1", url):
            self.elsewhere.append(url)

    def leave(self) -> None:
        """Listen no longer."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def open(self, url: str) -> None:
        """Open the page and wait until it shows what the degradation does to the sample photo, and listens."""
        with self.page.expect_response(lambda answer: "/run/predict" in answer.url):
            self.page.goto(url)
            self.page.locator(DEGRADED).wait_for()

    # What a visitor does.

    def part(self, name: str, inside: str = "") -> Locator:
        """The control ``name``, or what is ``inside`` (CSS) of it."""
        return self.page.locator(f"#{name} {inside}".strip())

    def choose(self, name: str, option: str) -> None:
        """Choose from a list, by the name or what it begins with before brackets."""
        self.part(name, "input").click()
        self.page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}( \(.*\))?$")).click()
        self.page.get_by_role("option").first.wait_for(state="detached")  # it closes slowly

    def number(self, name: str, value: float) -> None:
        """Type a number, or drag a slider that has no box."""
        box = self.part(name, "input:visible").first
        box.fill(f"{value:g}")
        box.press("Tab")

    def write(self, name: str, text: str) -> None:
        """Type into a text box."""
        self.part(name, "input").fill(text)

    def value(self, name: str) -> str:
        """What stands in the box of a control, without what stands in brackets."""
        return self.part(name, "input").first.input_value().partition(" (")[0]

    def unfold(self, name: str) -> None:
        """Open an accordion."""
        self.part(name, "> button").click()

    def methods(self, *rows: tuple[str, str, str]) -> None:
        """Solver, prior and settings of each method; the others become none."""
        for number in range(1, 5):
            solver, prior, settings = rows[number - 1] if number <= len(rows) else ("none", "", "")
            if self.value(f"solver{number}") != solver:
                self.choose(f"solver{number}", solver)
            if prior and self.value(f"prior{number}") != prior:
                self.choose(f"prior{number}", prior)
            self.write(f"settings{number}", settings)

    def small(self, side: int = 32) -> None:
        """Restore a small picture, so that runs are short."""
        self.unfold("framing")
        self.number("side", side)
        self.page.locator("#board figcaption", has_text=f"{side}×{side} pixels").first.wait_for()

    def restore(self) -> None:
        """Press Restore and wait for the results: each comparison has its own files."""
        before = self.part("slider", "img").first.get_attribute("src") if self.part("slider", "img").count() else ""
        self.part("go").click()
        self.page.wait_for_function(
            "before => { const shown = document.querySelector('#slider img'); return shown && shown.src !== before; }",
            arg=before,
            timeout=PATIENCE,
        )
        self.page.locator("#status .prose", has_text=re.compile(r"Done\.|: ")).wait_for()  # or why a method could not
        self.part("scores", "[data-index]").first.wait_for()

    # What is on the page.

    @contextmanager
    def changes(self) -> Iterator[None]:
        """Wait until the preview shows another degraded picture than before."""
        shown = self.page.locator(DEGRADED)
        before = shown.get_attribute("src") if shown.count() else ""
        yield
        self.page.wait_for_function(
            "([selector, before]) => { const shown = document.querySelector(selector);"
            " return shown && shown.src !== before; }",
            arg=[DEGRADED, before],
        )

    def status(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until the line above the pictures says ``text``."""
        self.page.locator("#status .prose", has_text=text).wait_for(timeout=timeout)

    def says(self, text: str) -> None:
        """Wait until an error on the page says ``text``."""
        self.page.locator(
            "#status [role=alert], [data-testid=toast-text], #board .error", has_text=text
        ).first.wait_for()

    def picture(self, name: str, nth: int = 0) -> np.ndarray:
        """A picture of the board, (h, w, 3) uint8, by the name under it, or what that begins with before brackets."""
        shown = self.page.locator(f'#board img[alt="{name}"], #board img[alt^="{name} ("]')
        source = shown.nth(nth).get_attribute("src") or ""
        return decode(source)

    def captions(self) -> list[str]:
        """What stands under the pictures of the board."""
        return [re.sub(r"\s+", " ", text).strip() for text in self.part("board", "figcaption").all_inner_texts()]

    def scores(self) -> list[dict[str, str]]:
        """The table of scores, method by method, without what stands in brackets."""
        names = [text.strip(" ⋮\n") for text in self.part("scores", "thead th").all_inner_texts()]
        rows = [row.get_by_role("gridcell").all_inner_texts() for row in self.part("scores", "[data-index]").all()]
        rows = [row for row in rows if not re.match(r"Method \d −", row[0])]  # the first two compared
        return [dict(zip(names, (cell.strip().partition(" (")[0] for cell in row), strict=True)) for row in rows]


def decode(source: str) -> np.ndarray:
    """The picture in a data address, (h, w, 3) uint8."""
    return pixels(base64.b64decode(source.partition(",")[2]))


def pixels(content: bytes | Path) -> np.ndarray:
    """The picture in a file or its content, (h, w, 3) uint8."""
    opened = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    return np.asarray(opened.convert("RGB"))


def photo(path: Path, width: int = 48, height: int = 40, seed: int = 0) -> Path:
    """A photo of the visitor's: smooth, and no other is like it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def drop(demo: Demo, name: str, file: Path) -> None:
    """Drag ``file`` onto the control ``name``."""
    content: dict[str, Any] = {"name": file.name, "data": base64.b64encode(file.read_bytes()).decode()}
    transfer = demo.page.evaluate_handle(
        """({name, data}) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    target = demo.part(name, "[aria-dropeffect=copy]")
    for event in ("dragenter", "dragover", "drop"):
        target.dispatch_event(event, {"dataTransfer": transfer})
