"""The page used as a person does: buttons, switches, tokens that are pressed; against what is computed here."""

import json
import shutil

import pytest
import torch

from groundup.checkpoint.model_folder import save_model
from groundup.config.model import GPTConfig
from groundup.inspection.ablation import without
from groundup.inspection.trace import trace
from groundup.model.gpt import GPT
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer
from page_runs import STEPS, TEXT, TOKENIZER, model_of, probability, served_page, texts, wait_for_names, write_runs


@pytest.mark.slow
def test_a_text_is_written_step_by_step(open_page):
    page = open_page(tab="write")
    box, ruler = page.get_by_role("textbox", name="text"), page.get_by_role("img", name="The needle")
    table = page.locator(".candidates tbody")
    tokens = table.get_by_role("button")
    wait_for_names(page)
    before, needle = table.inner_text(), ruler.get_attribute("aria-label")
    page.get_by_role("button", name="Draw again").click()
    page.wait_for_function(f"() => document.querySelector('.ruler').ariaLabel !== {json.dumps(needle)}")
    assert sorted(table.inner_text().split()) == sorted(before.split())  # the model has not changed its mind
    taken = tokens.nth(2).get_attribute("aria-label").replace("space", " ")
    tokens.nth(2).click()
    page.get_by_text("12 tokens").wait_for()
    assert box.input_value() == TEXT + taken
    page.get_by_role("button", name="One token").click()
    page.get_by_text("13 tokens").wait_for()
    drawn = box.input_value()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("11 tokens").wait_for()
    assert box.input_value() == TEXT
    assert drawn.startswith(TEXT + taken)
    page.get_by_role("slider", name="temperature").fill("0")
    idx = torch.tensor([TOKENIZER.encode(TEXT)])
    best = TOKENIZER.decode([int(model_of(STEPS[-1])(idx)[0, -1].argmax())])
    page.get_by_role("button", name="One token").click()
    page.get_by_text("12 tokens").wait_for()
    assert box.input_value() == TEXT + best


@pytest.mark.parametrize(("likeliest", "says"), [(256, "the end of the document"), (0xE4, "a part of a character")])
def test_what_is_no_text_alone_cannot_be_taken(open_page, tmp_path, likeliest, says):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.bias[0] = 1
        model.wte.weight[[256, 0xE4, ord("a")], 0] = torch.tensor([1.0, 2, 3])  # the logits, whatever was read
        model.wte.weight[likeliest, 0] = 9
    save_model(tmp_path / "bytes", model, ByteBPE([]), {})
    with served_page(tmp_path / "bytes") as address:
        page = open_page(server=address, tab="write", temperature=0)
        page.get_by_text(f"The needle points at {says}").wait_for()
        box = page.get_by_role("textbox", name="text")
        assert page.get_by_role("button", name="One token").is_disabled()
        for name in ("<|endoftext|>", "\\xe4"):
            token = page.get_by_role("button", name=name, exact=True)
            assert token.is_disabled()
            token.click(force=True)
            assert box.input_value() == TEXT
        assert says in page.locator("tr.chosen button").get_attribute("title")
        page.get_by_role("button", name="a", exact=True).click()
        assert box.input_value() == TEXT + "a"
        page.close()


def test_a_slider_asks_the_server_nothing(open_page):
    """Neither for numbers nor, when the address changes, for the icon again."""
    page = open_page(tab="write")
    page.locator(".candidates tbody tr").first.wait_for()
    asked = []
    session = page.context.new_cdp_session(page)
    session.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    session.send("Network.enable")
    for value in ("0.5", "0.7", "1.2"):
        page.get_by_role("slider", name="temperature").fill(value)
        page.wait_for_function(f"() => location.hash.includes('temperature={value}')")
    page.get_by_role("button", name="One token").click()  # which asks: what is asked is seen
    page.get_by_text("12 tokens").wait_for()
    first = next(url for url in asked if url.startswith("http"))
    assert first.endswith("/tokenize")


@pytest.mark.slow
def test_samples_stand_side_by_side_and_the_address_brings_them_back(open_page):
    page = open_page(tab="write")
    page.get_by_role("button", name="Four at once").click()
    page.get_by_text("4 texts of").wait_for()
    written = texts(page.locator(".samples pre"))
    assert len(set(written)) == 4
    page.wait_for_function("() => location.hash.includes('many=4')")
    again = open_page(tab="write", many=4)
    again.get_by_text("4 texts of").wait_for()
    assert texts(again.locator(".samples pre")) == written
    again.get_by_role("textbox", name="text").fill("hello")
    again.locator(".samples").wait_for(state="detached")


