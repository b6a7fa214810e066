# %% [markdown]
# # 3. Tokenization
#
# A model never sees text. It sees numbers, and somebody decided which numbers before training began. Much of what
# seems strange in language models was decided in that step, which has no neural network in it at all: that they cannot
# spell, stumble over long numbers, cost more in Hindi than in English, and behave oddly after a space.
#
# Here we make that decision ourselves: from characters to bytes, from bytes to byte pair encoding (BPE), by hand, then
# with the library's trainer, then with GPT-2's own vocabulary. And then we look at each of those oddities, on real
# tokens.
#
# *Less than half a minute on a laptop, without network. You need a little Python.*

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from groundup.inspection.plots import COLORS, curve_axes, visible
from groundup.learn.exercises import exercises

check = exercises("tokenization")

# %% [markdown]
# ## Characters are many, bytes are few
#
# The first two notebooks gave each character a number. That works for Shakespeare's 62. But Unicode has some
# 150,000 characters, and a model that meets one it has no number for can say nothing at all:

# %%
from groundup.config.errors import UserError
from groundup.tokenizer.char import CharTokenizer

try:
    CharTokenizer.from_text(["To be, or not to be"]).encode("Être ou ne pas être")
except UserError as error:
    print(error)

# %% [markdown]
# Computers store text as bytes, and of bytes there are only 256. The usual way from one to the other is UTF-8: what
# ASCII knows keeps its one byte; everything else takes two to four.

# %%
print("char  code point  bytes   in binary")
for character in "aé語🙂":
    data = character.encode()
    print(f"{character:4}  U+{ord(character):06X}  {len(data):5}   {' '.join(f'{byte:08b}' for byte in data)}")

# %% [markdown]
# Read the binary column from the left. A byte that starts with `0` is a character by itself. One that starts with
# `110`, `1110` or `11110` opens a character of two, three or four bytes, and each that goes on with it starts with
# `10`. The other bits, in a row, are the code point. So you can drop into the middle of any file and find the next
# character: skip the bytes that start with `10`.
#
# ### Exercise 1: UTF-8 by hand


# %%
def utf8_bytes(code):
    """The UTF-8 bytes, as a list of integers, of the character with this code point.

    One byte below 0x80, two below 0x800, three below 0x10000, else four. `code >> 6` drops the last six bits,
    `code & 0x3F` keeps only those, and `0x80 |` puts the `10` in front.
    """
    ...


check("utf8_bytes", utf8_bytes)

# %% [markdown]
# With bytes as tokens every text has a number for everything, and 256 rows are enough. But the text becomes long, and a
# model's context and time are counted in tokens. We want few tokens *and* no text that cannot be written. So
# start from bytes, and give the sequences that occur often a number of their own.
#
# ## Byte pair encoding, by hand
#
# The idea is from an article on compression (Gage 1994); Sennrich, Haddow and Birch brought it to language in 2016.
#
# > Find the pair of neighbors that occurs most often. Give it a new number. Replace it everywhere. Repeat.

# %%
text = "tomorrow, and tomorrow, and tomorrow, creeps in this petty pace"
ids = list(text.encode())
print(len(ids), "bytes:", ids[:24], "...")

# %% [markdown]
# ### Exercise 2: the most frequent pair
# If two pairs occur equally often, somebody has to decide, or two machines will learn two vocabularies. Our rule: the
# smaller pair wins, compared as Python compares tuples.


# %%
def most_frequent_pair(ids):
    """The pair of neighbors that occurs most often in a list of integers; of equally frequent ones the smallest.

    Pairs that overlap all count: [7, 7, 7] holds (7, 7) twice.
    """
    ...


check("most_frequent_pair", most_frequent_pair)

# %% [markdown]
# ### Exercise 3: merge


# %%
def merge(ids, pair, new):
    """A new list, with every occurrence of pair replaced by the single number new, from left to right."""
    ...


check("merge", merge)

# %% [markdown]
# The library's trainer does this loop (cleverly: it never counts anything twice). Eight merges on our line:

# %%
from groundup.tokenizer.bpe_train import train_bpe

small = train_bpe([text], vocab_size=256 + 8, specials=())
print(f"start    {len(ids)} tokens")
for i, (left, right) in enumerate(small.merges):
    made = small.decode_bytes([256 + i]).decode()
    # The same vocabulary without the merges still to come: what the text is after this one.
    n_tokens = len(type(small)(small.merges[: i + 1], specials=()).encode(text))
    parts = [visible(small.decode([part])) for part in (left, right)]
    print(f"{256 + i}   {parts[0]:>5} + {parts[1]:<3} = {visible(made):8} {n_tokens} tokens")
