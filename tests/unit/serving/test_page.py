"""The page without a browser: its pure functions against Python's, its files against their promises."""

import ast
import hashlib
import json
import math
import re
import shlex
from importlib import resources

import numpy as np
import pytest
import quickjs
import torch
from hypothesis import given
from hypothesis import strategies as st

import needs
from groundup.config.generate import SamplingConfig
from groundup.generation import sampling
from groundup.serving.page import page_files
from groundup.serving.texts import TokenNames
from groundup.tokenizer.gpt2 import load_gpt2

PAGE = resources.files("groundup.serving") / "page"
OWN = sorted(entry.name for entry in PAGE.iterdir() if entry.name.endswith((".js", ".html", ".css")))


def engine(*names):
    """Modules that import nothing, as one script."""
    context = quickjs.Context()
    for name in names:
        context.eval(re.sub(r"^export ", "", (PAGE / name).read_text("utf-8"), flags=re.MULTILINE))
    return context


SAMPLING = engine("sampling.js")
COMMANDS = engine("commands.js")
FORMAT = engine("format.js")


def in_browser(logits, config, prompt, drawn):
    values = {
        "temperature": config.temperature,
        "topK": config.top_k,
        "topP": config.top_p,
        "minP": config.min_p,
        "repetition": config.repetition_penalty,
        "presence": config.presence_penalty,
        "frequency": config.frequency_penalty,
    }
    call = (
        f"(() => {{ const r = pipeline(Float32Array.from({json.dumps(logits)}), {json.dumps(values)},"
        f" {json.dumps(prompt)}, {json.dumps(drawn)});"
        " return JSON.stringify([Array.from(r.sampler), Array.from(r.why)]); })()"
    )
    return json.loads(SAMPLING.eval(call))


def in_python(logits, config, prompt, drawn):
    """The same, step by step, by generation/sampling.py in float64."""
    x = torch.tensor(logits, dtype=torch.float32).double()[None]
    seen = torch.zeros_like(x, dtype=torch.bool)
    seen[0, [*prompt, *drawn]] = True
    counts = torch.bincount(torch.tensor(drawn, dtype=torch.long), minlength=x.shape[1])[None]
    x = sampling.apply_repetition_penalty(x, seen, config.repetition_penalty)
    x = sampling.apply_count_penalties(x, counts, config.presence_penalty, config.frequency_penalty)
    if config.temperature < sampling.COLDEST:
        return torch.nn.functional.one_hot(x[0].argmax(), x.shape[1]).tolist()
    x = sampling.apply_temperature(x, config.temperature)
    x = sampling.apply_top_p(sampling.apply_top_k(x, config.top_k), config.top_p)
    return sampling.apply_min_p(x, config.min_p)[0].softmax(-1).tolist()


def test_the_browser_draws_from_what_python_draws_from_in_a_thousand_cases():
    random = np.random.default_rng(0)
    for _ in range(1000):
        V = int(random.integers(2, 13))
        logits = random.integers(-64, 65, V) / 8  # ties are frequent
        prompt, drawn = (random.integers(0, V, random.integers(0, 5)).tolist() for _ in range(2))
        config = SamplingConfig(
            temperature=float(random.choice([0.0, 0.3, 1.0, 1.7])),
            top_k=int(random.integers(0, V + 2)),
            top_p=float(random.choice([1.0, 0.95, 0.5, 0.1])),
            min_p=float(random.choice([0.0, 0.05, 0.3])),
            repetition_penalty=float(random.choice([1.0, 1.3, 0.8])),
            presence_penalty=float(random.choice([0.0, 0.5, -1.0])),
            frequency_penalty=float(random.choice([0.0, 0.25])),
        )
        got, why = in_browser(logits.tolist(), config, prompt, drawn)
        assert got == pytest.approx(in_python(logits.tolist(), config, prompt, drawn), abs=1e-12)
        assert [p > 0 for p in got] == [reason == 0 for reason in why]


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(40, 1.0, 0.0), (3000, 0.9, 0.0), (0, 0.99, 0.02), (0, 0.3, 0.0)]
)
def test_and_over_a_large_vocabulary(scale, top_k, top_p, min_p):
    logits = scale * np.random.default_rng(1).standard_normal(5000)
    config = SamplingConfig(temperature=0.7, top_k=top_k, top_p=top_p, min_p=min_p)
    got, why = in_browser(logits.tolist(), config, [], [])
    assert got == pytest.approx(in_python(logits.tolist(), config, [], []), abs=1e-12)
    assert [p > 0 for p in got] == [reason == 0 for reason in why]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1, "100%"),
        (0.9997, "> 99.9%"),
        (0.5, "50.0%"),
        (0.0861, "8.61%"),
        (0.01, "1.00%"),
        (0.005, "0.50%"),
        (0.0001, "1 in 10000"),
        (1e-9, "1 in 10^9"),
        (0, "0"),
    ],
)
def test_probabilities_are_never_rounded_to_a_lie(p, text):
    assert FORMAT.eval(f"probability({p!r})").replace(",", "") == text


