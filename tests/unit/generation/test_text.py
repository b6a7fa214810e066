import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.config.model import BigramConfig
from groundup.generation.text import TextGenerator, TextRequest, prompt_ids
from groundup.model.gpt import GPT
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer

GREEDY = SamplingConfig(temperature=0.0)
EOT = 256


class Bytes(Tokenizer):
    """One id a byte, and a separator."""

    vocab_size, eot_id, fingerprint = 257, EOT, ""

    def encode(self, text):
        return list(text.encode())

    def decode_bytes(self, ids):
        return bytes(i for i in ids if i != EOT)

    def decode(self, ids):
        return self.decode_bytes(ids).decode(errors="replace")


class Scripted(LanguageModel):
    """Says the ids it was given, whatever it reads."""

    config = BigramConfig(vocab_size=257, block_size=64)
    head_weight = None
    training = True

    def __init__(self, script):
        self.script, self.prompt, self.step = list(script), None, 0

    def __call__(self, idx, *, cache=None):
        return self.logits(self.hidden(idx, cache=cache))

    def logits(self, hidden):
        return hidden

    def hidden(self, idx, *, cache=None):
        if self.prompt is None:
            self.prompt = idx.tolist()
        self.step += 1
        logits = torch.zeros(*idx.shape, 257)
        for k in range(idx.shape[1]):
            n_said = cache.held[0] + k + 1 - len(self.prompt[0])
            logits[:, k, self.script[min(max(n_said, 0), len(self.script) - 1)]] = 1.0
        return logits

    def new_cache(self, batch_size, max_tokens):
        return KVCache(n_layer=0, batch_size=batch_size, n_head=1, max_tokens=max_tokens, head_dim=1)

    def parameters(self):
        yield torch.zeros(())

    def state_dict(self):
        return {}

    def eval(self):
        self.training = False

    def train(self, mode=True):
        self.training = mode


def say(script, prompt="x", **options):
    """(pieces streamed, text generated) for a model that says these ids."""
    options = {"max_new_tokens": len(script), "sampling": GREEDY, **options}
    pieces = list(TextGenerator(Scripted(script), Bytes()).stream(prompt, **options))
    (text,) = TextGenerator(Scripted(script), Bytes()).generate(prompt, **options)
    return pieces, text


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_pieces_joined_are_the_text_of_the_ids(script):
    """Any bytes, most of them not UTF-8."""
    pieces, text = say(script)
    assert "".join(pieces) == text == Bytes().decode(script)
    assert "" not in pieces


@given(st.text(min_size=1, max_size=12))
def test_split_characters_wait_until_they_are_whole(text):
    pieces, _ = say(text.encode())
    assert pieces == list(text)


@given(st.text("aé\n€", min_size=1, max_size=12), st.text("aé\n€", min_size=1, max_size=3), st.integers(0, 40))
def test_stop_strings_and_the_end_of_a_document(text, stop, cut):
    """Whichever comes first ends the text; what follows is not said."""
    said = text.encode()[:cut]
    pieces, got = say([*said, EOT, *b"never said"], stop=[stop])
    assert "".join(pieces) == got == said.decode(errors="replace").split(stop)[0]


def test_generation_ends_with_the_stop_string():
    model = Scripted(b"one\ntwo")
    assert TextGenerator(model, Bytes()).generate("x", max_new_tokens=7, sampling=GREEDY, stop=["\n"]) == ["one"]
    assert model.step == 4


def test_beginning_of_a_stop_string_is_said_when_the_text_ends_there():
    assert say(b"ab", stop=["abc"]) == (["ab"], "ab")
    assert say([*b"ab", EOT], stop=["abc"]) == (["ab"], "ab")


@pytest.mark.parametrize(("prompt", "ids"), [("hé", [0x68, 0xC3, 0xA9]), ("", [EOT])])
def test_prompt_ids(prompt, ids):
    model = Scripted(b"a")
    TextGenerator(model, Bytes()).generate(prompt, max_new_tokens=1)
    assert model.prompt == [ids]


def test_empty_prompt_of_a_character_model_is_a_new_line(tiny_model, alphabet):
    generator = TextGenerator(tiny_model, alphabet)
    assert generator.generate("", max_new_tokens=9) == generator.generate("\n", max_new_tokens=9)
    with pytest.raises(UserError, match="give a prompt"):
        TextGenerator(tiny_model, CharTokenizer("ab")).generate("", max_new_tokens=1)


def test_num_samples_with_stop_strings(tiny_model, alphabet):
    """Samples end at different times; each is what it is alone, cut at the stop string."""
    generator = TextGenerator(tiny_model, alphabet)
    whole = generator.generate("abc", max_new_tokens=60, num_samples=6, seed=5)
    cut = generator.generate("abc", max_new_tokens=60, num_samples=6, seed=5, stop=["q", "ab"])
    assert cut == [min((text.partition(stop)[0] for stop in ("q", "ab")), key=len) for text in whole]
    assert len({len(text) for text in cut}) > 2
    assert "".join(generator.stream("abc", max_new_tokens=60, seed=5, stop=["q", "ab"])) == cut[0]


def test_errors_come_before_the_first_piece(tiny_model, alphabet):
    generator = TextGenerator(tiny_model, alphabet)
    with pytest.raises(UserError, match="character 'Z' at position 1"):
        generator.stream("aZ", max_new_tokens=5)
    with pytest.raises(UserError, match="17 tokens"):
        generator.stream("a" * 17, max_new_tokens=5)
    with pytest.raises(UserError, match="stop string"):
        generator.stream("a", max_new_tokens=5, stop=[""])


def test_a_model_that_would_drop_activations_is_refused(tiny_config, alphabet):
    model = GPT(dataclasses.replace(tiny_config, dropout=0.5)).train()
    with pytest.raises(ValueError, match="training mode"):
        TextGenerator(model, alphabet).generate("abc", max_new_tokens=2)
    generator = TextGenerator(model.eval(), alphabet)
    assert generator.generate("abc", max_new_tokens=20, seed=1) == generator.generate("abc", max_new_tokens=20, seed=1)


def test_many_prompts_side_by_side_are_what_each_is_alone(tiny_model, alphabet):
    """More prompts than slots, in whatever order they end; one of them ends at a stop string."""
    generator = TextGenerator(tiny_model, alphabet)
    prompts = ["abc"[: 1 + k % 3] + "vwx"[k % 2 :] for k in range(20)]
    requests = [
        TextRequest(
            prompt=tuple(prompt_ids(alphabet, prompt)),
            max_new_tokens=5 + k,
            seed=k,
            n=1 + k % 2,
            stop=("a",) if k % 4 == 0 else (),
        )
        for k, prompt in enumerate(prompts)
    ]
    done = {completion.request: completion for completion in generator.complete(requests)}
    assert sorted(done) == list(range(20))
    for k, prompt in enumerate(prompts):
        stop = ["a"] if k % 4 == 0 else []
        expected = generator.generate(prompt, max_new_tokens=5 + k, seed=k, num_samples=1 + k % 2, stop=stop)
        assert done[k].texts == expected
        assert set(done[k].finishes) <= {"stop", "length"}
        assert k % 4 == 0 or set(done[k].finishes) == {"length"}


def test_something_may_be_done_before_each_tick(tiny_model, alphabet):
    calls = []
    generator = TextGenerator(tiny_model, alphabet, before_ticks=lambda: calls.append(1))
    generator.generate("ab", max_new_tokens=5, seed=0)  # drawn, not guessed ahead: a token with each
    assert len(calls) >= 5