print("\n" + "|".join(visible(small.decode([i])) for i in small.encode(text)))

# %% [markdown]
# After eight merges `tomorrow` is well on its way to being one token, because three tomorrows creep in this petty text.
# Nothing here knows what a word is: BPE knows what is *frequent in the text it was trained on*. Remember that sentence;
# most of the rest of this notebook follows from it.
#
# A token may begin with a space, but none reaches across one. Before anything is counted, GPT-2 cuts text into words
# with a regular expression: letters, digits and punctuation apart, each with the space *before* it. Otherwise `dog.`,
# `dog!` and `dog?` would all become tokens of their own.

# %%
import regex

from groundup.tokenizer.bpe import GPT2_PATTERN

print(GPT2_PATTERN)
sample = "I'll creep  in 1599, at 5 o'clock!"
print([visible(word) for word in regex.findall(GPT2_PATTERN, sample)])

# %% [markdown]
# ## On all the plays
#
# Now the real thing: the trainer on the training text of the plays.

# %%
from groundup.corpora.shakespeare import Shakespeare

plays = Shakespeare()
documents = [document for part in plays.parts() for document in plays.read(part, {})]
train_texts = [document.text for document in documents if document.split == "train"]
val_text = "".join(document.text for document in documents if document.split == "val")

ours = train_bpe(train_texts, vocab_size=8192)
tokens = [ours.decode_bytes([256 + i]).decode(errors="replace") for i in range(len(ours.merges))]
print("the first merges:", " ".join(visible(token) for token in tokens[:24]))
print("the last ones:   ", " ".join(visible(token) for token in tokens[-12:]))
print("the longest:     ", " ".join(visible(token) for token in sorted(tokens, key=len)[-8:]))

# %% [markdown]
# The first merges are the pairs of the first notebook's picture; the last ones are whole words, and a cast of
# characters. How much does it save? Because merges are learned in order, a smaller vocabulary is just the
# beginning of a larger one, so one training gives the whole curve. Measured on the text held out:

# %% alt="Bytes per token rise with the vocabulary: 1 with 256 tokens, 1.9 with 512, 2.4 with 1,024, 3.4 with 8,192."
from groundup.tokenizer.bpe import ByteBPE

piece = val_text[:200_000]
n_bytes = len(piece.encode())
sizes = [256, 320, 512, 1024, 2048, 4096, 8191]
rates = [n_bytes / len(ByteBPE(ours.merges[: size - 256], specials=()).encode_array(piece)) for size in sizes]

figure, axes = curve_axes("tokens in the vocabulary", "bytes per token", size=(6.5, 3.5))
axes.plot(sizes, rates, "o-", color=COLORS[0])
for size, rate in zip(sizes, rates, strict=True):
    axes.annotate(f"{rate:.2f}", (size, rate), xytext=(4, -12), textcoords="offset points", size=8)
axes.set_xscale("log", base=2)
axes.set(ylim=(0.8, None))
plt.show()

# %% [markdown]
# Each doubling of the vocabulary buys less than the one before, and each costs: the embedding table grows with it, and
# a rare token's row sees too few examples to be learned. GPT-2 settled at 50,257 for the text of the web.
#
# ### Exercise 4: encode
# Training chose the merges; encoding applies them. The order matters: not the longest token, not the leftmost pair, but
# always the pair that was learned *first*, until none is left that was learned. (For one word; a text is cut into
# words before.)


# %%
def encode_word(word, merges):
    """The ids of one word. merges is a list of pairs; the pair at place i becomes the id 256 + i.

    Start from the bytes of the word. While any pair of neighbors is among merges, merge the one that stands earliest in
    the list, everywhere in the word.
    """
    ...


check("encode_word", encode_word)

# %% [markdown]
# ### Exercise 5: compare what cannot be compared
# A model over bytes has a lower loss per token than a model over words: its question is easier. So the losses of two
# tokenizers cannot be compared, until both are divided by something that no tokenizer can change: the bytes of the
# text.


# %%
def bits_per_byte(loss, n_tokens, n_bytes):
    """From a mean loss in nats per token to bits per byte: a text of n_bytes was n_tokens tokens.

    A nat is 1 / ln 2 bits.
    """
    ...


check("bits_per_byte", bits_per_byte)

# %% [markdown]
# ## GPT-2's vocabulary
#
# The same algorithm, 50,000 merges, learned from 40 GB of web pages. `load_gpt2` reads it from an installed
# package here, and gives the ids that OpenAI's tiktoken gives. From now on, `|` shows where it cuts.

# %%
from groundup.tokenizer.gpt2 import load_gpt2

gpt2 = load_gpt2()