def test_bytes_that_are_no_characters_are_shown_and_counted_as_bytes():
    needs.gpt2_vocabulary()
    tokenizer = load_gpt2()
    text = "naïve 漢字 🙂, bytes:"
    names = TokenNames(tokenizer, as_ids=False)
    parts = [names(token) for token in tokenizer.encode(text)]
    assert sum(part.startswith(r"bytes:\x") for part in parts) > 3
    assert FORMAT.eval(f"bytesOf({json.dumps(parts)})") == len(text.encode())
    assert FORMAT.eval(r"visible('bytes:\\x20\\xe6')") == r"\x20\xe6"
    assert FORMAT.eval("visible(' bytes:')") == "·bytes:"


@given(st.text(), st.data())
def test_events_are_the_same_wherever_the_stream_is_cut(text, data):
    source = "".join(f"data: {json.dumps({'t': part})}\n\n: waiting\n\n" for part in [text, "x"]) + "data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(source)), max_size=5)))
    pieces = [source[a:b] for a, b in zip([0, *cuts], [*cuts, len(source)], strict=True)]
    reader = re.search(
        r"export (function eventReader\(\) \{.*?\n\})\n", (PAGE / "api.js").read_text("utf-8"), re.DOTALL
    )
    context = quickjs.Context()
    context.eval(reader[1])
    told = json.loads(
        context.eval(
            f"(() => {{ const r = eventReader(); return JSON.stringify({json.dumps(pieces)}.flatMap(r)); }})()"
        )
    )
    assert [json.loads(event)["t"] for event in told[:-1]] == [text, "x"]
    assert told[-1] == "[DONE]"


@pytest.mark.parametrize("needle", [0.0, 0.3, 0.999999])
def test_the_needle_points_at_a_token_with_a_share(needle):
    shares = [0.0, 0.25, 0.0, 0.5, 0.25, 0.0]
    token = SAMPLING.eval(f"draw(Float64Array.from({shares}), {needle})")
    assert token == {0.0: 1, 0.3: 3, 0.999999: 4}[needle]


def test_text_of_the_model_is_only_ever_text():
    for name in OWN:
        source = (PAGE / name).read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|dangerouslySet|\beval\b", source), (
            name
        )
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", source.replace("http://www.w3.org/2000/svg", "")), (
            name
        )


def test_files_are_short_and_the_page_is_small():
    for name in OWN:
        assert len((PAGE / name).read_text("utf-8").splitlines()) <= 300, name
    assert sum(len(file.data) for path, file in page_files().items() if path != "/") <= 350 * 1024


def test_libraries_are_those_that_were_fetched():
    folder = PAGE / "vendor"
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {e.name: hashlib.sha256(e.read_bytes()).hexdigest() for e in folder.iterdir() if e.name != "SHA256SUMS"}
    assert found == sums