@pytest.mark.slow
def test_switches_of_attention_ask_other_questions(open_page):
    seen = trace(model_of(STEPS[-1]), torch.tensor(TOKENIZER.encode(TEXT)))
    weights, lengths = seen.attention[0, 1], seen.values[0, 1].norm(dim=-1)
    page = open_page(tab="attention", head="0.1", looker="6")
    options = page.get_by_role("listbox", name="The text, tinted by attention").get_by_role("option")

    def told():
        return [
            probability(each.get_attribute("title")) if each.get_attribute("title") != "0" else 0
            for each in options.all()
        ]

    options.first.wait_for()
    assert told() == pytest.approx(weights[6].tolist(), abs=6e-4)
    page.get_by_role("checkbox", name="ask what looks at it").check()
    assert told() == pytest.approx(weights[:, 6].tolist(), abs=6e-4)
    page.get_by_role("checkbox", name="ask what looks at it").uncheck()
    page.get_by_role("checkbox", name="times the length of the value").check()
    assert told() == pytest.approx((weights[6] * lengths / lengths.max()).tolist(), abs=6e-4)
    page.get_by_role("checkbox", name="times the length of the value").uncheck()
    page.get_by_role("checkbox", name="leave the first token out").check()
    rest = weights[6].clone()
    rest[0] = 0
    assert told() == pytest.approx((rest / rest.sum()).tolist(), abs=6e-4)


@pytest.mark.slow
def test_heads_and_mlps_are_switched_off(open_page):
    model, idx = model_of(STEPS[-1]), torch.tensor(TOKENIZER.encode(TEXT))

    def loss(**off):
        with torch.no_grad(), without(model, **off):
            return torch.nn.functional.cross_entropy(model(idx[None])[0, :-1], idx[1:]).item()

    def wait_for_loss(expected):
        page.wait_for_function(
            f"() => Math.abs(document.querySelectorAll('.numbers b')[1].innerText - {expected}) < 2e-3"
        )

    page = open_page(tab="heads")
    told = page.locator(".numbers b")
    told.first.wait_for()
    assert float(told.first.inner_text()) == pytest.approx(loss(), rel=1e-3)
    page.get_by_role("button", name="head 1.0").click()
    told.nth(1).wait_for()
    page.get_by_role("button", name="MLP 0").click()
    page.get_by_text("without 2 of them").wait_for()
    wait_for_loss(loss(heads=[(1, 0)], mlps=[0]))
    page.get_by_role("combobox", name="instead of its output").select_option("zero")
    wait_for_loss(loss(heads=[(1, 0)], mlps=[0], instead="zero"))
    page.get_by_role("button", name="All on").click()
    page.get_by_text("Press a head or an MLP").wait_for()


@pytest.mark.slow
def test_what_goes_wrong_is_told_in_words_that_help(open_page):
    page = open_page(tab="write", model="nowhere", width=390)
    told = page.locator(".problem")
    page.wait_for_function("() => document.querySelector('.problem').innerText.includes('nowhere')")
    page.get_by_role("textbox", name="text").fill("hello \u20ac")
    page.wait_for_function("() => document.querySelector('.problem').innerText.includes('\u20ac')")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.route("**/tokenize", lambda route: route.abort())
    page.get_by_role("textbox", name="text").fill("hello")
    page.wait_for_function("() => document.querySelector('.problem').innerText.includes('does not answer')")
    page.unroute("**/tokenize")
    page.get_by_role("textbox", name="text").fill("hello w")
    page.wait_for_function("() => !document.querySelector('.problem').innerText.includes('does not answer')")
    assert "Failed to fetch" not in told.inner_text()


def test_the_page_begins_with_a_text_that_the_model_knows(open_page, tmp_path):
    write_runs(tmp_path)
    loud = CharTokenizer("\n ,:ABCDEFGHIJKLMNOPQRSTUVW")
    save_model(tmp_path / "loud" / "model", model_of(0), loud, {"step": 0})
    (tmp_path / "loud" / "run.json").write_text("{}")
    with served_page(tmp_path / "mine") as address:
        page = open_page(server=address, text=None)
        box, models = page.get_by_role("textbox", name="text"), page.get_by_role("combobox", name="model")
        for name, begins in (("mine", "romeo\no "), ("loud", "ROMEO:\nO, "), ("mine", "romeo\no ")):
            models.select_option(name)
            page.get_by_text(f"{len(begins)} tokens").wait_for()
            page.locator(".candidates tbody tr").first.wait_for()
            assert box.input_value() == begins
            assert page.locator(".problem").inner_text() == ""
        page.wait_for_function("() => location.hash.includes('model=mine') && !location.hash.includes('text=')")
        box.fill("hello")  # what was typed stays
        models.select_option("loud")
        page.wait_for_function("() => document.querySelector('.problem').innerText.includes(\"'h'\")")
        assert box.input_value() == "hello"
        page.close()


