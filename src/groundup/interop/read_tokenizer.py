"""The tokenizer of a Hugging Face folder as one of ours, with the same ids, or the reason why it cannot be."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import load_json, read_whole
from groundup.config.limits import JSON_BYTES, TEXT_BYTES
from groundup.config.presets import GPT2_VOCAB
from groundup.tokenizer.added import ALWAYS, FLAGS, NORMALIZED
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.oniguruma import from_oniguruma
from groundup.tokenizer.probe import check_tokenizers
from groundup.tokenizer.published import BytePairs, from_published, published

WHOLE, VOCAB, MERGES, ADDED, SETTINGS, MAP, CHAT = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
FILES = (WHOLE, VOCAB, MERGES, ADDED, SETTINGS, MAP, CHAT)
"""What decides the ids: the tokenizer in one file, or in its older parts; and what special tokens are for."""


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face folder; None where there is none.

    Raises:
        UserError: Ours cannot give the same ids; the message names what stands in the way.
    """
    try:
        if (folder / WHOLE).is_file():
            values = _object(folder / WHOLE)
            ours = _characters(values) or _paired(_whole(values, folder), folder)
            sure = not isinstance(ours, ByteBPE) or ours.pattern == GPT2_PATTERN
            check_tokenizers(ours, read_whole(folder / WHOLE, JSON_BYTES).decode(), sure=sure)
            return ours
        if (folder / VOCAB).is_file() and (folder / MERGES).is_file():
            return _paired(_parts(folder), folder)
        if (folder / VOCAB).is_file():
            raise UserError(f"there is no {MERGES} beside its {VOCAB}")
        return None
    except UserError as error:
        raise UserError(
            f"{folder} has a tokenizer that groundup cannot be: {error}; name one of ours with --tokenizer, if the"
            " model can speak with it"
        ) from None


def _paired(pairs: BytePairs, folder: Path) -> Tokenizer:
    pairs = dataclasses.replace(pairs, settings=_settings(folder, pairs.end))
    return _gpt2(pairs) or from_published(pairs)


def _gpt2(pairs: BytePairs) -> Tokenizer | None:
    """GPT-2's own tokenizer, which is faster, where these are its ids."""
    if len(pairs.vocab | pairs.specials) != GPT2_VOCAB or pairs.pattern != GPT2_PATTERN:
        return None
    # A token that is found alone may as well be found second: OpenAI's own is marked so in many folders.
    if pairs.specials.keys() - {END_OF_TEXT} or any(set(flags) - {NORMALIZED} for flags in pairs.matching.values()):
        return None
    ours = load_gpt2(settings=pairs.settings)
    there = published(ours)
    same = pairs.vocab | pairs.specials == there.vocab | there.specials and pairs.merges == there.merges
    return ours if same else None


def _characters(values: dict[str, Any]) -> CharTokenizer | None:
    """A vocabulary of single characters with the ids 0, 1, 2 and so on, perhaps the end last; None for any other.

    Raises:
        UserError: Something else than a character decides an id.
    """
    match values:
        case {"normalizer": None, "model": {"type": "WordLevel", "vocab": dict(words)}}:
            symbols = sorted(words, key=lambda symbol: str(words[symbol]).zfill(9))
            if [words[s] for s in symbols] != list(range(len(symbols))):
                return None
            separates = symbols[-1:] == [END_OF_TEXT]
            if separates:
                symbols.pop()
            if symbols and all(len(s) == 1 for s in symbols):
                _refuse_more_than_characters(values, [END_OF_TEXT] * separates)
                return CharTokenizer(symbols, separates=separates)
    return None


def _refuse_more_than_characters(values: dict[str, Any], ends: list[str]) -> None:
    every = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    words, added = values.get("pre_tokenizer"), values.get("added_tokens") or []
    plain = isinstance(added, list) and all(isinstance(token, dict) and token.get("content") in ends for token in added)
    if words not in (every, {**every, "pattern": {"String": ""}}):
        fault = f"its pre_tokenizer {_name(words)} cuts a text in another way"
    elif not plain or any(set(_flags(token)) - {NORMALIZED} for token in added):
        fault = "it has other added_tokens than a plain end"
    elif any(_around(values.get("post_processor"))):
        fault = f"its post_processor {_name(values['post_processor'])} is not applied"
    else:
        return
    raise UserError(f"its vocabulary is of single characters, and {fault}")


