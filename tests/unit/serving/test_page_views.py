"""The page in a real browser, over a run of a few kept steps: what it shows against what is computed here."""

import json
import shlex
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from groundup.checkpoint.model_folder import save_model
from groundup.config.model import GPTConfig
from groundup.inspection.cell import explain_cell
from groundup.inspection.trace import trace
from groundup.model.gpt import GPT
from groundup.playground import trainings
from groundup.playground.trainings import _Training
from groundup.tokenizer.bpe import ByteBPE
from page_runs import STEPS, TABS, TEXT, TOKENIZER, cells, model_of, probability, served_page, texts, wait_for_names

SVG = "{http://www.w3.org/2000/svg}"


def test_the_slider_shows_what_each_step_expects_and_writes(open_page):
    page = open_page(tab="growth")
    slider = page.get_by_role("slider", name="step of training")
    idx = torch.tensor([TOKENIZER.encode(TEXT)])
    for at, step in enumerate(STEPS):
        slider.fill(str(at))
        expected = model_of(step)(idx)[0, -1].softmax(-1)
        table = page.locator("table").filter(has_text=f"probability of the next token at step {step}")
        page.wait_for_function("() => !document.querySelector('.growing').innerText.endsWith('...')")
        wait_for_names(page)
        rows = [row[:2] for row in cells(table)]
        assert len(rows) > 10
        for token, told in rows[:-1]:
            p = expected[TOKENIZER.encode(token.replace("·", " ").replace("↵", "\n"))[0]].item()
            assert probability(told) == pytest.approx(p, rel=0.07, abs=6e-5)
        assert sum(probability(told) for _, told in rows) == pytest.approx(1, abs=0.01)
        page.wait_for_function(f"() => location.hash.includes('step={step}')")
    page.get_by_role("button", name="2", exact=True).click()  # above its column
    assert slider.input_value() == "2"
    assert page.get_by_text("over all kept steps").is_visible()


def test_a_cell_is_explained_with_the_numbers_of_the_model(open_page):
    page = open_page(tab="attention", head="1.1")
    matrix = page.get_by_role("img", name="layer 1 head 1").first
    matrix.wait_for()
    box = matrix.bounding_box()
    T = len(TEXT)
    page.mouse.click(box["x"] + 4.5 * box["width"] / T, box["y"] + 8.5 * box["height"] / T)
    explained = page.get_by_role("region", name="This cell, explained")
    explained.get_by_text("softmax", exact=True).wait_for()
    model = model_of(STEPS[-1])
    cell = explain_cell(trace(model, torch.tensor(TOKENIZER.encode(TEXT))), layer=1, head=1, row=8, column=4)
    told = explained.inner_text().replace("\u2212", "-")
    assert f"= {cell.score:.4g}" in told
    weight = explained.locator("li").nth(3).locator("p.sum b").inner_text()
    assert probability(weight) == pytest.approx(cell.weight, rel=0.06)
    page.wait_for_function("() => location.hash.includes('cell=8.4')")
    assert explained.locator(".strip").first.locator("i").count() == cell.query.shape[0]
    matrix.focus()
    page.keyboard.press("ArrowLeft")  # from the cell that is chosen, or the pointer's
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('cell=8.3')")


@pytest.mark.slow
@pytest.mark.parametrize("tab", TABS)
def test_nothing_is_wider_than_a_phone(open_page, tab):
    page = open_page(width=390, tab=tab, head="0.1", cell="8.4")
    page.wait_for_selector(".picture")
    page.wait_for_load_state("networkidle") if tab != "slots" else page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    if tab == "training":
        assert page.locator(".scroll:has(.runs)").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_kept_step_is_looked_into_and_the_address_brings_it_back(open_page):
    page = open_page(tab="lens")
    page.locator(".picker select").nth(1).select_option("1")
    page.wait_for_function("() => location.hash.includes('mine%401')")
    again = open_page(tab="lens", model="mine@1")
    again.get_by_text("· step 1").wait_for()
    assert again.locator(".picker select").nth(1).input_value() == "1"


