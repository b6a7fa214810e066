"""What the site is made of besides the pages in docs/: pages of code, and diagrams drawn into the page.

A page links to a file of the repository by its relative path (`../../src/groundup/model/gpt.py`), as any reader of
the repository expects. In the site each such file becomes a page below `source/`, so that every link works without a
network. Rooms of the package get a page of API reference each, from their docstrings.
"""

import ast
import html
import json
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert as mathml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "groundup"
NOTEBOOKS = ROOT / "notebooks"
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".json": "json", ".yml": "yaml", ".txt": "text"}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FORMULA = re.compile(r"(\$\$?)(?!\s)([^$]+?)(?<!\s)\1")
BLOCK = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
INLINE = re.compile(r"<code>([^<]*-[^<]*)</code>")
SHELL = re.compile(r'<(?:div|code) class="language-(?:bash|console)\b.*?</pre>', re.DOTALL)
"""Commands and what they print, which break between words on a narrow screen."""
HYPHENATED = re.compile(r"[^\s<>]*-[^\s<>]*")
LESSONS = ("bigram", "build_gpt", "tokenization", "training", "inference", "gpt2")
"""Notebooks in the order in which they are read."""
LESSON_HEAD = "---\nsearch:\n  exclude: true\n---\n"
"""A lesson is a page of the menu: it has the measure of other pages, and those before and after it at its foot."""
VERDICT = re.compile(r"[\w -]+: (right|not yet)(\n|$)")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def rooms() -> list[str]:
    """The rooms of the package, lowest floor first where the page of rooms names it."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the menu with what is made: faults, decisions, API."""
    nav: list[Any] = config.nav or []
    decisions = next(item["Decisions"] for item in nav if "Decisions" in item)
    decisions[:0] = [f"adr/{path.name}" for path in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    if (ROOT / "docs" / "faults.md").is_file():
        next(item["Questions"] for item in nav if "Questions" in item).append("faults.md")
    lessons = [f"source/notebooks/{name}.ipynb.md" for name in LESSONS]
    nav.insert(2, {"Notebooks": lessons})
    nav.append({"API": [f"reference/{room}.md" for room in rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page of API for every room, and a page for every file of the repository that is linked to."""
    for room in rooms():
        files.append(File.generated(config, f"reference/{room}.md", content=reference(room)))
    for name in LESSONS:
        text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
        files.append(File.generated(config, f"source/notebooks/{name}.ipynb", content=text))
    waiting = {file.src_uri: file.content_string for file in files.documentation_pages()}
    done: set[str] = set()
    while waiting:
        uri, text = waiting.popitem()
        for target in outside(uri, text) - done:
            done.add(target)
            page = source_page(ROOT / target)
            files.append(File.generated(config, f"source/{target}.md", content=page))
            if target.endswith((".md", ".ipynb")):
                waiting[f"../{target}"] = page
    return files


def outside(uri: str, text: str) -> set[str]:
    """Files of the repository outside docs/ that a page links to, by their path from the root."""
    folder = posixpath.join("docs", posixpath.dirname(uri))
    found = set()
    for part in FENCE.split(text)[::2]:
        for _, target, _, _ in LINK.findall(part):
            path = posixpath.normpath(posixpath.join(folder, target))
            if ":" not in target and not path.startswith(("docs/", "..")) and (ROOT / path).is_file():
                found.add(path)
    return found


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository at their pages."""
    uri = page.file.src_uri
    # A source page stands where the file it shows stands, as far as its own links are concerned.
    here = uri.removeprefix("source/").removesuffix(".md") if uri.startswith("source/") else f"docs/{uri}"
    folder, out = posixpath.dirname(here), posixpath.dirname(uri)

    def moved(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups()
        if ":" in target or target.startswith("/"):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        inside = path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"
        if files.get_file_from_path(inside) is None:
            if (ROOT / path).is_dir():
                return match[0].split("](")[0] + f"]({posixpath.relpath('how/index.md', out or '.')})"
            return match[0]
        return f"{opening}{posixpath.relpath(inside, out or '.')}{anchor or ''}{closing}"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    if uri.startswith("how/") and files.get_file_from_path(api := f"reference/{posixpath.basename(uri)}") is not None:
        parts.append(f"\n\nIts functions and classes: [API]({posixpath.relpath(api, out)}).\n")
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw diagrams into the page, where they take its colors."""

    def drawn(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.dest_uri), match["src"]))
        svg = ROOT / "docs" / path
        alt = re.search(r'alt="([^"]*)"', match[0])
        label = f'<svg class="diagram" role="img" aria-label="{alt[1] if alt else ""}" '
        if not svg.is_file():
            return match[0]
        return f'<span class="drawing">{svg.read_text(encoding="utf-8").replace("<svg ", label, 1)}</span>'

    html = re.sub(r'<img [^>]*src="(?P<src>[^"]+\.svg)"[^>]*>', drawn, html)
    parts = BLOCK.split(html)
    parts[::2] = [INLINE.sub(unbroken, part) for part in parts[::2]]
    return SHELL.sub(lambda block: re.sub(r">[^<]+<", lambda text: whole_words(text[0]), block[0]), "".join(parts))


def unbroken(code: re.Match[str]) -> str:
    """Inline code whose words with a hyphen stay whole."""
    return f"<code>{whole_words(code[1])}</code>"


def whole_words(text: str) -> str:
    """Keep words with a hyphen whole: browsers break a line after one, and tear flags apart."""
    return HYPHENATED.sub(r"<span class=whole>\g<0></span>", text)


def reference(room: str) -> str:
    """The page of API of a room: its public modules, each by its docstring and its public names."""
    doc = docstring(PACKAGE / room / "__init__.py")
    lines = [f"# {room}", "", doc, "", f"How it works: [{room}](../how/{room}.md).", ""]
    for path in sorted((PACKAGE / room).glob("*.py")):
        if not path.stem.startswith("_"):
            lines += [f"::: groundup.{room}.{path.stem}", ""]
    return "\n".join(lines)


@cache
def docstring(path: Path) -> str:
    """The docstring of a module."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def source_page(path: Path) -> str:
    """A file of the repository as a page that the search leaves out."""
    name = path.relative_to(ROOT).as_posix()
    head = "---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return head + text
    if path.suffix == ".ipynb":
        lesson = path.parent == NOTEBOOKS
        return (LESSON_HEAD if lesson else head) + notebook_page(json.loads(text), path.name if lesson else "")
    language = LANGUAGES.get(path.suffix, "text")
    return f"{head}# {name}\n\n{fenced(text, language)}\n"


def fenced(text: str, language: str) -> str:
    """A block of code that may itself hold fences."""
    marks = "`" * (max([2, *map(len, re.findall(r"`{3,}", text))]) + 1)
    return f"{marks}{language}\n{text.rstrip()}\n{marks}"


def notebook_page(notebook: dict[str, Any], download: str = "") -> str:
    """A notebook to be read: its words, its code, what the code printed and drew.

    Args:
        notebook: As JSON.
        download: Where the notebook itself lies beside the page; there is no button without.
    """
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(drawn_formulas(text) if cell["cell_type"] == "markdown" else fenced(text, "python"))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                png = "".join(data["image/png"]).replace("\n", "")
                alt = html.escape(cell["metadata"].get("alt", ""))
                parts.append(f'<img alt="{alt}" src="data:image/png;base64,{png}">')
            elif said := "".join(output.get("text", data.get("text/plain", []))):
                said = re.sub(r"\x1b\[[0-9;]*m", "", said).rstrip()
                kind = "out verdict" if VERDICT.match(said) else "out"
                parts.append(f'<pre class="{kind}">{html.escape(said)}</pre>')
        if download and len(parts) == 1:
            parts.append(
                f'<p class="doors"><a class="md-button" href="{download}" download>Download this notebook</a></p>\n\n'
                "Open it in Jupyter, or in Colab by File, Upload notebook."
            )
    return "\n\n".join(parts) + "\n"


def drawn_formulas(text: str) -> str:
    """LaTeX between dollars as MathML, which browsers draw without a script."""

    def drawn(match: re.Match[str]) -> str:
        own_line = match[1] == "$$"
        formula = mathml(" ".join(match[2].split()), display="block" if own_line else "inline")
        return f'<span class="formula">{formula}</span>' if own_line else formula

    return FORMULA.sub(drawn, text)