def _whole(values: dict[str, Any], folder: Path) -> BytePairs:
    """What a tokenizer.json of byte-level BPE decides.

    Raises:
        UserError: Something else decides, too.
    """
    model, added = values.get("model"), values.get("added_tokens")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UserError(f"its model is {kind}, not byte-level BPE")
    if values.get("normalizer") not in (None, {"type": "Sequence", "normalizers": []}):
        raise UserError(f"its normalizer {_name(values['normalizer'])} changes text before it is cut into words")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise UserError(f"its model has {key} {model[key]!r}")
    try:
        specials = {token["content"]: token["id"] for token in added or []}
        matching = {token["content"]: flags for token in added or [] if (flags := _flags(token))}
        vocab = dict(model["vocab"])
        merges: list[Any] = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    except (TypeError, KeyError, ValueError):
        raise UserError("its added_tokens, vocab and merges cannot be read") from None
    pattern = _pattern(values.get("pre_tokenizer"))
    return _checked(BytePairs(vocab, merges, specials, pattern, _end(folder, specials), matching), folder)


def _parts(folder: Path) -> BytePairs:
    """What vocab.json, merges.txt and added_tokens.json decide together: GPT-2's words, and no special list.

    Raises:
        UserError: A file cannot be read.
    """
    vocab = _object(folder / VOCAB)
    try:
        lines = read_whole(folder / MERGES, TEXT_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{MERGES} cannot be read: {error}") from None
    merges: list[Any] = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    made = {"".join(pair) for pair in merges}
    # Of longer tokens that no merge makes, those in brackets are special: <|endoftext|>, [PAD].
    specials = {t: i for t, i in vocab.items() if len(t) > 2 and t not in made and t[0] + t[-1] in ("<>", "[]")}
    matching: dict[str, tuple[str, ...]] = {}
    more = _object(folder / ADDED) if (folder / ADDED).is_file() else {}
    if more:
        used = json.dumps([_object(folder / name) for name in (SETTINGS, MAP) if (folder / name).is_file()])
        matching = {token: (ALWAYS, NORMALIZED) for token in more if json.dumps(token) not in used}
        specials |= more
    match _object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}:
        case {"added_tokens_decoder": dict(listed)}:
            for i, token in listed.items():
                match token:
                    case {"content": str(content)} if i.isascii() and i.isdigit() and len(i) < 10:
                        specials[content] = int(i)
                        matching.pop(content, None)
                        if flags := _flags(token):
                            matching[content] = flags
                    case _:
                        raise UserError(f"its added_tokens_decoder.{i} in {SETTINGS} is no token with an id")
        case said:
            said = said | (_object(folder / MAP) if (folder / MAP).is_file() else {})
            roles = [token for role in _ROLES if isinstance(token := said.get(role), dict)]
            for content, token in {_text(token): token for token in roles}.items():
                if content in specials.keys() - more.keys() and (flags := _flags({**token, "special": True})):
                    matching[content] = flags
    return _checked(BytePairs(vocab, merges, specials, GPT2_PATTERN, _end(folder, specials), matching), folder)


def _flags(token: Mapping[str, Any]) -> tuple[str, ...]:
    """How transformers finds an added token, where not as it finds special ones."""
    word = token.get("special") is False
    said = {NORMALIZED: word, **token, ALWAYS: word}  # where nothing says it, words are normalized
    return tuple(flag for flag in FLAGS if said.get(flag) is True)


_ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"))
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_KEPT = ("chat_template", "padding_side", "truncation_side")


def _settings(folder: Path, end: str | None) -> dict[str, Any]:
    """What tokens are for, and how a chat is written; nothing where it is what every export of GPT-2 says."""
    said: dict[str, Any] = {}
    for name in (MAP, SETTINGS):
        if (folder / name).is_file():
            said |= _object(folder / name)
    kept = {key: said[key] for key in _KEPT if isinstance(said.get(key), str)}
    kept |= {role: text for role in _ROLES if (text := _text(said.get(role)))}
    for key in _LISTS:
        if isinstance(said.get(key), list) and (texts := [text for token in said[key] if (text := _text(token))]):
            kept[key] = texts
    if (folder / CHAT).is_file():
        kept["chat_template"] = read_whole(folder / CHAT, TEXT_BYTES).decode(errors="replace")
    usual = dict.fromkeys(("bos_token", "eos_token", "unk_token"), end)
    return {} if kept.items() <= usual.items() else kept


