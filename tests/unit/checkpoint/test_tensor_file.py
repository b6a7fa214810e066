import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from groundup.checkpoint.tensor_file import _DTYPES, each_tensor, load_tensors, save_tensors


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_those_of_the_library(tmp_path, empty, metadata):
    tensors = {}
    if not empty:
        tensors = {f"{i}.ü": (torch.arange(3 * i) - 2).reshape(3, i).to(t) for i, t in enumerate(_DTYPES, 1)}
        tensors |= {"scalar": torch.tensor(3.0), "none": torch.empty(0, 4), "transposed": torch.randn(2, 3).t()}
    facts = save_tensors(tmp_path / "ours", tensors, metadata=metadata)
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "theirs", metadata=metadata)
    data = (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes() == data
    assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    loaded = load_tensors(tmp_path / "ours")
    assert loaded.keys() == tensors.keys()
    assert all(loaded[name].equal(t) for name, t in tensors.items())


def test_a_type_without_a_name_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"cannot store z \(torch.complex64\)"):
        save_tensors(tmp_path / "file", {"z": torch.zeros(1, dtype=torch.complex64)})
    assert not (tmp_path / "file").exists()


def test_blocks_are_the_tensor_and_are_in_memory_one_at_a_time(tmp_path):
    def mapped():  # of files, in bytes
        status = Path("/proc/self/status").read_text() if sys.platform == "linux" else "RssFile: 0"
        return int(status.split("RssFile:")[1].split()[0]) << 10

    tensors = {"large": torch.randn(4000, 2500), "none": torch.empty(0, 4), "small": torch.arange(5)}
    save_tensors(tmp_path / "file", tensors)
    before, most = mapped(), 0
    for name, blocks in each_tensor(tmp_path / "file"):
        n_rows = 0
        for block in blocks:
            assert torch.equal(block, tensors[name][n_rows : n_rows + len(block)])
            n_rows, most = n_rows + len(block), max(most, mapped())
        assert n_rows == len(tensors[name])
    assert most - before < tensors["large"].nbytes / 4
