import math
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.model import BigramConfig
from groundup.evaluation.pages import MEMBER, Page, measure_pages, read_pages, rolling
from groundup.model.bigram import Bigram
from groundup.tokenizer.char import CharTokenizer

RAW = "\n".join(
    [
        " ",
        " = Robert <unk> = ",
        " ",
        " Robert <unk> is an English film , television and theatre actor . He had a guest @-@ starring role in",
        ' 2 @,@ 000 or 2 @.@ 5 films ; " The Bill " was ( he said ) \'s best [ sic ] . ',
        " = = Career = = ",
        ' At 20 ° C : why ? " Yes ! " said the boys \' friend . ',
        " = Du Fu = ",
        " = = = Early life = = = ",
        " N { x } of a , b . , c ; the poet ' s own ' words ' . ",
        "",
    ]
)


@pytest.fixture
def archive(tmp_path):
    def make(text, name=MEMBER):
        with zipfile.ZipFile(tmp_path / "wikitext.zip", "w") as file:
            file.writestr(name, text)
        return tmp_path / "wikitext.zip"

    return make


def test_titles_begin_pages_and_nothing_is_lost(archive):
    pages = read_pages(archive(RAW))
    assert [page.raw.split("\n")[0] for page in pages] == [" = Robert <unk> = ", " = Du Fu = "]
    assert " \n" + "\n".join(page.raw for page in pages) == RAW
    assert read_pages(archive(RAW), limit=1) == pages[:1]


def test_words_come_together_as_people_write_them():
    text = Page(RAW).text
    for words in (
        "film, television and theatre actor. He",
        "guest-starring",
        "2,000 or 2.5 films;",
        '"The Bill" was (he said)\'s best [sic].',
        "== Career ==",
        "At 20°C: why?",
        "boys' friend",
    ):
        assert words in text, (words, text)
    assert Page(" a b \n").n_words == 4  # the empty ones at both ends count
    assert Page("é a").n_bytes == 4


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([*" .,;:!?'\"()[]{}=-°\n", " ", " ", "@-@", "@,@", "@.@", "a", "s", "N", "1", "= ="])).map(
        "".join
    )
)
def test_the_harness_undoes_the_same(text):
    theirs = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    for raw in (text, RAW, " ".join(text)):
        assert Page(raw).text == theirs.wikitext_detokenizer({"page": raw})
        counted = theirs.process_results({"page": raw}, (0.0,))
        assert counted["word_perplexity"] == (0.0, Page(raw).n_words)
        assert counted["bits_per_byte"] == (0.0, Page(raw).n_bytes)


@pytest.mark.slow
@given(st.integers(1, 60), st.integers(1, 20))
def test_the_harness_cuts_the_same_windows(length, block_size):
    utils = pytest.importorskip("lm_eval.utils")
    ids = list(range(1, length + 1))
    theirs = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, 0, block_size, context_len=1))
    ours = rolling(ids, 0, block_size)
    assert [(list(q.context), list(q.continuations[0])) for q in ours] == [(list(a), list(b)) for a, b in theirs]


@given(st.integers(1, 60), st.integers(1, 20))
def test_every_token_is_foreseen_once_within_the_context(length, block_size):
    tokens = list(range(length + 1))
    foreseen = []
    for question in rolling(tokens[1:], 0, block_size):
        (continuation,) = question.continuations
        assert [*question.context, *continuation] == tokens[question.context[0] : continuation[-1] + 1]
        assert len(question.context) + len(continuation) <= block_size + 1
        foreseen += continuation
    assert foreseen == tokens[1:]


def test_the_sum_is_that_of_a_plain_loop(make_model):
    letters = CharTokenizer(sorted(set(RAW + Page(RAW).text)))
    model = make_model(block_size=16, vocab_size=letters.vocab_size).eval()
    pages = [Page("a , b . c\n" * 3), Page("Career")]
    nats = n_tokens = 0
    for page in pages:
        tokens = letters.encode("\n" + page.text)
        for start in range(0, len(tokens) - 1, 16):
            stop = min(start + 16, len(tokens) - 1)
            begin = max(0, stop - 16)
            with torch.no_grad():
                logp = model(torch.tensor([tokens[begin:stop]]))[0].double().log_softmax(-1)
            for place in range(start, stop):
                nats -= float(logp[place - begin, tokens[place + 1]])
                n_tokens += 1
    result = measure_pages(model, letters, pages).as_json()
    assert result["word_perplexity"] == pytest.approx(math.exp(nats / (pages[0].n_words + 1)), rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / (30 + 6), rel=1e-5)
    assert (result["tokens"], result["pages"]) == (n_tokens, 2)


def test_a_bigram_is_measured_too():
    letters = CharTokenizer("\n ab")
    bigram = Bigram(BigramConfig(vocab_size=4))
    with torch.no_grad():
        bigram.table.weight.zero_()
    result = measure_pages(bigram, letters, [Page("ab ba")])
    assert result.nats == pytest.approx(5 * math.log(4))
    assert result.as_json()["word_perplexity"] == pytest.approx(4**2.5)


def test_what_is_no_archive_is_one_clear_line(tmp_path, archive):
    (tmp_path / "a.zip").write_text("no archive")
    for path in (tmp_path / "a.zip", archive(RAW, "other.txt"), archive(b"\xff")):
        with pytest.raises(UserError, match=r"cannot read wikitext-2-raw/wiki.test.raw in .*zip") as error:
            read_pages(path)
        assert "\n" not in str(error.value)
