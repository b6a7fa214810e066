"""The page for those who hear it, who use keys alone, who need contrast or stillness, who copy its requests."""

import json
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import torch

from groundup.inspection.trace import trace
from page_runs import STEPS, TABS, TEXT, TOKENIZER, cells, model_of

READY = {
    "surprise": {"at": 4},
    "attention": {"head": "0.1", "cell": "8.4"},
    "lens": {"point": "1.3"},
    "heads": {"off": "0.1"},
}
CONTROLS = (
    "button|slider|textbox|combobox|checkbox|radio|spinbutton|tab|tablist|tabpanel|img|link|option|listbox|region|table"
)
CONTRAST = """() => {
  const parts = (color) => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => a * x + (1 - a) * below[i]);
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    const below = element.parentElement ? ground(element.parentElement) : [255, 255, 255];
    return over(parts(getComputedStyle(element).backgroundColor), below);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); ) {
    const at = node.parentElement;
    if (!node.data.trim() || at.closest("svg, .hidden, :disabled, option, canvas") || !at.checkVisibility()) continue;
    const below = ground(at);
    const text = over(parts(getComputedStyle(at).color), below);
    const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), at.outerHTML.slice(0, 80)]);
  }
  return found;
}"""
"""Of every text on the page, with what lies below it: their contrast as WCAG 2 counts it."""
STOPS = """() => {
  const all = [...document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")]
    .filter((each) => !each.disabled && each.checkVisibility());
  const own = all.filter((each) => each.tabIndex >= 0 && !(each.type === "radio" && !each.checked));
  own.forEach((each, i) => (each.dataset.stop = i));
  const passed = all.filter((each) => each.tabIndex < 0 && !each.closest("[role=tablist], [role=listbox], .lens"));
  return [own.length, passed.map((each) => each.outerHTML.slice(0, 90))];
}"""
FOCUSED = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  const seen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  return [document.activeElement.dataset.stop, seen, document.activeElement.outerHTML.slice(0, 90)];
}"""
MOVING = """() => [...document.querySelectorAll("*")].filter((each) => {
  const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(each);
  return parseFloat(transitionDuration) > 0 || animationName !== "none" || scrollBehavior === "smooth";
}).length"""
LISTEN = """() => {
  window.heard = [];
  new MutationObserver((all) => {
    for (const { target } of all) {
      const live = (target.parentElement ?? target).closest("[role=status], [role=alert], [aria-live]");
      if (live && live.ariaLive !== "off" && live.innerText) heard.push(live.innerText);
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""


def open_ready(open_page, tab, **more):
    """A view with everything it shows once it has its answers."""
    page = open_page(tab=tab, **READY.get(tab, {}), **more)
    page.wait_for_selector(".picture")
    if tab == "heads":
        page.get_by_role("button", name="Which heads matter?").click()
        page.locator(".switches small").nth(3).wait_for()
    if tab == "growth":
        page.wait_for_function(
            "() => { const losses = [...document.querySelectorAll('.over tbody tr:last-child td')];"
            " return losses.length > 0 && losses.every((each) => each.innerText); }"
        )
    if tab == "compare":
        page.locator("figure").nth(1).wait_for()
    if tab == "attention":
        page.get_by_text("what the detectors say").wait_for()
        page.get_by_text("softmax", exact=True).wait_for()
    if tab == "push":
        page.get_by_role("heading", name="in the embedding").wait_for()
    if tab == "training":
        for says in ("curves of mine as a table", "curves of other as a table", "train one here", "what mine wrote"):
            page.get_by_text(says).wait_for()
        page.get_by_role("button", name="Start", exact=True).wait_for()
    if tab == "slots":
        page.get_by_role("button", name="Send 6 texts").click()
        page.locator("table.slots tbody tr").nth(5).wait_for()
    return page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_a_checker_of_accessibility_finds_nothing(open_page, tab, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = open_ready(open_page, tab, scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in found] == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_all_text_has_the_contrast_of_aa_on_what_lies_below_it(open_page, tab, scheme):
    found = open_ready(open_page, tab, scheme=scheme).evaluate(CONTRAST)
    assert len(found) > 20
    assert [each for each in found if each[0] < 4.5] == []


@pytest.mark.slow
@pytest.mark.parametrize("tab", TABS)
def test_everything_that_is_heard_has_a_name(open_page, tab):
    heard = open_ready(open_page, tab).locator("body").aria_snapshot().splitlines()
    assert len(heard) > 30
    assert [line for line in heard if re.match(rf"\s*- '?({CONTROLS})(?! [\"/])\b", line)] == []
    main = [line for line in heard if "tabpanel" in line]
    assert len(main) == 1


@pytest.mark.slow
@pytest.mark.parametrize("tab", TABS)
def test_keys_alone_reach_everything_and_show_where_they_are(open_page, tab):
    page = open_ready(open_page, tab)
    stops, passed = page.evaluate(STOPS)
    assert passed == []  # what Tab passes by, arrow keys reach: below
    visited = []
    for _ in range(stops + 1):
        page.keyboard.press("Tab")
        at, outlined, which = page.evaluate(FOCUSED)
        assert outlined or at is None, which
        visited.append(at)
    assert [at for at in visited if at is None] == [None]  # the browser's own bar
    first = visited.index("0")
    assert [int(at) for at in visited[first:] + visited[:first] if at is not None] == list(range(stops))


def test_arrow_keys_go_from_view_to_view_and_from_token_to_token(open_page):
    page = open_page(tab="surprise")
    page.get_by_role("tab", name="Surprise").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tabpanel", name="Attention").wait_for()
    page.keyboard.press("End")
    page.get_by_role("tabpanel", name="Training").wait_for()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    token = page.get_by_role("listbox", name="The text, tinted by surprise").get_by_role("option")
    token.first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    idx = torch.tensor([TOKENIZER.encode(TEXT)])
    loss = torch.nn.functional.cross_entropy(model_of(STEPS[-1])(idx)[0, 5:6], idx[0, 6:7]).item()
    said = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert said.startswith("w: ")
    assert float(said.split()[1]) == pytest.approx(loss / np.log(2), rel=1e-3)
    page.wait_for_function("() => location.hash.includes('at=6')")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("space: ")


TOUCHED = """() => [...document.querySelectorAll("button, select, input, summary")].filter((each) => {
  const target = each.matches("label [type=checkbox]") ? each.closest("label") : each;
  const { width, height } = target.getBoundingClientRect();
  return each.checkVisibility() && Math.min(width, height) < 24;
}).map((each) => each.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("tab", ["training", "growth", "attention"])
def test_everything_is_large_enough_to_be_touched(open_page, tab):
    page = open_ready(open_page, tab, width=390)
    assert page.evaluate(TOUCHED) == []


def test_a_cell_is_chosen_by_its_tokens(open_page):
    page = open_page(tab="attention", head="0.1")
    page.get_by_role("combobox", name="row").select_option("d (10)")
    page.get_by_role("combobox", name="column").select_option("w (6)")
    page.get_by_role("heading", name="what d (10) takes from w (6)").wait_for()
    page.get_by_role("combobox", name="row").select_option("l (2)")
    page.get_by_role("heading", name="what l (2) takes from l (2)").wait_for()


def test_the_page_is_as_large_as_the_browser_says(browser, url):
    flags = ["--no-sandbox", "--blink-settings=defaultFontSize=32"]
    large = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=flags)
    page = large.new_page()
    page.goto(url)
    page.wait_for_selector("nav")
    assert page.locator("body").evaluate("each => getComputedStyle(each).fontSize") == "32px"
    large.close()


def test_a_table_behind_a_matrix_holds_its_weights(open_page):
    page = open_page(tab="attention", head="1.0")
    figure = page.locator("figure").filter(has_text="layer 1 head 0")
    figure.get_by_text("as a table").click()
    table = figure.locator("table")
    table.locator("tbody tr").nth(len(TEXT) - 1).wait_for()
    weights = trace(model_of(STEPS[-1]), torch.tensor(TOKENIZER.encode(TEXT))).attention[1, 0]
    for r, (_, *shown) in enumerate(cells(table)):
        told = [0 if not each else float(each.strip("> %")) / 100 if "%" in each else 0.0004 for each in shown]
        np.testing.assert_allclose(told, weights[r].numpy(), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tab", TABS)
def test_nothing_moves_for_those_who_asked_for_stillness(open_page, tab):
    page = open_ready(open_page, tab, motion="reduce")
    assert page.evaluate(MOVING) == 0


def test_texts_and_problems_are_told_politely_and_once(open_page):
    page = open_page(tab="write")
    page.evaluate(LISTEN)
    page.get_by_role("button", name="Write on").click()
    page.get_by_text("characters written").wait_for()
    heard = page.evaluate("heard")
    assert len(heard) <= 4
    assert heard[0] == "writing"
    assert re.fullmatch(r"text of \d+ characters written", heard[-1])
    page.get_by_role("textbox", name="text").fill("hello €")
    problem = page.get_by_role("status").filter(has_text="€")
    problem.wait_for()
    assert page.locator("[role=alert], [aria-live=assertive]").count() == 0
    page.get_by_role("textbox", name="text").fill("hello")
    problem.wait_for(state="hidden")


@pytest.mark.slow
@pytest.mark.parametrize("tab", TABS)
def test_what_every_view_copies_runs_and_both_ways_say_the_same(open_page, tab, tmp_path):
    page = open_ready(open_page, tab)
    pairs = page.get_by_role("button", name="Copy as Python").count()
    assert pairs >= 1
    for i in range(pairs):
        answers = []
        for language in ("Python", "curl"):
            page.get_by_role("button", name=f"Copy as {language}").nth(i).click()
            page.get_by_text(f"{language} copied").wait_for()
            written = page.evaluate("navigator.clipboard.readText()")
            answers.append(run_python(written) if language == "Python" else run_curl(written, tmp_path))
            page.get_by_text(f"{language} copied").wait_for(state="hidden")
        assert answers[0] == answers[1]


def timeless(answer):
    """Without what differs from request to request."""
    return {name: value for name, value in answer.items() if name not in ("id", "created", "rounds", "usage")}


def run_python(written):
    known = {}
    if "openai" in written:
        pytest.importorskip("openai")
    exec(written, known)
    if "weights" in known:
        return known["weights"].tolist()
    answer = known["answer"]
    if not isinstance(answer, dict):
        return answer.choices[0].text
    return timeless(answer)


def run_curl(written, folder):
    words = shlex.split(written)
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    done = subprocess.run([*words, "--silent", "--fail-with-body"], capture_output=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout
    if "/api/attention" in words[1]:
        n = len(json.loads(words[words.index("-d") + 1])["tokens"])
        raw = (folder / words[words.index("--output") + 1]).read_bytes()
        H = len(raw) // (2 * n * n + 4 * n)
        return (np.frombuffer(raw, "<u2", H * n * n).reshape(H, n, n) / 65535).tolist()
    answer = json.loads(done.stdout)
    return answer["choices"][0]["text"] if "choices" in answer else timeless(answer)


def test_the_focus_stays_where_it_was_or_goes_on_from_there(open_page):
    page = open_page(tab="attention", head="0.1", cell="8.4", off="0.1")
    focused = "says => document.activeElement !== document.body && document.activeElement.matches(says)"
    for button, selector in (
        ("Close", ".matrix canvas"),
        ("Take the tour", ".tour"),
        ("Close", ".begin"),
        ("Four at once", "[aria-disabled]"),
    ):
        page.get_by_role("button", name=button, exact=True).press("Enter")
        page.wait_for_function(focused, arg=selector)
    page.get_by_text("4 texts of").wait_for()
    assert page.evaluate(focused, "[aria-disabled=false]")
    page.get_by_role("tab", name="Switch off").click()
    page.get_by_role("button", name="All on").press("Enter")
    page.get_by_text("Press a head or an MLP").wait_for()
    assert page.evaluate(focused, "[aria-disabled=true]")


def test_words_fit_what_they_count(open_page):
    page = open_page(tab="attention", head="0.1", cell="8.4", values="1")
    page.get_by_text("1 other", exact=True).wait_for()
    page.locator(".matrix canvas").first.press("ArrowUp")
    page.locator("figcaption").get_by_text("weight times length").wait_for()
    page.get_by_role("tab", name="Tokens").click()
    page.get_by_role("textbox", name="text").fill("a")
    page.get_by_role("heading", name="mine: 1 token", exact=True).wait_for()
    page.get_by_role("textbox", name="text").fill("")
    page.get_by_text("nothing is written: it begins after ↵").wait_for()