@pytest.mark.parametrize("change", ["text", "model"])
def test_a_text_that_cannot_be_cut_leaves_nothing_of_another_one(open_page, change):
    page = open_page(tab="push")
    shown = page.locator(".waterfall, .looked, .candidates, table.lens")
    tabs = ("Write", "Surprise", "Layers", "What pushed")
    shown.first.wait_for()
    if change == "text":
        page.get_by_role("textbox", name="text").fill("hello \u20ac")
    else:

        def refuse(route):
            of_other = "other" in route.request.post_data
            refusal = {"error": {"message": "\u20ac is no character of the model"}}
            route.fulfill(status=400, json=refusal) if of_other else route.continue_()

        page.route("**/tokenize", refuse)
        page.get_by_role("combobox", name="model").select_option("other")
    for name in (*tabs, tabs[0]):
        page.wait_for_function("() => document.querySelector('.problem').innerText.includes('\u20ac')")
        shown.first.wait_for(state="detached")
        page.get_by_role("tab", name=name).click()
    page.get_by_role("textbox", name="text").fill("hello")
    page.get_by_role("combobox", name="model").select_option("mine")
    for name in tabs:
        page.get_by_role("tab", name=name).click()
        shown.first.wait_for()
        page.wait_for_function("() => document.querySelector('.problem').innerText === ''")


@pytest.mark.slow
def test_the_ruler_names_its_parts_on_a_phone(open_page):
    page = open_page(tab="write", width=390)
    parts = page.locator(".ruler span")
    parts.first.wait_for()
    named = [each for each in texts(parts) if each]
    assert named
    assert set(named) <= set(texts(page.locator(".candidates tbody .token")))
    last = page.locator(".candidates tbody tr").first.locator(".wide").bounding_box()
    assert last["x"] + last["width"] <= 390  # nothing of the table is cut off


def test_a_page_without_the_key_asks_for_it(browser, runs):
    with served_page(runs / "mine", key="sesame") as address:
        page = browser.new_page()
        page.goto(f"{address}#tab=surprise&text={TEXT}")
        for key, after in (("wrong", "not the key"), ("sesame", "bits in all")):
            page.get_by_label("key").fill(key)
            page.get_by_role("button", name="Open").click()
            page.get_by_text(after).wait_for()
        page.wait_for_function("() => location.hash.includes('surprise') && !location.hash.includes('sesame')")
        page.close()


def feed_streams(page):
    """From now on completions come from the test: `write` gives a piece to the page, `ended` says if it let go."""
    page.evaluate("""() => {
      const asked = window.fetch;
      window.fetch = (path, options) => {
        if (path !== "/v1/completions") return asked(path, options);
        const body = new ReadableStream({ start: (feed) => (window.feed = feed) });
        window.ended = false;
        options.signal.addEventListener("abort", () => { window.ended = true; feed.error(options.signal.reason); });
        return Promise.resolve(new Response(body));
      };
      window.write = (text) => {
        const said = JSON.stringify({ choices: [{ index: 0, text }] });
        feed.enqueue(new TextEncoder().encode(`data: ${said}\\n\\n`));
        return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      };
    }""")


def test_what_a_person_types_stays_while_a_text_is_written_and_can_be_undone(open_page):
    page = open_page(tab="write")
    box, undo = page.get_by_role("textbox", name="text"), page.get_by_role("button", name="Undo")
    write_on = page.get_by_role("button", name="Write on")
    page.locator(".candidates").wait_for()
    assert undo.is_disabled()
    feed_streams(page)
    write_on.click()
    page.evaluate("write(' and')")
    box.press("End")
    box.press_sequentially(" the")
    page.evaluate("write(' of')")
    assert page.evaluate("ended")
    write_on.wait_for()
    assert box.input_value() == TEXT + " and the"
    write_on.click()
    page.evaluate("write(' sea')")
    page.get_by_role("tab", name="Surprise").click()
    page.wait_for_function("ended")
    box.fill("hello")
    page.get_by_role("tab", name="Write").click()
    for text in (TEXT + " and the sea", TEXT + " and the", TEXT + " and", TEXT):
        undo.click()
        page.wait_for_function("text => document.querySelector('textarea').value === text", arg=text)
    page.wait_for_function("() => location.hash.includes('tab=write')")
    assert undo.is_disabled()