def test_two_steps_are_compared_side_by_side(open_page):
    page = open_page(tab="compare", other="mine@1")
    idx = torch.tensor([TOKENIZER.encode(TEXT)])
    logits = [model_of(step)(idx)[0] for step in (STEPS[-1], 1)]
    losses = [torch.nn.functional.cross_entropy(each[:-1], idx[0, 1:]).item() for each in logits]
    told = page.locator(".numbers b")
    told.nth(1).wait_for()
    assert [float(each) for each in texts(told)] == pytest.approx(losses, rel=1e-3)
    table = page.locator("table.wider")
    table.wait_for()
    wait_for_names(page)
    for token, mine, _, others, _ in cells(table):
        i = TOKENIZER.encode(token.replace("·", " ").replace("↵", "\n"))[0]
        for told_p, each in zip((mine, others), logits, strict=True):
            assert probability(told_p) == pytest.approx(each[-1].softmax(-1)[i].item(), rel=0.07, abs=6e-5)
    page.locator(".picker select").nth(2).select_option("other")  # another run
    page.wait_for_function("() => location.hash.includes('other=other')")
    page.get_by_role("heading", name="other writes").wait_for()


def test_a_picture_is_saved_as_what_is_on_the_screen(open_page, tmp_path):
    page = open_page(tab="attention", head="0.1")
    button = page.get_by_role("button", name="layer 0 head 1 as SVG")
    button.wait_for()
    with page.expect_download() as told:
        button.click()
    told.value.save_as(tmp_path / "map.svg")
    root = ElementTree.parse(tmp_path / "map.svg").getroot()
    cells = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "1"]
    assert sum(int(each.get("width")) for each in cells) == len(TEXT) ** 2
    assert len({each.get("fill") for each in cells}) > 8  # weights differ
    text = page.get_by_role("button", name="attention of layer 0 head 1 on the text as")
    with page.expect_download() as told:
        text.nth(1).click()
    told.value.save_as(tmp_path / "text.svg")
    words = [each.text for each in ElementTree.parse(tmp_path / "text.svg").getroot().iter(f"{SVG}text")]
    assert "".join(words) == TEXT.replace(" ", "·")
    with page.expect_download() as told:
        text.nth(0).click()
    told.value.save_as(tmp_path / "text.png")
    image = np.asarray(Image.open(tmp_path / "text.png").convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 8  # something is painted


def test_every_run_has_its_curve_and_its_samples(open_page, tmp_path):
    page = open_page(tab="training")
    table = page.locator("table.runs")
    table.locator("tbody tr").nth(1).wait_for()
    assert [row[1:5] for row in cells(table)] == [
        ["mine", "finished", "4 of 4", "1.1"],
        ["other", "finished", "3 of 3", "1.6"],
    ]
    page.get_by_text("other: validation", exact=True).wait_for()
    page.get_by_role("slider", name="sample of mine").fill("0")
    assert page.locator("pre.sample").inner_text() == "mine says <b>0</b>"
    page.get_by_role("button", name="Samples").nth(1).click()
    page.get_by_role("heading", name="what other wrote at step 3").wait_for()
    page.get_by_role("checkbox", name="draw other").uncheck()
    page.get_by_text("a bigram", exact=True).wait_for()  # one run alone is held against it

    def drawn():
        with page.expect_download() as told:
            page.get_by_role("button", name="loss of runs as SVG").click()
        told.value.save_as(tmp_path / "curves.svg")
        return list(ElementTree.parse(tmp_path / "curves.svg").getroot().iter(f"{SVG}polyline"))

    lines = drawn()
    assert [len(line.get("points").split()) for line in lines] == [4, 4, 3]
    heights = [float(point.split(",")[1]) for point in lines[0].get("points").split()]
    falls = np.diff(heights) / np.diff(STEPS)
    assert falls == pytest.approx([falls[0]] * 3, rel=0.01)  # half a nat per step, and the axis goes up
    assert falls[0] > 0
    page.get_by_role("checkbox", name="logarithmic").check()
    assert [len(line.get("points").split()) for line in drawn()] == [3, 3, 2]  # all but step 0
    page.get_by_role("button", name="Look inside").click()
    page.wait_for_function("() => location.hash.includes('model=other') && location.hash.includes('tab=write')")


def test_a_run_is_started_and_stopped_from_the_page(open_page, monkeypatch):
    """Its process is one that only waits; real ones are trained in test_trainings.py."""
    words = []

    def begin(name, given):
        words.append([name, *given])
        waits = (
            "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print(flush=True); time.sleep(100)"
        )
        process = subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE)
        process.stdout.readline()  # from here on a signal is a request to stop
        return _Training(name if len(words) == 1 else "other", process, tempfile.TemporaryFile())

    monkeypatch.setattr(trainings, "_begin", begin)
    page = open_page(tab="training")
    start = page.get_by_role("button", name="Start", exact=True)
    start.wait_for()
    page.get_by_label("steps", exact=True).fill("60")
    page.locator(".starter select").nth(1).select_option("small")
    start.click()
    page.get_by_text("page-1 is starting").wait_for()  # no folder of it yet
    assert words[0][0] == "page-1"
    assert {"--max-steps=60", "--model.n-layer=3", "--seed=1337"} <= set(words[0])
    assert start.is_disabled()
    page.get_by_role("button", name="Stop and save").click()
    page.get_by_text("page-1 was stopped before there was anything to save").wait_for()
    assert start.is_enabled()
    start.click()
    page.get_by_text("other is being trained").wait_for()  # its folder is there
    page.get_by_role("button", name="Stop and save").click()
    page.get_by_text("other was stopped and is saved").wait_for()


