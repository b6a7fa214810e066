"""The compiled kernels against PyTorch's operations, and against float64."""

import copy
import ctypes
import errno
import itertools
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import needs
from groundup.files import atomic
from groundup.kernels import compiled as module
from groundup.kernels import library
from groundup.kernels import training as training_module
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.kernels.library import DECODING, TRAINING, Library
from groundup.kernels.training import TrainingKernels, load_training_kernels
from groundup.kernels.trust import wrong_in_decoding, wrong_in_training
from groundup.runtime.stored import BLOCK, DTYPES, PlainKernels, Stored, inputs_for, store

sizes = st.tuples(st.integers(1, 18), st.integers(1, 70), st.integers(1, 200))
many_rows = st.tuples(st.integers(33, 70), st.integers(1, 70), st.integers(1, 200))
"""They go another way: a tile of rows at a time."""
for_a_unit = st.tuples(st.integers(9, 32), st.integers(1, 70), st.sampled_from((64, 128, 192, 320)))
"""With 8 bits, a processor's matrix unit multiplies them where it has one."""
seeds = st.integers(0, 2**31)
STUBS = {
    "training": """extern "C" {
void gelu_forward() {} void gelu_backward() {} void relu_squared_forward() {} void relu_squared_backward() {}
void rotate() {} void rotate_backward() {} void attention_forward() {} void attention_backward() {} void dropout() {}
void weight_gradient() {} void cross_entropy() {} void muon_step() {} void adamw_step() {}
double length_of() { return 0; }
void gpt_block_room() {} void gpt_blocks_forward() {} void gpt_block_backward() {}
double gpt_loss() { return 0; } int lanes_in_training() { return 4; }
}""",
    "decoding": """extern "C" {
void linear() {} void blocks() {} void attend_layer() {} void draw() {} void pack() {} int unpack() { return 1; }
int sum() { return 7; } int lanes() { return 4; } float round_rows() { return 0; } long largest_logits() { return 0; }
}""",
}
"""As much of a library as is asked for here, and quickly compiled."""


def wrong_parts(kernels):
    return wrong_in_training(kernels) + wrong_in_decoding(kernels)


def use_sources(monkeypatch, folder, **sources):
    """Let these texts be all sources of the libraries: training and decoding."""
    for name, text in sources.items():
        source = folder / f"{name}.cpp"
        source.write_text(text)
        monkeypatch.setattr(module, name.upper(), Library(name, (source,), "-O0"))
        if name == "training":
            monkeypatch.setattr(training_module, "TRAINING", module.TRAINING)


@pytest.fixture(scope="module")
def compiled():
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    return kernels


