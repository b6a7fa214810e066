"""How the page looks where a picture is the only other proof: colors that stay, what can be scrolled aside."""

import json
import re

import numpy as np
import pytest

from groundup.checkpoint.model_folder import save_model
from groundup.model.bigram import fit_bigram
from page_runs import TABS, TOKENIZER, model_of, probability, served_page


def write_run(folder, name, started):
    save_model(folder / name / "model", model_of(1), TOKENIZER, {"step": 1})
    rows = [{"step": s, "tokens": s + 1, "train/loss": 3 - s, "val/loss": 3.5 - s} for s in (0, 1)]
    (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / name / "run.json").write_text(json.dumps({"started": started}))
    (folder / name / "config.json").write_text('{"max_steps": 1}')


def colors(page):
    """The color of each run, as it is painted in the table."""
    return page.locator("table.runs").evaluate(
        "table => Object.fromEntries([...table.tBodies[0].rows].map((row) =>"
        " [row.cells[1].textContent, getComputedStyle(row.querySelector('.swatch')).backgroundColor]))"
    )


def test_a_run_keeps_its_color_when_another_one_comes_before_it(open_page, tmp_path):
    write_run(tmp_path, "middle", "2026-01-02T00:00:00+00:00")
    write_run(tmp_path, "zebra", "2026-01-01T00:00:00+00:00")
    with served_page(tmp_path / "middle") as address:
        page = open_page(server=address, tab="training")
        page.locator("table.runs tbody tr").nth(1).wait_for()
        before = colors(page)
        write_run(tmp_path, "a new one", "2026-01-03T00:00:00+00:00")
        page.locator("table.runs tbody tr").nth(2).wait_for()
        after = colors(page)
        page.reload()
        page.locator("table.runs tbody tr").nth(2).wait_for()
        again = colors(page)
        page.close()
    assert list(after) == ["a new one", "middle", "zebra"]
    assert len(set(after.values())) == 3
    assert {name: after[name] for name in before} == before
    assert again == after


def mask(page, selector):
    """Lengths that fade at the two ends of something, in pixels."""
    return page.locator(selector).evaluate(
        "each => ['--before', '--after'].map((name) => parseFloat(getComputedStyle(each).getPropertyValue(name)))"
    )


@pytest.mark.parametrize(
    ("tab", "ends"), [("write", (False, True)), ("heads", (True, True)), ("training", (True, False))]
)
def test_tabs_of_a_phone_fade_where_they_go_on(open_page, tab, ends):
    page = open_page(width=390, tab=tab)
    chosen, strip = (page.locator(selector).bounding_box() for selector in ('[aria-selected="true"]', "[role=tablist]"))
    page.wait_for_function("() => CSS.supports('animation-timeline: scroll()')")
    assert tuple(length > 0 for length in mask(page, "[role=tablist]")) == ends
    fades = [40 if each else 0 for each in ends]
    assert chosen["x"] >= strip["x"] + fades[0] - 1
    assert chosen["x"] + chosen["width"] <= strip["x"] + strip["width"] - fades[1] + 1


def test_what_fits_does_not_fade(open_page):
    page = open_page(width=1280, tab="training")
    page.locator("table.runs tbody tr").nth(1).wait_for()
    for selector in ("[role=tablist]", ".scroll"):
        assert mask(page, selector) == [0, 0]


def test_a_single_sample_has_no_slider(open_page):
    page = open_page(tab="training", sampled="other")
    page.get_by_role("heading", name="what other wrote at step 3").wait_for()
    assert page.get_by_role("slider").count() == 0
    page.get_by_role("button", name="Samples").nth(0).click()
    page.get_by_role("slider", name="sample of mine").wait_for()


def test_a_chart_of_steps_on_a_logarithmic_axis_ends_with_its_last_step(open_page):
    page = open_page(tab="training", log="1", runs="mine")
    page.get_by_text("mine: validation", exact=True).wait_for()
    with page.expect_download() as told:
        page.get_by_role("button", name="loss of runs as SVG").click()
    svg = told.value.path().read_text()
    ends = [
        max(float(point.split(",")[0]) for point in line.split())
        for line in re.findall('polyline points="([^"]+)"', svg)
    ]
    (right,) = {float(x) for x in re.findall(r'<line[^>]* x2="([\d.]+)"', svg) if float(x) > max(ends) - 1}
    assert max(ends) == pytest.approx(right, abs=1)


def test_every_run_of_a_chart_is_named_on_the_screen_and_in_a_saved_picture(open_page, tmp_path):
    for i in range(4):
        write_run(tmp_path, f"run {i}", f"2026-01-0{i + 1}T00:00:00+00:00")
    with (tmp_path / "run 3" / "metrics.jsonl").open("w") as file:
        file.write(json.dumps({"step": 0, "tokens": 1, "train/loss": 3, "val/loss": 3.5}))
    with served_page(tmp_path / "run 0") as address:
        page = open_page(server=address, tab="training")
        for i in range(4):
            page.get_by_text(f"run {i}: validation").wait_for()
            assert not page.get_by_text(f"run {i}: training").is_visible()
        with page.expect_download() as told:
            page.get_by_role("button", name="loss of runs as SVG").click()
        svg = told.value.path().read_text()
        assert svg.count("<circle") == 2 * 3 + 1 + 1  # all of validation, and the only point of a curve
        borders = set(re.findall(r'<rect[^>]* rx="3" fill="none" stroke="([^"]+)"', svg))
        assert borders == set(colors(page).values())
        for name in ("run 0", "run 1", "run 2"):
            page.get_by_role("checkbox", name=f"draw {name}").uncheck()
        page.get_by_role("checkbox", name="logarithmic").check()
        page.get_by_text("Nothing after step 0 yet").wait_for()
        page.close()