def test_slots_are_lanes_that_fill_while_texts_are_written(open_page, url):
    page = open_page(tab="slots")
    page.get_by_role("button", name="Send 6 texts of different lengths").click()
    table = page.locator("table.slots")
    table.locator("tbody tr").nth(5).wait_for()
    for _ in range(100):  # until all are written, and the page has seen the last tick
        rounds = page.evaluate("() => fetch('/api/slots').then((answer) => answer.json())")["rounds"]
        last = {str(slot): f"{start + n} of 32" for *_, lanes in rounds for slot, _, _, start, n in lanes}
        told = {row[0]: row[3] for row in cells(table)}
        if told == last and "31 of 32" in told.values():
            break
        page.wait_for_timeout(100)
    assert told == last
    assert len(told) >= 6
    painted = page.locator(".lanes canvas").evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert painted > 8


def test_what_is_on_the_screen_is_copied_as_a_program_that_gives_it(open_page, url):
    page = open_page(tab="surprise")
    page.get_by_role("button", name="Copy as Python").click()
    page.get_by_text("Python copied").wait_for()
    known = {}
    exec(page.evaluate("navigator.clipboard.readText()"), known)
    logits = model_of(STEPS[-1])(torch.tensor([TOKENIZER.encode(TEXT)]))[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(TOKENIZER.encode(TEXT)[1:]), reduction="none")
    assert known["answer"]["loss"] == pytest.approx(losses.tolist(), rel=1e-3)
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_text("curl copied").wait_for()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["curl", f"{url}api/surprise"]
    assert json.loads(words[-1]) == {"model": "mine", "tokens": TOKENIZER.encode(TEXT)}


def test_a_text_that_fills_the_context_goes_on(open_page):
    page = open_page(tab="write")
    for n in (33, 33 + 17, 33 + 2 * 17):  # the context is 32; after it, its last half is read again
        page.get_by_role("button", name="Write on").click()
        page.get_by_text(f"{n} tokens").wait_for()
    assert len(page.get_by_role("textbox", name="text").input_value()) == n