@pytest.fixture
def new_tensors_are_nan():
    """Else they may lie where the right numbers lay."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(size, seed, weights):
    n_rows, n_outputs, n_inputs = size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, n_inputs, generator=generator) * 10 ** torch.randn(n_rows, 1, generator=generator)
    weight = torch.randn(n_outputs, n_inputs, generator=generator)
    return x, store(weight, weights), torch.randn(n_outputs, generator=generator)


def exact(x, stored, bias=0):
    return inputs_for(stored, x).double() @ stored.widened().double().T + bias


@needs.compiler
@given(sizes | many_rows | for_a_unit, seeds, st.sampled_from(list(DTYPES)))
@example((63, 1, 88), 65, "int8").via("an activation between two integers")
@settings(max_examples=120)
def test_products_are_those_of_pytorch_up_to_rounding(compiled, size, seed, weights):
    x, stored, bias = draw(size, seed, weights)
    atol = 1e-6 * x.abs().max().item() * size[2] ** 0.5 + 1e-6
    torch.testing.assert_close(compiled.linear(x, stored, bias).double(), exact(x, stored, bias), rtol=1e-5, atol=atol)


@needs.compiler
@given(sizes | many_rows, seeds)
@settings(max_examples=40)
def test_packed_weights_are_the_same_in_another_order(compiled, size, seed):
    x, stored, bias = draw(size, seed, "int8")
    packed = compiled.arranged(stored)
    assert packed.shape == stored.shape
    assert packed.weight.shape != stored.weight.shape
    assert torch.equal(packed.unpacked(), stored.weight)
    spent = Stored(stored.weight.clone(), stored.scale)
    assert torch.equal(compiled.arranged(spent, spend=True).unpacked(), stored.weight)
    assert torch.equal(compiled.linear(x, packed, bias), compiled.linear(x, stored, bias))
    idx = torch.randint(len(stored.weight), (2, 3))
    assert torch.equal(compiled.rows(packed, idx), PlainKernels().rows(stored, idx))
    for wrong in (-1, len(stored.weight)):
        with pytest.raises(IndexError, match="rows are 0 to"):
            compiled.rows(packed, torch.tensor([0, wrong]))


@needs.compiler
def test_packed_matrices_share_blocks_and_no_byte(compiled):
    matrices = [store(torch.randn(n, 500), "int8") for n in (3, 700, 30_000, 40_000, 5, 17, 9000)]
    packed = [compiled.arranged(matrix) for matrix in matrices]
    places = sorted((each.weight.data_ptr(), each.weight.nbytes) for each in packed)
    assert all(start % 64 == 0 for start, _ in places)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(places))
    assert len({each.weight.untyped_storage().data_ptr() for each in packed}) < len(packed)
    for matrix, each in zip(matrices, packed, strict=True):
        assert torch.equal(each.unpacked(), matrix.weight)


@needs.compiler
def test_a_matrix_is_packed_in_whatever_mode_the_one_before_was(compiled, monkeypatch):
    monkeypatch.setattr(compiled, "_rooms", module._Rooms())
    matrix = store(torch.randn(64, 60), "int8")
    with torch.inference_mode():
        compiled.arranged(matrix)
    assert torch.equal(compiled.arranged(matrix).unpacked(), matrix.weight)


@needs.compiler
@given(sizes | for_a_unit, seeds, st.sampled_from(list(DTYPES)))
@example((130, 19, 77), 0, "int8").via("more rows than are multiplied together")
@example((33, 600, 192), 0, "int8").via("several tasks of a matrix unit")
@settings(max_examples=60)
def test_a_row_gives_the_same_bits_in_every_batch(compiled, size, seed, weights):
    x, stored, bias = draw(size, seed, weights)
    alone = [compiled.linear(row[None], stored, bias) for row in x]
    assert torch.equal(compiled.linear(x, stored, bias), torch.cat(alone))


@needs.compiler
@given(st.integers(1, 300_000), seeds)
@settings(max_examples=10)
def test_the_sum_reads_every_number(compiled, n, seed):
    x = torch.randint(-1000, 1000, (n,), dtype=torch.int32, generator=torch.Generator().manual_seed(seed))
    assert compiled.sum(x) == PlainKernels().sum(x) == int(x.sum())


@pytest.mark.parametrize("kernels", [PlainKernels(), pytest.param("compiled", marks=needs.compiler)])
@pytest.mark.parametrize("n_inputs", [768, 3072])
def test_the_largest_sums_are_exact(kernels, n_inputs, request):
    kernels = request.getfixturevalue(kernels) if isinstance(kernels, str) else kernels
    stored = Stored(torch.full((5, n_inputs), 127, dtype=torch.int8), torch.ones(5))
    signs = torch.tensor([1.0, -1.0]).repeat(9)[:, None]  # as many rows as go by a matrix unit
    assert torch.equal(
        kernels.linear(127 * signs.repeat(1, n_inputs), stored), 127.0 * 127 * n_inputs * signs.repeat(1, 5)
    )


@given(sizes, seeds)
def test_eight_bits_lose_at_most_half_a_unit_of_each_weight(size, seed):
    _, n_outputs, n_inputs = size
    weight = torch.randn(n_outputs, n_inputs, generator=torch.Generator().manual_seed(seed))
    stored = store(weight, "int8")
    assert stored.weight.dtype == torch.int8
    assert ((stored.widened() - weight).abs() <= 0.5001 * stored.scale[:, None]).all()
    assert stored.nbytes == weight.numel() + 4 * n_outputs


def test_a_matrix_without_data_is_stored_without_data():
    real, meta = store(torch.randn(3, 4), "int8"), store(torch.empty(3, 4, device="meta"), "int8")
    for have, want in ((meta.weight, real.weight), (meta.scale, real.scale)):
        assert have.is_meta
        assert (have.shape, have.dtype) == (want.shape, want.dtype)


def test_float32_is_taken_over_and_not_copied():
    weight = torch.randn(3, 4)
    assert store(weight, "fp32").weight.data_ptr() == store(weight, "fp32").widened().data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("kernels", [PlainKernels(), pytest.param("compiled", marks=needs.compiler)])
def test_zeros_stay_zeros_and_what_is_no_number_is_seen(kernels, request):
    kernels = request.getfixturevalue(kernels) if isinstance(kernels, str) else kernels
    stored = store(torch.randn(6, 33), "int8")
    x = torch.zeros(3, 33)
    x[1, 4], x[2, 5] = float("nan"), float("inf")
    y = kernels.linear(x, stored)
    assert torch.equal(y[0], torch.zeros(6))
    assert not y[1:].isfinite().any()


@given(sizes, seeds)
def test_activations_lose_at_most_half_a_unit_of_the_largest_in_their_block(size, seed):
    x, stored, _ = draw(size, seed, "int8")
    x[0, 0] = 1e6  # makes its neighbors coarse, and nobody else
    lost = (inputs_for(stored, x) - x).abs()
    for some, loss in zip(x.split(BLOCK, 1), lost.split(BLOCK, 1), strict=True):
        assert (loss <= 0.501 * some.abs().amax(1, keepdim=True) / 127).all()
    assert inputs_for(store(torch.ones(2, size[2]), "fp16"), x) is x


@needs.compiler
def test_the_test_of_the_kernels_sees_what_is_wrong(compiled, new_tensors_are_nan):
    assert wrong_parts(compiled) == []
    for name, part in (
        ("blocks", "blocks"),
        ("_gelu_backward", "GELU"),
        ("_rotate", "rotations"),
        ("_rotate_backward", "rotations"),
        ("muon", "steps of Muon"),
        ("_draw", "draws"),
    ):
        broken = copy.copy(compiled)
        setattr(broken, name, lambda *_: None)
        assert wrong_parts(broken) == [part]
    for name, nothing in (("_step", None), ("_length", 0.0)):
        steps, broken = copy.copy(compiled.adamw), copy.copy(compiled)
        setattr(steps, name, lambda *_, nothing=nothing: nothing)
        broken.adamw = steps
        assert wrong_parts(broken) == ["steps of AdamW"]
    head, broken = copy.copy(compiled.head), copy.copy(compiled)
    head._cross_entropy, broken.head = lambda *_: None, head
    assert wrong_parts(broken) == ["cross-entropy"]
    for dtype in compiled.one_call:
        head, broken = copy.copy(compiled.head), copy.copy(compiled)
        head._gradients, broken.head = {**head._gradients, dtype: lambda *_: None}, head
        assert wrong_parts(broken) == ["gradients of weights"]
    for name, dtype in itertools.product(("forward", "backward"), compiled.attention):
        call, broken = copy.copy(compiled.attention[dtype]), copy.copy(compiled)
        setattr(call, name, lambda *_: None)
        broken.attention = {**compiled.attention, dtype: call}
        assert wrong_parts(broken) == ["attention"]
    for name, dtype in itertools.product(("forward", "backward"), compiled.one_call):
        call, broken = copy.copy(compiled.one_call[dtype]), copy.copy(compiled)
        setattr(call, name, lambda *_: None)
        broken.one_call = {**compiled.one_call, dtype: call}
        assert wrong_parts(broken) == ["blocks in training", "whole losses"]  # these are compared with blocks
    for dtype in compiled.whole_loss:
        loss, broken = copy.copy(compiled.whole_loss[dtype]), copy.copy(compiled)
        loss._call = lambda *_: 1.0
        broken.whole_loss = {**compiled.whole_loss, dtype: loss}
        assert wrong_parts(broken) == ["whole losses"]


@needs.compiler
def test_the_test_of_the_kernels_sees_one_number_that_is_wrong(compiled):
    broken, right = copy.copy(compiled), compiled.blocks

    def blocks(blocks, n_layer, cache, x, *rest):
        right(blocks, n_layer, cache, x, *rest)
        ctypes.cast(x, ctypes.POINTER(ctypes.c_float))[7] += 0.01

    broken.blocks = blocks
    assert wrong_parts(broken) == ["blocks"]


@needs.compiler
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_kernels_are_trusted_in_whatever_mode_they_are_loaded(compiled, mode):
    with mode():
        assert wrong_parts(compiled) == []


class TestBuilding:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        self.said = []
        self.load = lambda: load_kernels.__wrapped__(self.said.append)

    @pytest.fixture
    def use_compiler(self, monkeypatch, tmp_path):
        """Let a script stand for the compiler, as c++ in tmp_path."""

        def use(script):
            compiler = tmp_path / "c++"
            compiler.write_text(script)
            compiler.chmod(0o755)
            monkeypatch.setenv("CXX", str(compiler))

        return use

    def test_no_compiler_is_one_line_and_pytorchs_operations(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert type(self.load()) is PlainKernels
        assert self.said == [
            "no compiled kernels, CPUs are slower, and with 8 bits per weight slowest: there is no C++ compiler"
            " (no-such-compiler)"
        ]

    @needs.compiler
    def test_a_folder_that_cannot_be_made_is_one_line_that_names_the_way_out(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
        (tmp_path / "file").touch()
        assert type(self.load()) is PlainKernels
        (line,) = self.said
        assert "Not a directory" in line
        assert line.endswith("file/cache/groundup'; XDG_CACHE_HOME may name another folder for them")

    @needs.compiler
    def test_a_full_disk_is_one_line_that_names_the_way_out(self, monkeypatch, tmp_path):
        use_sources(monkeypatch, tmp_path, **STUBS)

        def refuse(operation, path):
            if operation == "write" or operation == "fsync":
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(atomic, "fault_point", refuse)
        assert type(self.load()) is PlainKernels
        assert self.said[1].endswith(".so: No space left on device; XDG_CACHE_HOME may name another folder for them")
        assert [path.suffix for path in (tmp_path / "groundup").iterdir()] == [".lock"]

    def test_a_compiler_that_fails_is_one_line(self, monkeypatch, tmp_path):
        use_sources(monkeypatch, tmp_path, training="int main( {")
        assert type(self.load()) is PlainKernels
        assert len(self.said) == 2
        assert "the compiler fails" in self.said[1]
        assert "\n" not in self.said[1]

    def test_a_message_of_any_bytes_is_one_line(self, use_compiler):
        use_compiler("#!/bin/sh\nprintf '\\377\\376 error \\200\\n' >&2\nexit 1\n")
        assert type(self.load()) is PlainKernels
        assert " error " in self.said[-1]
        assert "the compiler fails: " in self.said[-1]

    @needs.compiler
    @pytest.mark.parametrize("library", ["training", "decoding"])
    def test_a_library_of_another_content_is_one_line_and_does_not_stay(self, monkeypatch, tmp_path, library):
        use_sources(monkeypatch, tmp_path, **STUBS | {library: "int other;"})
        assert type(self.load()) is PlainKernels
        assert "no compiled kernels" in self.said[-1]
        assert "the compiler made a library without" in self.said[-1]
        assert not list((tmp_path / "groundup").glob(f"{library}*.so"))

    def test_one_compiler_that_fails_ends_the_other_and_those_that_it_has_called(
        self, monkeypatch, tmp_path, use_compiler
    ):
        (tmp_path / "bad.cpp").touch()
        (tmp_path / "long.cpp").touch()
        use_compiler(
            '#!/bin/sh\ncase "$*" in\n*bad.cpp*) until [ -s "$0.pid" ]; do sleep 0.01; done; echo error >&2; exit 1;;\n'
            '*) sleep 600 & echo $! > "$0.pid"; wait;;\nesac\n'
        )
        sources = (tmp_path / "bad.cpp", tmp_path / "long.cpp")
        monkeypatch.setattr(module, "TRAINING", Library("training", sources, "-O0"))
        assert type(self.load()) is PlainKernels
        assert self.said[-1].endswith("the compiler fails: error")
        called = int((tmp_path / "c++.pid").read_text())
        for _ in range(1000):  # until the system has buried it
            state = Path(f"/proc/{called}/stat")
            if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.01)
        else:
            pytest.fail("it goes on")

    @pytest.mark.skipif(sys.platform != "linux", reason="Linux tells groups and sessions there")
    def test_a_compiler_is_a_group_of_its_own_within_the_session(self, monkeypatch, tmp_path, use_compiler):
        (tmp_path / "one.cpp").touch()
        use_compiler('#!/bin/sh\ncut -d " " -f 1,5,6 /proc/$$/stat > "$0.stat"\nexit 1\n')
        monkeypatch.setattr(module, "TRAINING", Library("training", (tmp_path / "one.cpp",), "-O0"))
        self.load()
        pid, group, session = map(int, (tmp_path / "c++.stat").read_text().split())
        assert (group, session) == (pid, os.getsid(0))

    def test_who_needs_it_waits_for_what_was_begun_ahead(self, monkeypatch, tmp_path, use_compiler):
        use_compiler(
            '#!/bin/sh\necho >> "$0.calls"\n'
            + "".join(  # nothing is made before it is needed
                f'case "$*" in *{source}*) until [ -e "$0.{each.name}" ]; do sleep 0.01; done;; esac\n'
                for each in (TRAINING, DECODING)
                for source in each.sources
            )
            + "sleep 0.3\n"
            'while [ "$1" ]; do if [ "$1" = -o ]; then echo made > "$2"; fi; shift; done\n'
        )

        def say(line):
            self.said.append(line)
            (tmp_path / f"c++.{line.split()[4]}").touch()

        monkeypatch.setattr(library, "_AHEAD", [])  # tests before this one may have begun with some
        library.compile_ahead()
        process = library._AHEAD.pop()
        for each in (TRAINING, DECODING):
            assert library.shared_library(each, say).read_text() == "made\n"
            assert self.said.pop() == f"compiling the kernels of {each.name} for this machine, once"
        assert process.wait() == 0
        assert len((tmp_path / "c++.calls").read_text()) == len(TRAINING.sources) + len(DECODING.sources) + 2
        library.compile_ahead()
        assert not library._AHEAD
        monkeypatch.setenv("CXX", "no-such-compiler")
        library.compile_ahead()
        assert not library._AHEAD

    @needs.compiler
    @pytest.mark.parametrize(
        "damage", [lambda data: b"half", lambda data: data[: len(data) // 2], lambda data: data[:-1]]
    )
    def test_built_again_when_damaged_and_else_once(self, monkeypatch, tmp_path, damage):
        use_sources(monkeypatch, tmp_path, **STUBS)
        monkeypatch.setattr(module, "wrong_in_training", lambda kernels: [])
        monkeypatch.setattr(module, "wrong_in_decoding", lambda kernels: [])
        made = library.shared_library(module.TRAINING, self.said.append)
        made.write_bytes(damage(made.read_bytes()))  # not loaded yet, so no process has it mapped
        assert isinstance(self.load(), CompiledKernels)
        assert [line.split()[4] for line in self.said] == ["training", "training", "decoding"]
        assert isinstance(self.load(), CompiledKernels)
        assert len(self.said) == 3
        there = [".json", ".lock", ".lock", ".lock", ".so", ".so"]
        assert sorted(path.suffix for path in (tmp_path / "groundup").iterdir()) == there

    @needs.compiler
    def test_what_was_right_is_tested_once_and_what_was_wrong_each_time(self, monkeypatch, tmp_path):
        use_sources(monkeypatch, tmp_path, **STUBS)
        tested, found = [], [["blocks"], [], ["draws"]]
        monkeypatch.setattr(module, "wrong_in_training", lambda kernels: [])
        monkeypatch.setattr(module, "wrong_in_decoding", lambda kernels: tested.append(1) or found[len(tested) - 1])
        assert type(self.load()) is PlainKernels
        assert isinstance(self.load(), CompiledKernels)
        assert isinstance(self.load(), CompiledKernels)
        assert len(tested) == 2
        torch.set_num_threads(torch.get_num_threads() + 1)  # another way through the same code
        try:
            assert type(self.load()) is PlainKernels
        finally:
            torch.set_num_threads(torch.get_num_threads() - 1)

    @needs.compiler
    def test_wrong_numbers_are_one_line_and_pytorchs_operations(self, monkeypatch, tmp_path, new_tensors_are_nan):
        use_sources(monkeypatch, tmp_path, **STUBS)
        assert type(self.load()) is PlainKernels
        others = "GELU, squared ReLU, gradients of weights, steps of Muon, steps of AdamW, cross-entropy, rotations"
        others += ", dropout, attention, blocks in training, whole losses"
        assert f"wrong numbers here ({others}, fp32, fp16, bf16, int8, draws, largest logits, blocks)" in self.said[-1]

    @needs.compiler
    def test_training_needs_no_more_than_its_own(self, monkeypatch, tmp_path):
        use_sources(monkeypatch, tmp_path, training=STUBS["training"], decoding="int main( {")
        monkeypatch.setattr(training_module, "wrong_in_training", lambda kernels: [])
        kernels = load_training_kernels.__wrapped__(self.said.append)
        assert type(kernels) is TrainingKernels
        assert self.said == ["compiling the kernels of training for this machine, once"]
        assert type(self.load()) is PlainKernels

    @needs.compiler
    @pytest.mark.skipif(
        not any(Path(torch.__file__).with_name("lib").glob("libgomp*")), reason="PyTorch has not GNU's OpenMP here"
    )
    @pytest.mark.parametrize("said", [None, "200"])
    def test_threads_of_a_second_openmp_sleep_at_once_unless_a_person_says_otherwise(self, monkeypatch, tmp_path, said):
        use_sources(monkeypatch, tmp_path, **STUBS)
        monkeypatch.setattr(training_module, "wrong_in_training", lambda kernels: [])
        monkeypatch.setenv("KMP_BLOCKTIME", "")  # set back at the end
        monkeypatch.delenv("KMP_BLOCKTIME")
        if said:
            monkeypatch.setenv("KMP_BLOCKTIME", said)
        assert type(load_training_kernels.__wrapped__(self.said.append)) is TrainingKernels
        assert os.environ["KMP_BLOCKTIME"] == (said or "0")
