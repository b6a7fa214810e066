"""The site builds without a network, loads nothing from one, and every link in it leads somewhere."""

import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from groundup.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent.name for path in (ROOT / "src/groundup").glob("*/__init__.py"))
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
"""Elements that make a browser fetch something, and the attribute that says what."""


class Html(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors, self.classes = [], [], set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.classes |= set(values.get("class", "").split())
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADS.get(tag) in values:
            self.loads.append(values[LOADS[tag]])
        self.loads += re.findall(r"url\(([^)]+)\)", values.get("style", ""))


BUILD = """
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config

config = load_config("mkdocs.yml", strict=True, site_dir=sys.argv[1])
if sys.argv[2:] == ["plain"]:
    config.mdx_configs["pymdownx.highlight"]["use_pygments"] = False
    signatures = {"separate_signature": False, "show_signature_annotations": False}
    config.plugins["mkdocstrings"].config.handlers["python"]["options"].update(signatures)
config.plugins.on_startup(command="build", dirty=False)
build(config)
"""


def built(folder, *how):
    """The folder of the built site: any warning of the builder ends the build."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-c", BUILD, str(folder), *how]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site, its code and signatures without colors and types: those take half of the time."""
    return built(tmp_path_factory.mktemp("site"), "plain")


@pytest.mark.slow
def test_code_and_signatures_get_their_colors(tmp_path):
    folder = built(tmp_path)
    assert '<span class="k">class</span>' in (folder / "source/src/groundup/model/gpt.py.html").read_text("utf-8")
    assert "doc-signature" in (folder / "reference/model.html").read_text("utf-8")
    guide = (folder / "guide/train.html").read_text("utf-8")
    assert {"language-bash highlight", "language-console highlight"} <= set(
        re.findall(r'<div class="([^"]+)"><pre', guide)
    )


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Html(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for name, page in pages.items():
        outside = [url for url in page.loads if urlparse(url).scheme not in ("", "data") or url.startswith("//")]
        assert not outside, f"{name} loads {outside}"
        assert "mermaid" not in page.classes, f"{name}: the script that draws mermaid comes from a network"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), style.name


def test_formulas_are_drawn(site):
    """By the browser itself: no script, and no LaTeX left."""
    lessons = {path.name: path.read_text("utf-8") for path in (site / "source" / "notebooks").glob("*.html")}
    assert "<math" in lessons["build_gpt.ipynb.html"]
    for name, html in lessons.items():  # one on a line of its own is wider than a phone, and scrolls
        scrolling = len(re.findall(r'<span class="formula"><math [^>]*display="block"', html))
        assert scrolling == html.count('display="block"') > 0 or 'display="block"' not in html, name
    for name, html in lessons.items():
        prose = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", html, flags=re.DOTALL)
        assert not re.search(r"\$[^$<]*[\\^_][^$<]*\$", prose), name


def test_every_link_and_anchor_resolves(site, pages):
    for name, page in pages.items():
        if name == "404.html":
            continue  # its links are absolute: it is shown at any address
        for url in [*page.links, *page.loads]:
            parts = urlparse(url)
            if parts.scheme or url.startswith("//"):
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
            target = name if not parts.path else target
            if (site / target).is_dir():
                target = posixpath.normpath(f"{target}/index.html")
            assert (site / target).is_file(), f"{name} links to {url}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{name} links to {url}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_guide(command, pages):
    page = pages[f"guide/{command}.html"]
    assert "what-goes-wrong" in page.anchors
    assert f"{command}.html" in pages["guide/index.html"].links


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_explained_and_has_its_api(room, pages):
    assert f"how/{room}.html" in pages
    assert any(anchor.startswith(f"groundup.{room}.") for anchor in pages[f"reference/{room}.html"].anchors)
    assert f"{room}.html" in pages["how/index.html"].links


@pytest.mark.parametrize("name", ["index", "model", "data", "loop", "generation", "checkpoint"])
def test_diagrams_are_drawn_into_the_page(name, pages):
    assert "diagram" in pages[f"how/{name}.html"].classes


def test_the_menu_holds_records_too(pages):
    links = pages["index.html"].links
    for path in [*sorted((ROOT / "docs/adr").glob("*.md")), ROOT / "docs/log.md", ROOT / "docs/faults.md"]:
        if path.is_file():
            assert path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in links


def test_the_search_finds_words_and_leaves_out_sources(site):
    text = (site / "search/search_index.json").read_text("utf-8")
    assert '"location":"guide/train.html' in text
    assert '"location":"source/' not in text


def test_a_lesson_is_a_page_of_the_menu_with_neighbors_and_its_notebook(site, pages):
    page = pages["source/notebooks/build_gpt.ipynb.html"]
    assert {"bigram.ipynb.html", "tokenization.ipynb.html", "build_gpt.ipynb"} <= set(page.links)
    assert {"out", "verdict", "md-footer__link--next", "md-footer__link--prev"} <= page.classes
    original = ROOT / "notebooks/build_gpt.ipynb"
    assert (site / "source/notebooks/build_gpt.ipynb").read_bytes() == original.read_bytes()


def test_a_picture_of_a_lesson_says_what_it_shows(site):
    text = (site / "source/notebooks/bigram.ipynb.html").read_text("utf-8")
    said = re.findall(r'<img alt="([^"]*)" src="data:image/png', text)
    assert [words[:24] for words in said] == [
        "The table as a map: most",
        "A bar of surprise for ea",
        "Both curves fall from 4.",
        "Both fall to two letters",
    ]


def test_flags_are_not_torn_apart(site):
    text = (site / "guide/train.html").read_text("utf-8")
    inline = re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)
    assert "<span class=whole>--dry-run</span>" in inline
    assert not re.findall(r"<code>[^<]*--[^<]*</code>", inline)
    blocks = "".join(re.findall(r'<(?:div|code) class="language-(?:bash|console)\b.*?</pre>', text, flags=re.DOTALL))
    assert "<span class=whole>--resume</span>" in blocks
    assert "<span class=whole>gpt2-fineweb</span>" in blocks
    assert not re.findall(r"--", re.sub(r"<span class=whole>[^<]*</span>", "", blocks))


def test_the_front_page_shows_what_it_writes_and_where_to_begin(pages):
    assert {"md-button--primary", "drawing"} <= pages["index.html"].classes