SCRIPT = "<script>owned=1</script>"
HOSTILE = [
    SCRIPT,
    '<img src=x onerror="owned=1">',
    "\u202e</pre>",
    "\x1b[2J\0",
    '"><svg onload=owned=1>',
    "{{owned=1}}",
]
"""Tokens of a model that nobody should trust."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose model writes HOSTILE round and round, and whose name is no better."""
    merges, ids = [], {bytes([i]): i for i in range(256)}
    for token in HOSTILE:
        data = token.encode()
        for end in range(2, len(data) + 1):
            if data[:end] not in ids:
                merges.append((ids[data[: end - 1]], data[end - 1]))
                ids[data[:end]] = 256 + len(merges) - 1
    tokenizer = ByteBPE(merges)
    n = tokenizer.vocab_size
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=n, block_size=32, vocab_size=n)).eval()
    with torch.no_grad():  # blocks add nothing; a place says what comes next, whatever stands there
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.weight.fill_(1)
        model.wte.weight.copy_(torch.eye(n) * 10)
        for place in range(32):
            model.wpe.weight[place, ids[HOSTILE[place % len(HOSTILE)].encode()]] = 1000
    folder = tmp_path_factory.mktemp("runs")
    run = folder / "<img src=x onerror='owned=1'>\u202e\"&\x1b[2J"
    for path in (run / "model", run / "growth" / "step-0000001"):
        save_model(path, model, tokenizer, {"step": 1, "data": SCRIPT})
    rows = [{"step": step, "train/loss": 1.0, "val/loss": 1.0, "sample": "".join(HOSTILE)} for step in (0, 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "run.json").write_text("{}")
    (run / "config.json").write_text('{"max_steps": 1}')
    with served_page(run) as address:
        yield address


@pytest.mark.fault(
    "F19",
    "a model that writes <script>, attributes, terminal escapes and marks that turn the direction of writing, in a run"
    " whose name and samples hold the same",
    "the page shows them as text; nothing of them runs, in any of its views",
)
@pytest.mark.parametrize("tab", [TABS[0], *(pytest.param(tab, marks=pytest.mark.slow) for tab in TABS[1:])])
def test_what_a_model_writes_is_text(open_page, hostile, tab):
    page = open_page(server=hostile, tab=tab, text=SCRIPT, head="0.0")
    page.wait_for_selector(".picture")
    page.wait_for_load_state("networkidle") if tab != "slots" else page.wait_for_timeout(500)
    if tab == "write":
        page.get_by_role("button", name="Four at once").click()
        page.locator("pre").nth(3).wait_for()
        page.wait_for_function("() => document.querySelector('.samples').innerText.includes('</script>')")
        wait_for_names(page)
        shown = [each.replace(" ", "·") for each in HOSTILE]
        shown[2], shown[3] = r"\u202e</pre>", r"\u001b[2J\u0000"
        assert page.locator("button.token").first.inner_text() in shown
    if tab == "training":
        assert page.locator("pre.sample").inner_text().startswith(SCRIPT)
    assert page.evaluate("typeof owned") == "undefined"
    assert page.locator("main script, main img, [onload], [onerror]").count() == 0


def test_a_text_goes_on_without_parts_as_soon_as_they_are_off(open_page, url):
    page = open_page(tab="heads", off="1.0", writing="1")
    headings = {"whole": "all parts", "without": "without these parts"}

    def wait_for(**off):
        ids = TOKENIZER.encode(TEXT)
        body = {"tokens": ids, "seed": 1, "temperature": 1, "instead": "mean", "heads": [], "mlps": []} | off
        expected = page.request.post(f"{url}api/writing", data=body, headers={"Sec-Fetch-Site": "same-origin"}).json()
        page.wait_for_function(
            "texts => JSON.stringify([...document.querySelectorAll('.samples pre')].map((each) => each.textContent))"
            " === JSON.stringify(texts)",
            arg=[expected[name] for name in headings],
        )
        return expected

    one = wait_for(heads=[[1, 0]])
    assert one["whole"] != one["without"]
    page.get_by_role("button", name="The other heads off").click()
    page.wait_for_function("() => location.hash.includes('off=0.0%2C0.1%2C1.1')")
    wait_for(heads=[[0, 0], [0, 1], [1, 1]])
    page.get_by_role("button", name="layer 1").click()
    wait_for(heads=[[0, 0], [0, 1], [1, 0], [1, 1]], mlps=[1])
    page.get_by_role("button", name="layer 1").click()
    wait_for(heads=[[0, 0], [0, 1]])
    page.get_by_role("button", name="Write no more").click()
    page.locator(".samples").wait_for(state="detached")