def test_every_import_of_the_page_is_one_of_its_files():
    files = page_files()
    for path, file in files.items():
        if path.endswith(".js"):
            for target in re.findall(r"""^import [^"']*["']([^"']+)["']""", file.data.decode(), re.MULTILINE):
                assert target.startswith("./"), f"{path} imports {target}"
                folder = path.rsplit("/", 1)[0]
                assert f"{folder}/{target[2:]}" in files, f"{path} imports {target}"


def test_contents_decide_the_tag(client_of_page):
    first = client_of_page.get("/main.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = client_of_page.get("/main.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert "<title>groundup" in client_of_page.get("/").text


@pytest.fixture
def client_of_page():
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from groundup.serving.page import page_routes

    return TestClient(Starlette(routes=page_routes(page_files())))


def test_every_number_has_a_form():
    assert FORMAT.eval("number(-Infinity)") == "\u2212∞"
    assert FORMAT.eval("number(-0.12345)") == "\u22120.1235"
    assert FORMAT.eval("aligned(-1.9996, 3)") == "\u22122.000"
    assert FORMAT.eval("aligned(2, 3)") == "2.000"
    assert FORMAT.eval("aligned(0, 3)") == "0.000"
    assert FORMAT.eval("aligned(-0.000125, 3)") == "\u22120.000125"  # not 0.000
    assert FORMAT.eval("aligned(-Infinity, 3)") == "\u2212∞"
    assert math.isclose(FORMAT.eval("bits(Math.LN2)"), 1)
    assert FORMAT.eval('["7", "8", "", "1.5", "-1"].map((each) => placeOf(each, 8)).join()') == "7,,,,"
    assert FORMAT.eval('visible(" a\\n")') == "·a↵"
    assert FORMAT.eval('spoken(visible(" a\\n"))') == "space a line break"
    assert FORMAT.eval(r'visible("\u202eb\u0000\u001b")') == r"\u202eb\u0000\u001b"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(-1e6, 1e6) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_commands_say_what_the_page_asks(body):
    given = json.dumps(json.dumps(body))
    assert ast.literal_eval(COMMANDS.eval(f"python(JSON.parse({given}))")) == body
    server = '{origin: "http://localhost:1", keyed: true}'
    words = shlex.split(COMMANDS.eval(f'asCurl({server}, "/api/lens", JSON.parse({given}))'))
    assert json.loads(words[-1]) == body
    assert words[3] == "Authorization: Bearer $GROUNDUP_API_KEY"
    ast.parse(COMMANDS.eval(f'asPython({server}, "/api/lens", JSON.parse({given}))'))


def luminance(color):
    linear = [c / 12.92 if (c := value / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for value in color]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """As the accessibility guidelines (WCAG 2) count it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def color(written):
    if written.startswith("#"):
        digits = written[1:] if len(written) == 7 else "".join(2 * digit for digit in written[1:])
        return [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    return [float(value) for value in re.findall(r"[\d.]+", written)]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_every_ground_that_the_page_has(scheme):
    style = (PAGE / "style.css").read_text("utf-8")
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    known = {name: value.strip() for name, value in re.findall(r"--([\w-]+):([^;]+);", block)}
    colors = {name: color(value) for name, value in known.items() if name not in ("tint",)}
    grounds = [colors["paper"], colors["card"]]
    for name in ("ink-rgb", "warm", "cool"):  # of a token with the fullest tint
        share = float(known["tint"])
        grounds.append([share * a + (1 - share) * b for a, b in zip(colors[name], colors["paper"], strict=True)])
    assert min(contrast(colors["ink"], ground) for ground in grounds) >= 4.5
    assert min(contrast(colors["soft"], ground) for ground in grounds[:2]) >= 4.5
    assert contrast(colors["on-accent"], colors["accent"]) >= 4.5
    assert contrast(colors["ink"], colors["faint"]) >= 4.5  # on the ruler
    assert min(contrast(colors[edge], ground) for edge in ("edge", "accent") for ground in grounds[:2]) >= 3
    curves = [colors[name] for name in known if name.startswith("run-")]
    assert len(curves) == 6
    assert min(contrast(curve, colors["paper"]) for curve in curves) >= 3  # lines, not text