def test_what_the_outlined_token_looks_at_most_has_the_full_tint(open_page):
    page = open_page(tab="attention", head="1.0", looker="7")
    page.locator(".looked span").nth(7).wait_for()
    shares = [float(each) for each in page.locator(".looked").evaluate(
        "each => [...each.children].map((one) => one.style.getPropertyValue('--share'))")]  # fmt: skip
    titles = page.locator(".looked").evaluate("each => [...each.children].map((one) => one.title)")
    weights = [0 if title == "0" else probability(title) for title in titles]
    assert max(shares) == 1
    assert shares == pytest.approx([weight / max(weights) for weight in weights], abs=0.01)
    assert f"the full tint is {titles[shares.index(1)]}." in page.locator(".hint").first.inner_text()


def test_while_nothing_is_known_nothing_is_claimed(open_page):
    """Answers that do not come: no view says that there is nothing, and after a moment the page says that it waits."""

    def opened(tab, path):
        page = open_page(tab="write")
        page.locator(".candidates").wait_for()
        page.route(re.compile(rf"/api/{path}(\?|$)"), lambda route: None)
        page.locator(f"#tab-{tab}").click()
        return page

    growth = opened("growth", "steps")
    growth.get_by_text("Looking for kept steps").wait_for()
    training = opened("training", "run")
    training.get_by_text("Reading the curves").wait_for()
    lens = opened("lens", "lens")
    lens.get_by_text("computing ...").wait_for()
    for page in (growth, training, lens):
        page.unroute_all()
        page.reload()
        page.get_by_text("computing ...").wait_for(state="hidden")


@pytest.mark.parametrize(("tab", "path", "shown"), [("slots", "slots", ".lanes"), ("training", "runs", "table.runs")])
def test_an_answer_that_takes_longer_than_a_view_waits_to_ask_again_is_shown(open_page, tab, path, shown):
    page, held = open_page(tab="write"), []
    page.locator(".candidates").wait_for()
    page.route(re.compile(rf"/api/{path}(\?|$)"), lambda route: held.append(route))
    page.locator(f"#tab-{tab}").click()
    page.wait_for_timeout(2500)  # both ask again 2 seconds after an answer, or sooner
    assert len(held) == 1
    held[0].continue_()
    page.locator(shown).wait_for()


@pytest.mark.parametrize(
    ("tab", "path", "shown"),
    [
        ("surprise", "surprise", ".numbers"),
        ("attention", "attention", ".looked"),
        ("lens", "lens", "table.lens"),
        ("heads", "ablation", "table.next"),
        ("push", "contributions", "table.waterfall"),
    ],
)
def test_numbers_of_a_text_leave_with_it(open_page, tab, path, shown):
    """Also where the next text has as many tokens."""
    page = open_page(tab=tab)
    page.locator(shown).wait_for()
    page.route(re.compile(rf"/api/{path}$"), lambda route: None)
    page.get_by_role("textbox", name="text").fill("jelly world")
    page.locator(shown).wait_for(state="detached")
    page.unroute_all()


def test_a_symbol_that_a_model_does_not_know_is_said_of_that_model(open_page):
    page = open_page(tab="tokens", text="a漢")
    page.locator("#view section .hint").wait_for()
    assert "'漢' at position 1 is not among the 27 symbols" in page.locator("#view section").inner_text()


def test_a_table_of_pairs_is_no_error_in_any_view(open_page, tmp_path):
    pairs = fit_bigram(np.array(TOKENIZER.encode("hello world")), TOKENIZER.vocab_size)
    save_model(tmp_path / "pairs", pairs, TOKENIZER, {})
    with served_page(tmp_path / "pairs") as address:
        page = open_page(server=address)
        page.locator(".candidates").wait_for()
        assert "11 tokens; the last one is looked at" in page.locator("#length").inner_text()
        for tab in TABS:
            page.locator(f"#tab-{tab}").click()
            page.wait_for_function("tab => document.title.length && location.hash.includes(`tab=${tab}`)", arg=tab)
            page.wait_for_load_state("networkidle")
            assert page.locator(".problem").inner_text() == "", tab
        page.locator("#tab-write").click()
        page.get_by_role("button", name="Write on").click()
        page.get_by_text("text of 200 characters written").wait_for()
        page.close()


def test_tabs_of_a_phone_wrap_where_nothing_is_to_move(open_page):
    page = open_page(width=390, motion="reduce")
    strip = page.locator("[role=tablist]")
    assert strip.evaluate("each => each.scrollWidth <= each.clientWidth")
    assert mask(page, "[role=tablist]") == [0, 0]
    for each in page.locator("[role=tab]").all():
        assert each.bounding_box()["x"] + each.bounding_box()["width"] <= 390
