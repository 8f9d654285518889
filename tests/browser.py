"""A real browser without a window, for tests that look at pages."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_LOOK = """<script>addEventListener("load", () => {
  const pictures = [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.clientWidth]);
  const shown = {pictures, text: document.body.innerText, wide: document.documentElement.scrollWidth};
  const found = document.createElement("script");
  found.type = "application/json";
  found.id = "found";
  found.textContent = JSON.stringify(shown).replaceAll("<", "\\\\u003c");
  document.documentElement.append(found);
})</script>"""


def find() -> str:
    """The browser's command; skips the test where there is none."""
    named = os.environ.get("TOTO_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium); TOTO_CHROMIUM names another")
    return found


def look(page: Path, width: int = 1200) -> dict[str, Any]:
    """What the browser makes of a page: `pictures` (loaded, natural width and height, shown width), `text`, `wide`.

    The page forbids scripts, so a copy without its policy is opened, with one that reports.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', _LOOK, page.read_text("utf-8"), count=1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(text, "utf-8")
        dom = _run(copy, "--dump-dom", f"--window-size={width},1000")
    found = re.search(r'<script type="application/json" id="found">(.*?)</script>', dom, re.DOTALL)
    assert found is not None, dom[-2000:]
    return dict(json.loads(found.group(1)))


def screenshot(page: Path, out: Path, size: tuple[int, int] = (1200, 2400)) -> None:
    """A PNG of the top of a page, exactly as it is."""
    _run(page, f"--screenshot={out}", f"--window-size={size[0]},{size[1]}", "--hide-scrollbars")


def _run(page: Path, *options: str) -> str:
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            # No sandbox: it needs rights that containers and root do not have. The page is our own.
            [find(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
            + [page.absolute().as_uri()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=200,
            check=True,
        )
    return done.stdout
