"""The report in a real browser: what answers to the pointer and to keys, and what fits."""

import contextlib
import json

import pytest
from tests.unit.records.test_report import PORTRAIT, ROWS, TIMED, folder

import needs
from groundup.records.explain import TERMS
from groundup.records.report import write_report

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def opened(tmp_path, *, rows=ROWS, width=390):
    path = folder(tmp_path, rows=rows)
    (path / "portrait.json").write_text(json.dumps(PORTRAIT))
    write_report(path)
    with needs.browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 844}, has_touch=True)
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto((path / "report.html").as_uri())
        yield page
        assert errors == []


@pytest.fixture
def page(tmp_path):
    with opened(tmp_path) as page:
        yield page


@pytest.mark.parametrize("rows", [ROWS, TIMED], ids=["samples", "times"])
@pytest.mark.parametrize("width", [320, 390])
def test_nothing_is_wider_than_a_phone(tmp_path, width, rows):
    with opened(tmp_path, rows=rows, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_curve_says_what_is_under_the_pointer(page):
    box = page.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    assert page.locator(".says").inner_text() == "training, smoothed 2.000\nvalidation 1.234"
    page.mouse.move(0, 0)
    assert not page.locator(".says").is_visible()


def test_what_a_finger_asks_the_curve_stays_to_be_read(page):
    box = page.locator(".plot").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 2, box["y"] + 20)
    assert page.locator(".says").inner_text() == "training, smoothed 2.000\nvalidation 1.234"


def test_the_slider_shows_each_sample_and_its_place(page):
    assert page.locator(".sample:visible pre").inner_text() == "ROMEO:\nlast & best é"
    page.locator("input[type=range]").fill("0")
    assert page.locator(".sample:visible pre").inner_text() == "first <script>alert(1)</script>"
    assert page.locator(".here").evaluate("here => here.style.left") == "50%"


def test_a_token_that_is_tapped_shows_where_the_head_looks(page):
    tokens = page.locator(".looks i")
    tokens.nth(1).click()
    shades = tokens.evaluate_all("tokens => tokens.map(token => getComputedStyle(token).backgroundColor)")
    opacity = [float(shade.rstrip(")").split(",")[3]) if shade.count(",") == 3 else 1.0 for shade in shades]
    assert opacity[0] > opacity[1] > 0 == opacity[2]
    assert [token.evaluate("token => token.className") for token in tokens.all()] == ["", "chosen", ""]


def test_arrow_keys_go_from_token_to_token(page):
    tokens = page.locator(".looks i")
    page.locator(".looks i[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    assert tokens.evaluate_all("tokens => tokens.map(token => token.ariaSelected)") == ["false", "true", "false"]
    assert tokens.evaluate_all("tokens => tokens.map(token => token.ariaLabel)")[:2] == ["a: 75.0%", "<: 25.0%"]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert [token.get_attribute("class") for token in tokens.all()] == ["chosen", "", ""]
    assert page.locator(".looks i[tabindex='0']").count() == 1


def test_the_numbers_of_each_figure_can_be_read(page):
    shown = page.locator("summary", has_text="as a table")
    for summary in shown.all():
        summary.click()
    rows = page.locator(".scroll tr")
    read = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    assert read == [
        ["tokens learned from", "training, smoothed", "validation"],
        ["1,000", "3.000", ""],
        ["2,000", "2.000", "1.234"],
        ["token", "surprise"],
        ["a", ""],
        ["<", "0.50 nats"],
        ["line break", "3.00 nats"],
        ["token", "what line break (3) takes from it"],
        ["a (1)", "0.0%"],
        ["< (2)", "100.0%"],
        ["line break (3)", "0.0%"],
    ]
    page.locator(".looks i").nth(1).click()
    assert rows.last.locator("th, td").all_inner_texts() == ["< (2)", "25.0%"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_term_is_explained_on_a_tap(page):
    page.locator(".term summary").first.click()
    explained = page.locator(".term p").first
    assert "negative logarithm" in explained.inner_text()
    box = explained.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_what_explains_a_term_gives_way(page):
    """It lies over what is below it, which is the next question perhaps."""
    said = page.locator(".term p:visible")
    page.get_by_label("what does loss mean?").click()
    page.get_by_label("what does surprise mean?").press("Enter")
    assert said.all_inner_texts() == [TERMS["surprise"]]
    page.keyboard.press("Escape")
    assert said.count() == 0
    page.get_by_label("what does loss mean?").click()
    page.locator(".term p:visible").click()
    assert said.count() == 1
    page.locator("h1").click()
    assert said.count() == 0


def test_a_finger_hits_a_question(page):
    for question in page.locator(".term summary").all():
        box = question.bounding_box()
        assert min(box["width"], box["height"]) >= 24