def _text(token: Any) -> str:
    """A token, which may be written with its flags."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _checked(pairs: BytePairs, folder: Path) -> BytePairs:
    """The same, when names are text, ids are numbers, and merges are pairs.

    Raises:
        UserError: They are not, or a space is put before each text.
    """
    ids = {**pairs.vocab, **pairs.specials}
    if not all(isinstance(token, str) and type(i) is int for token, i in ids.items()):
        raise UserError("its vocabulary must be whole numbers by text")
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs.merges):
        raise UserError("its merges must be pairs of tokens")
    if (folder / SETTINGS).is_file() and _object(folder / SETTINGS).get("add_prefix_space"):
        raise UserError(_PREFIX_SPACE)
    return pairs


_PREFIX_SPACE = "it has add_prefix_space, which puts a space before each text, and ours change no text"


def _pattern(words: Any) -> str:
    """The regular expression of a word in a byte-level tokenizer.json.

    Raises:
        UserError: Words are cut in a way that none can say.
    """
    steps = words.get("pretokenizers") if isinstance(words, dict) and words.get("type") == "Sequence" else [words]
    match steps:
        case [*_, {"type": "ByteLevel", "add_prefix_space": True}]:
            raise UserError(_PREFIX_SPACE)
        case [{"type": "ByteLevel"} as last] if last.get("use_regex", True):
            return GPT2_PATTERN
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False},
        ]:
            return from_oniguruma(pattern)
    raise UserError(f"its pre_tokenizer {_name(words)} cuts words in another way than one pattern")


def _end(folder: Path, specials: dict[str, int]) -> str | None:
    """The special token that ends a document: what tokenizer_config.json or config.json says, or GPT-2's own."""
    for name in (SETTINGS, MAP):
        if (folder / name).is_file() and (token := _text(_object(folder / name).get("eos_token"))) in specials:
            return token
    ends = _object(folder / "config.json").get("eos_token_id") if (folder / "config.json").is_file() else None
    by_id = {i: token for token, i in specials.items() if type(i) is int}
    if isinstance(ends, int) and ends in by_id and END_OF_TEXT not in specials:
        return by_id[ends]
    return END_OF_TEXT if END_OF_TEXT in specials else None


def framing(folder: Path) -> str:
    """What the tokenizer of a Hugging Face folder puts around each text, in a line; nothing where it puts nothing.

    Ours is not told: its ids are those of the text alone. Of characters the line says what unknown ones are.

    Raises:
        UserError: A file cannot be read.
    """
    whole = _object(folder / WHOLE) if (folder / WHOLE).is_file() else {}
    match whole.get("model"):
        case {"type": "WordLevel", "unk_token": str(other), "vocab": dict(words)} if other in words:
            return f"a character that is not in its vocabulary is an error here, and not {other!r} as in transformers"
    before, after, unknown = _around(whole.get("post_processor"))
    settings = _object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    for place, key, token in ((before, "add_bos_token", "bos_token"), (after, "add_eos_token", "eos_token")):
        if settings.get(key) is True and not place:
            said = settings.get(token)
            place.append(str(said.get("content") if isinstance(said, dict) else said))
    if unknown:
        return f"its post_processor {', '.join(unknown)} is not applied: ids are those of the text alone"
    parts = [f"{' '.join(tokens)} {where}" for tokens, where in ((before, "before"), (after, "after")) if tokens]
    if not parts:
        return ""
    spelled = f"{''.join(before)}TEXT{''.join(after)}"
    return (
        f"its tokenizer puts {' and '.join(parts)} each text, and here nothing is put; with them, in Python:"
        f" tokenizer.encode({spelled!r}, allow_special=True)"
    )


def _around(step: Any) -> tuple[list[str], list[str], list[str]]:
    """The tokens that a post_processor puts before and after a text, and what else it does, by name."""
    match step:
        case None | {"type": "ByteLevel"}:  # ByteLevel moves offsets alone
            return [], [], []
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": [str(first), _], "sep": [str(last), _]}:
            return [first], [last], []
        case {"type": "TemplateProcessing", "single": [*pieces]}:
            names = [_piece(piece) for piece in pieces]
            if names.count("") == 1 and None not in names:
                place = names.index("")
                return [n for n in names[:place] if n], [n for n in names[place + 1 :] if n], []
        case {"type": "Sequence", "processors": [*steps]}:
            doing = [found for part in steps if any(found := _around(part))]
            if len(doing) < 2:  # two would not see each other's tokens as part of the text
                return doing[0] if doing else ([], [], [])
    return [], [], [_name(step)]


def _piece(piece: Any) -> str | None:
    """A piece of a template: a token, or the text as nothing."""
    match piece:
        case {"SpecialToken": {"id": str(token)}}:
            return token
        case {"Sequence": _}:
            return ""
    return None


def _object(path: Path) -> dict[str, Any]:
    values = load_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path.name} must be an object")
    return values


def _name(part: Any) -> str:
    """What a part of a tokenizer.json is called; of a sequence, what its parts are."""
    if not isinstance(part, dict):
        return repr(part)
    parts = part.get("pretokenizers") or part.get("normalizers") or part.get("processors")
    return f"{part.get('type')} ({', '.join(map(_name, parts))})" if isinstance(parts, list) else str(part.get("type"))
