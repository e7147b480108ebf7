"""What the page's modules promise, and that the page asks nobody but its server for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONTEND = ROOT / "frontend"
SOURCES = sorted(
    path for path in FRONTEND.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}
)


def test_javascript_units() -> None:
    """The modules without a DOM keep their promises under `node --test`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    assert files
    done = subprocess.run(
        [node, "--test", *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"^\S* ?pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) > 40, done.stdout[-500:]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_external_requests(source: Path) -> None:
    """Nothing in the page names another host: it works offline and tells nobody who uses it."""
    urls = re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s"']*""", source.read_text())
    assert [url for url in urls if "www.w3.org" not in url] == []


@pytest.mark.parametrize(
    "module", [path for path in SOURCES if path.suffix == ".js"], ids=lambda path: path.name
)
def test_modules_are_checked_and_imports_resolve(module: Path) -> None:
    """Every module is type-checked, says what it owns, and imports only files that exist."""
    text = module.read_text()
    assert text.startswith("// @ts-check\n")
    assert "/**" in text[:120]
    imports = re.findall(r"""^(?:import|export)[^;]*?from "([^"]+)";""", text, re.MULTILINE)
    imports += re.findall(r"""new URL\("([^"]+)", import\.meta\.url\)""", text)
    for name in imports:
        assert name.startswith("."), f"{name}: no bare specifiers without a build step"
        assert (module.parent / name).is_file(), name


PURE = (
    "captions",
    "clock",
    "engines",
    "frames",
    "numbers",
    "pacing",
    "protocol",
    "resampler",
    "resume",
    "talk",
    "transcript",
    "turns",
    "upload",
)


def test_pure_modules_touch_no_browser() -> None:
    """The modules with the page's rules run anywhere: no DOM, network or timers."""
    forbidden = re.compile(
        r"\b(document|window|fetch|WebSocket|AudioContext|setTimeout|performance\.now|Date)\b\s*[.(]"
    )
    for name in PURE:
        text = (FRONTEND / "js" / f"{name}.js").read_text()
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        assert forbidden.search(code) is None, name


def test_every_control_has_a_name() -> None:
    """A screen reader finds a name for every button, field and choice of the page."""
    html = (FRONTEND / "index.html").read_text()
    for tag, attributes in re.findall(r"<(input|select)\b([^>]*)>", html):
        name = re.search(r'\bid="([^"]+)"', attributes)
        wrapped = re.search(rf"<label[^>]*>\s*<{tag}{re.escape(attributes)}>\s*<span>", html)
        labelled = wrapped or (name and f'for="{name[1]}"' in html)
        assert labelled, f"<{tag}{attributes}>"
    for attributes, inner in re.findall(r"<button\b([^>]*)>(.*?)</button>", html, re.DOTALL):
        text = re.sub(r"<svg.*?</svg>|<[^>]+>", "", inner, flags=re.DOTALL).strip()
        assert "aria-label" in attributes or len(text) > 1, attributes