def pieces(text, tokenizer=gpt2):
    """The bytes of every token, as text where they are some."""
    shown = []
    for token in map(tokenizer.decode_bytes, ([i] for i in tokenizer.encode(text))):
        try:
            shown.append(visible(token.decode()))
        except UnicodeDecodeError:
            shown.append("".join(f"<{byte:02x}>" for byte in token))
    return shown


def cut(*texts, tokenizer=gpt2):
    for text in texts:
        print(f"{len(tokenizer.encode(text)):3}  {'|'.join(pieces(text, tokenizer))}")


cut("To be, or not to be: that is the question.", "Hello, world!")

# %% [markdown]
# ### One word, five ways
# To the model these are unrelated numbers. That they mean the same it has to learn from examples, each one anew.

# %%
for word in ("hello", " hello", "Hello", " Hello", "HELLO"):
    print(f"{visible(word):8} {gpt2.encode(word)}")

# %% [markdown]
# ### Spelling
# Ask a model how many r's are in *strawberry*. It is asked about three letters in something it knows as one number:

# %%
cut(" strawberry", "strawberry", " s t r a w b e r r y")
print("\nwhat the model is given:", gpt2.encode(" strawberry"))

# %% [markdown]
# 41236 has no letters. Models that spell have learned the spelling of each token by heart, from texts that happen to
# spell it out. With spaces between, each letter is a token, and counting becomes easy: that is why it helps to ask
# for the spelling first.
#
# ### Reversing
# The reverse of a word is no sequence of its tokens reversed. It is other tokens, rare ones, and more of them:

# %%
for word in (" responsibilities", " lollipop", " tomorrow"):
    cut(word, word[::-1])

# %% [markdown]
# ### Arithmetic
# Digits are merged like letters, by how frequent they were on the web. So column addition, where the ones stand under
# the ones, has no ones to find: the same digit stands alone here, and is the second of three there.

# %%
cut("127 + 677 = 804", "1275 + 6773 = 8048", "12755 + 67733 = 80488", "3.11 > 3.9")
print("\nour vocabulary of the plays, which hold no digits, knows them as bytes, and so never cuts them unevenly:")
cut("12755 + 67733 = 80488", tokenizer=ours)

# %% [markdown]
# Here is every number from 1000 to 9999, by how many tokens it is and where it is cut. Each small square is a number;
# rows are the first two digits, columns the last two.


# %% alt="A map of 9,000 numbers: most are cut in the middle or after one digit; years from 1963 to 2020 stay whole."
def lengths(number):
    return tuple(len(gpt2.decode([i])) for i in gpt2.encode(str(number)))


kinds = {(4,): "1234", (2, 2): "12|34", (1, 3): "1|234", (3, 1): "123|4"}
grid = np.full((100, 100), np.nan)
for number in range(1000, 10_000):
    how = lengths(number)
    grid[number // 100, number % 100] = list(kinds).index(how) if how in kinds else len(kinds)

figure, axes = plt.subplots(figsize=(6.6, 5.4), dpi=100, layout="constrained")
colormap = ListedColormap([COLORS[6], COLORS[0], COLORS[4], COLORS[5], COLORS[1]])
image = axes.imshow(grid[10:], cmap=colormap, vmin=-0.5, vmax=len(kinds) + 0.5, extent=(0, 100, 100, 10), aspect="auto")
axes.set(xlabel="last two digits", ylabel="first two digits", title="how GPT-2 cuts the numbers 1000 to 9999")
bar = figure.colorbar(image, ax=axes, ticks=range(len(kinds) + 1))
bar.ax.set_yticklabels([*kinds.values(), "other"])
plt.show()

whole = [number for number in range(1000, 10_000) if lengths(number) == (4,)]
print(len(whole), "of 9,000 are one token; those that are no year between 1900 and 2020:")
print(*(number for number in whole if not 1900 <= number <= 2020))

# %% [markdown]
# The black dashes are the years people write about, 1963 to 2020; the black dots at the left edge are round numbers.
# That 3112 is cut as 31|12 and 3113 as 3|113 is an accident of what people once wrote on the web. Nobody chose it.
# Newer tokenizers cut every number into pieces of one to three digits by rule.
#
# ### Other languages
# Frequent in the text it was trained on: and GPT-2's text was English. The first article of the Universal
# Declaration of Human Rights, in ten languages:

# %% alt="Tokens for one sentence in ten languages: about 15 in English, up to 90 in Greek, 139 or 233 in Hindi."
article = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
}
by_gpt2 = {language: len(gpt2.encode(text)) for language, text in article.items()}
by_ours = {language: len(ours.encode(text)) for language, text in article.items()}

