# %% [markdown]
# # Solutions: GPT-2
#
# One way to solve each exercise of [`gpt2`](../gpt2.ipynb). Yours may look different: what counts is that the checks pass.

# %%
from torch import Tensor

from groundup.learn.exercises import exercises

check = exercises("gpt2", strict=True)

# %% [markdown]
# **Exercise 1.** Part by part, as `groundup.planner.params` lists them.

# %%


def gpt2_parameters(n_layer: int, n_embd: int, vocab_size: int, block_size: int) -> int:
    """All parameters of a GPT-2."""
    norm = 2 * n_embd  # gain and bias
    attention = 3 * n_embd * n_embd + 3 * n_embd + n_embd * n_embd + n_embd
    mlp = 4 * n_embd * n_embd + 4 * n_embd + 4 * n_embd * n_embd + n_embd
    embeddings = (vocab_size + block_size) * n_embd
    return embeddings + n_layer * (2 * norm + attention + mlp) + norm


check("gpt2_parameters", gpt2_parameters)

# %% [markdown]
# **Exercise 2.** Embeddings are tables and no layers: they stay as they are.

# %%


def to_hugging_face(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The name and the tensor as Hugging Face stores them."""
    is_matrix_of_a_block = name.startswith("h.") and tensor.dim() == 2
    return f"transformer.{name}", tensor.T if is_matrix_of_a_block else tensor


check("to_hugging_face", to_hugging_face)

# %% [markdown]
# **Exercise 3.** $x A^T$ has $r$ numbers and $(x A^T) B^T$ has $D$: as one matrix that is $B A$.

# %%


def merged(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The weight with its change added."""
    rank = a.shape[0]
    return w + alpha / rank * (b @ a)


check("merged", merged)

# %% [markdown]
# **Exercise 4.** `max` with a key returns the first of equal ones.

# %%


def answers(logprobs: list[list[float]]) -> tuple[int, int]:
    """The index of the answer by sum (acc) and by mean (acc_norm); of equal ones the first."""
    places = range(len(logprobs))
    by_sum = max(places, key=lambda k: sum(logprobs[k]))
    by_mean = max(places, key=lambda k: sum(logprobs[k]) / len(logprobs[k]))
    return by_sum, by_mean


check("answers", answers)
