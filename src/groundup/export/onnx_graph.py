"""A GPT as an ONNX graph, written node by node: input_ids (B, T) to logits (B, T, V), both of free size.

The graph is the model's forward in ONNX's operators (opset 20), not a trace of it: it has no cache and no dropout. The
head is what the model's `head_weight` and `logit_softcap` say; a head that is the embedding is stored once, and
transposed on the fly.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.model.build import Transformer
from groundup.model.ngrams import FACTOR, PRIME
from groundup.model.rope import rope_angles

OPSET, IR_VERSION = 20, 9
"""The first opset with a tanh GELU, and the file version that came with it: onnxruntime 1.17 reads both."""
ONE_FILE_BYTES = 1_500_000_000
"""Larger weights go to a file of their own: protobuf ends at 2 GiB."""


def write_onnx(path: Path, model: Transformer) -> None:
    """Write a model's graph and float32 weights.

    Raises:
        UserError: The onnx package is missing.
    """
    try:
        import onnx
    except ImportError:
        raise UserError("--format onnx needs the onnx package: pip install 'groundup[export]'") from None
    graph = _Graph(model)
    graph.build()
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "gpt",
            [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "tokens"])],
            [
                onnx.helper.make_tensor_value_info(
                    "logits", onnx.TensorProto.FLOAT, ["batch", "tokens", model.config.vocab_size]
                )
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="groundup",
    )
    apart = sum(array.nbytes for array in graph.weights.values()) > ONE_FILE_BYTES
    onnx.save_model(proto, path, save_as_external_data=apart, location=f"{path.name}.data" if apart else None)


class _Graph:
    """Collects nodes and weights; every method adds one layer and returns the name of its result."""

    def __init__(self, model: Transformer) -> None:
        self.config = ModernConfig.of(model.config)
        self.softcap = model.logit_softcap
        tensors, weight = model.state_dict(), model.head_weight.detach()
        self.head = next((name for name, tensor in tensors.items() if tensor.data_ptr() == weight.data_ptr()), "head")
        """The parameter that the head multiplies with, or a name for a matrix that is no parameter."""
        self.state = {name: tensor.float().numpy() for name, tensor in {self.head: weight, **tensors}.items()}
        self.weights: dict[str, NDArray[Any]] = {}
        self.nodes: list[Any] = []

    def build(self) -> None:
        """The whole model, from input_ids to logits."""
        head_dim = self.config.head_dim
        tokens = self.op("Squeeze", self.op("Shape", "input_ids", start=1, end=2), self.ints([0]))
        positions = self.op("Range", self.scalar(0), tokens, self.scalar(1))
        # Added to the scores: 0 where a token may look, -inf above the diagonal.
        side = self.op("Unsqueeze", tokens, self.ints([0]))
        square = self.op("Expand", self.floats([-math.inf]), self.op("Concat", side, side, axis=0))
        mask = self.op("Trilu", square, self.scalar(1), upper=1)
        x = self.op("Gather", self.weight("wte.weight"), "input_ids")
        if self.config.smear:
            shifted = self.op(
                "Slice", self.op("Pad", x, self.ints([0, 1, 0, 0, -1, 0])), *map(self.ints, ([0], [2**31 - 1], [1]))
            )
            x = self.op("Add", x, self.op("Mul", self.weight("smear"), shifted))
        if self.config.ngram > 1:
            x = self.op("Add", x, self.ngrams())
        rotation = None
        if self.config.position == "learned":
            x = self.op("Add", x, self.op("Gather", self.weight("wpe.weight"), positions))
        else:
            angles = rope_angles(
                torch.arange(self.config.block_size), head_dim, self.config.rope_base, share=self.config.rope_share
            )
            tables = [self.constant(name, table.numpy()) for name, table in zip(("cos", "sin"), angles, strict=True)]
            rotation = [self.op("Gather", table, positions) for table in tables]
        x0, first = x, None
        for i in range(self.config.n_layer):
            if self.config.stream_scales:
                x, start = self.op("Mul", self.weight(f"h.{i}.x_scale"), x), self.weight(f"h.{i}.x0_scale")
                x = self.op("Add", x, self.op("Mul", start, x0))
            added, values = self.attention(f"h.{i}.attn", self.norm(f"h.{i}.ln_1", x), mask, rotation, first)
            x = self.op("Add", x, added)
            x = self.op("Add", x, self.mlp(f"h.{i}.mlp", self.norm(f"h.{i}.ln_2", x)))
            first = first or values
        head = self.op("Transpose", self.weight(self.head), perm=[1, 0])
        if cap := self.softcap:
            logits = self.op("MatMul", self.norm("ln_f", x), head)
            bent = self.op("Tanh", self.op("Div", logits, self.floats(cap)))
            self.op("Mul", bent, self.floats(cap), output="logits")
        else:
            self.op("MatMul", self.norm("ln_f", x), head, output="logits")

    def ngrams(self) -> str:
        """The sum of the vectors of runs of tokens, as `model.ngrams` hashes them."""
        longest, n_rows = self.config.ngram, self.scalar(self.config.ngram_rows)
        before = self.ints([0, longest - 1, 0, 0])
        seen = self.op("Pad", self.op("Add", "input_ids", self.scalar(1)), before, self.scalar(0))
        key, total = self.op("Add", "input_ids", self.scalar(1)), None
        for j in range(1, longest):
            back = self.op("Slice", seen, self.ints([longest - 1 - j]), self.ints([-j]), self.ints([1]))
            key = self.op("Mod", self.op("Add", self.op("Mul", key, self.scalar(FACTOR)), back), self.scalar(PRIME))
            vector = self.op("Gather", self.weight("ngrams.weight"), self.op("Mod", key, n_rows))
            total = vector if total is None else self.op("Add", total, vector)
        assert total is not None
        return total

    def attention(self, name: str, x: str, mask: str, rotation: list[str] | None, first: str | None) -> tuple[str, str]:
        """Causal self-attention, as `model.modern` writes it; also the values."""
        n_head, head_dim, kv_heads = self.config.n_head, self.config.head_dim, self.config.kv_heads
        heads = self.ints([0, 0, n_head + 2 * kv_heads, head_dim])
        qkv = self.op("Transpose", self.op("Reshape", self.linear(f"{name}.c_attn", x), heads), perm=[0, 2, 1, 3])
        group = n_head // kv_heads  # queries that share keys and values
        shared = [n_head + head for head in range(kv_heads) for _ in range(group)]
        picks = list(range(n_head)), shared, [head + kv_heads for head in shared]
        q, k, v = (self.op("Gather", qkv, self.ints(pick), axis=1) for pick in picks)  # each (B, H, T, D)
        if self.config.qk_norm:
            q, k = self.rms(q), self.rms(k)
        if rotation is not None:
            q, k = self.rotate(q, rotation), self.rotate(k, rotation)
        if self.config.value_residual and first is not None:
            step = self.op("Mul", self.weight(f"{name}.value_mix"), self.op("Sub", first, v))
            v = self.op("Add", v, step)
        scale = self.floats(1 / math.sqrt(head_dim))
        scores = self.op("Mul", self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])), scale)
        weights = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        y = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        return self.linear(f"{name}.c_proj", self.op("Reshape", y, self.ints([0, 0, n_head * head_dim]))), v

    def rotate(self, x: str, rotation: list[str]) -> str:
        """Turn queries or keys by their positions' angles, as `model.rope` does."""
        half, end = self.config.head_dim // 2, self.config.head_dim
        first = self.op("Slice", x, self.ints([0]), self.ints([half]), self.ints([-1]))
        second = self.op("Slice", x, self.ints([half]), self.ints([end]), self.ints([-1]))
        turned = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, rotation[0]), self.op("Mul", turned, rotation[1]))

    def mlp(self, name: str, x: str) -> str:
        """Two linear layers around an activation."""
        x = self.linear(f"{name}.c_fc", x)
        if self.config.activation.startswith("gelu"):
            x = self.op("Gelu", x, approximate="tanh" if self.config.activation == "gelu_tanh" else "none")
        else:
            x = self.op("Relu", x)
            x = self.op("Mul", x, x) if self.config.activation == "relu2" else x
        return self.linear(f"{name}.c_proj", x)

    def linear(self, name: str, x: str) -> str:
        """A matrix, stored as ONNX's product takes it, and a bias where the model has one."""
        matrix = self.constant(f"{name}.weight", np.ascontiguousarray(self.state[f"{name}.weight"].T))
        product = self.op("MatMul", x, matrix)
        return self.op("Add", product, self.weight(f"{name}.bias")) if self.config.bias else product

    def norm(self, name: str, x: str) -> str:
        """A norm over the last axis."""
        if self.config.norm == "rms":
            return self.op("Mul", self.rms(x), self.weight(f"{name}.weight"))
        bias = [self.weight(f"{name}.bias")] if self.config.bias else []
        inputs = x, self.weight(f"{name}.weight"), *bias
        return self.op("LayerNormalization", *inputs, axis=-1, epsilon=self.config.norm_eps)

    def rms(self, x: str) -> str:
        """Mean square 1 over the last axis."""
        square = self.op("ReduceMean", self.op("Mul", x, x), self.ints([-1]))
        return self.op("Div", x, self.op("Sqrt", self.op("Add", square, self.floats(self.config.norm_eps))))

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add one node."""
        from onnx import helper

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str) -> str:
        """A parameter as it is."""
        return self.constant(name, self.state[name])

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A stored array; the same name stands for the same array."""
        self.weights.setdefault(name, value)
        return name

    def ints(self, values: list[int]) -> str:
        """A list of integers, such as a shape."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def scalar(self, value: int) -> str:
        """One integer."""
        return self.constant(f"int_{value}", np.array(value, dtype=np.int64))

    def floats(self, value: float | list[float]) -> str:
        """Numbers in float32."""
        return self.constant(f"float_{value}", np.array(value, dtype=np.float32))