figure, axes = curve_axes("tokens for the same sentence", "", size=(7.5, 4))
rows = np.arange(len(article))
axes.barh(rows - 0.2, by_gpt2.values(), height=0.38, color=COLORS[0], label="GPT-2's vocabulary")
axes.barh(rows + 0.2, by_ours.values(), height=0.38, color=COLORS[1], label="ours, of the plays")
axes.set_yticks(rows, article)
axes.invert_yaxis()
axes.grid(visible=False, axis="y")
axes.legend(frameon=False)
plt.show()
print(f"Hindi takes {by_gpt2['Hindi'] / by_gpt2['English']:.0f} times as many tokens of GPT-2 as English")
cut("Würde und Rechten", "स्वतन्त्रता")

# %% [markdown]
# Whoever pays by the token pays ten times for the same sentence, and its context holds a tenth of the text. Ours, that
# has read nothing but Shakespeare, falls back to bytes for whatever is not English; and it never fails, because
# every text has bytes.
#
# ### A space at the end
# In GPT-2's vocabulary the space belongs to the word that follows. So a prompt that ends with a space ends with a token
# of its own, which in ordinary text hardly ever comes before a word:

# %%
cut("To be, or not to be", "To be, or not to be ")

ids = gpt2.encode_array("".join(train_texts))
(space,) = gpt2.encode(" ")
at = np.flatnonzero(ids == space)
print(f"\nthe plays are {len(ids):,} tokens; a space alone is {len(at)} of them, here:")
print(", ".join(sorted({gpt2.decode(ids[i : i + 3].tolist()).strip() for i in at})))

# %% [markdown]
# In four million letters there is a space alone only before a handful of words, those whose form with a space is not in
# the vocabulary. A model that learned from this text, asked to go on after `to be `, knows one thing for certain: that
# now come ills, urns, urchins, or the ides of March. The cure is simple: do not end prompts with a space.
#
# ### Strings that are not text
# Between documents GPT-2 was shown a token that no text can spell, number 50256, written `<|endoftext|>`. What if a
# user types these thirteen characters? If the tokenizer turned them into 50256, every user could end the document, and
# with chat models, pretend to be the system. So in this library text is text, and only who asks for it gets the token:

# %%
cut("Hello<|endoftext|>ROMEO:")
print(gpt2.encode("Hello<|endoftext|>ROMEO:"))
print(gpt2.encode("Hello<|endoftext|>ROMEO:", allow_special=True), "with allow_special=True, for text of your own")

# %% [markdown]
# ### Tokens that were never seen
# The vocabulary was learned from one text, the model from another. Names of users of forums that were later left out
# became tokens, but then hardly occurred in training. Their embeddings stayed near where chance had put them, and
# models asked to repeat them went astray (Rumbelow and Watkins 2023).

# %%
cut(" SolidGoldMagikarp", " TheNitromeFan", " externalToEVA", " RandomRedditorWithNo")

train_text = "".join(train_texts)
print("\ntokens that never occur in the plays:")
for name, tokenizer in (("GPT-2's", gpt2), ("ours", ours)):
    never = tokenizer.vocab_size - len(np.unique(tokenizer.encode_array(train_text)))
    print(f"  {name:8} {never:6,} of {tokenizer.vocab_size:6,}")

# %% [markdown]
# If you train on the plays with GPT-2's vocabulary, almost two thirds of the embedding table is of that kind. It is one
# reason why small models on small texts do better with a small vocabulary of their own:
# `groundup tokenizer train`, and `groundup tokenizer show` to see where two of them cut.
#
# ### Half a character
# Tokens are bytes, and a token may end in the middle of a character. Who streams a model's output token by token
# must hold back what is incomplete:

# %%
from groundup.tokenizer.streaming import Utf8Stream

stream = Utf8Stream()
for i in gpt2.encode("Ça va 🙂"):
    token = gpt2.decode_bytes([i])
    print(f"{token!s:16} alone: {token.decode(errors='replace')!r:7} streamed: {stream.push(token)!r}")

# %% [markdown]
# **What to keep**
#
# - Tokens are chosen by frequency in *some* text, before the model exists; the model never sees the letters.
# - Merges apply in the order they were learned. Bytes underneath mean that nothing is unwritable.
# - Compare models with different tokenizers in bits per byte, never in loss per token.
# - Text is text: special tokens come from the program, not from the user.
# - When a model does something stupid with letters, digits, spaces or scripts, look at its tokens first.
#
# Solutions: [solutions/tokenization](solutions/tokenization.ipynb). Next: [training](training.ipynb). The code:
# `src/groundup/tokenizer/bpe.py`, `bpe_train.py`, `gpt2.py`, `streaming.py`.