def test_a_run_without_a_model_is_refused_by_its_name_and_nothing_else_is_opened(open_page, tmp_path):
    write_runs(tmp_path)
    shutil.copytree(tmp_path / "mine", tmp_path / "hollow", ignore=shutil.ignore_patterns("model", "growth"))
    with served_page(tmp_path / "mine") as address:
        page = open_page(server=address, tab="training")
        told, models = page.locator(".problem"), page.get_by_role("combobox", name="model")
        page.get_by_role("button", name="Look inside hollow").click()
        told.get_by_text("hollow holds no model").wait_for()
        assert str(tmp_path) not in told.inner_text()
        assert page.get_by_role("tabpanel", name="Training").is_visible()
        models.select_option("hollow")
        page.wait_for_function("() => document.querySelector('.picker select').value === 'mine'")
        models.select_option("other")
        page.wait_for_function(
            "() => document.title.includes('other') && document.querySelector('.problem').innerText === ''"
        )
        assert models.input_value() == "other"
        page.close()


def test_the_page_waits_for_a_server_that_is_gone_and_goes_on_by_itself(open_page):
    page = open_page(tab="write")
    rows, told = page.locator(".candidates tbody tr"), page.locator(".problem")
    rows.first.wait_for()
    page.route("**/*", lambda route: route.abort())
    page.get_by_role("textbox", name="text").fill("hello")
    told.get_by_text("does not answer").wait_for()
    assert rows.count() > 10
    page.get_by_role("tab", name="Surprise").click()
    told.get_by_text("does not answer").wait_for()
    page.unroute("**/*")
    page.get_by_text("bits in all").wait_for()
    page.get_by_text("5 tokens").wait_for()
    assert told.inner_text() == ""


def test_back_goes_to_the_view_and_the_model_before_and_keeps_the_text(open_page):
    page = open_page(tab="write")
    for name in ("Surprise", "Tokens"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_function("name => location.hash.includes(`tab=${name}`)", arg=name.lower())
    page.get_by_role("combobox", name="model").select_option("other")
    page.wait_for_function("() => location.hash.includes('model=other')")
    page.get_by_role("textbox", name="text").fill("hello")
    page.wait_for_function("() => location.hash.includes('text=hello&')")
    for tab, model in (("Tokens", "mine"), ("Surprise", "mine"), ("Write", "mine")):
        page.go_back()
        page.get_by_role("tabpanel", name=tab).wait_for()
        page.wait_for_function("model => document.title.includes(model)", arg=model)
        assert page.get_by_role("textbox", name="text").input_value() == "hello"
    page.go_forward()
    page.get_by_role("tabpanel", name="Surprise").wait_for()
    page.evaluate("location.hash = 'tab=lens&text=world'")
    page.get_by_role("tabpanel", name="Layers").wait_for()
    assert page.get_by_role("textbox", name="text").input_value() == "world"


def test_numbers_that_no_server_takes_are_not_asked_for(open_page):
    page = open_page(tab="write", temperature=-5, topP=7, topK=2.6, seed=-3)
    sliders = [page.get_by_role("slider", name=name) for name in ("temperature", "top-p", "top-k")]
    assert [each.input_value() for each in sliders] == ["0", "1", "3"]
    seed = page.get_by_role("spinbutton", name="seed")
    most = "9007199254740991"
    for typed, taken in (("2.5", "2"), ("-3", "0"), ("1e22", most), ("9007199254740993", most), ("7", "7")):
        seed.fill(typed)
        seed.blur()
        assert seed.input_value() == taken
        needle = page.get_by_role("img", name="The needle").get_attribute("aria-label")
        page.get_by_role("button", name="Draw again").click()
        page.wait_for_function(f"() => document.querySelector('.ruler').ariaLabel !== {json.dumps(needle)}")
    page.get_by_role("button", name="Write on").click()
    page.get_by_text("characters written").wait_for()
    page.route("**/v1/completions", lambda route: route.fulfill(status=400, json={"error": {"message": "no more"}}))
    page.get_by_role("button", name="Write on").click()
    page.locator(".problem").get_by_text("no more").wait_for()
    assert page.get_by_text("characters written").count() == 0


def test_the_page_begins_while_runs_are_read(open_page):
    page, held = open_page(tab="write"), []
    page.route("**/api/runs", lambda route: held.append(route))
    page.reload()
    page.locator(".candidates").wait_for()
    picker = page.get_by_role("combobox", name="model")
    assert "other" not in picker.inner_text()
    held[0].continue_()
    picker.locator("option", has_text="other").wait_for(state="attached")
