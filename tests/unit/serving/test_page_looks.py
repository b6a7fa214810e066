"""How the page looks where a picture is the only other proof: colors that stay, what can be scrolled aside."""

import json

import pytest

from groundup.checkpoint.model_folder import save_model
from page_runs import TOKENIZER, model_of, served_page


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
