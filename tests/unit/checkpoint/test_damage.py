"""Damaged, foreign and hostile checkpoints are refused, in one line that names the file."""

import errno
import json
import os
import re
import shutil

import pytest
import torch

from groundup.checkpoint import folders, model_folder
from groundup.checkpoint.folders import find_model
from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.files import atomic as files
from groundup.files import manifest as manifests


@pytest.mark.fault(
    "A5",
    "a bit of any file of a checkpoint is flipped",
    "refused; the message names the folder",
)
def test_every_flipped_bit_is_refused(record_property, store, save):
    path = save(1)
    generator = torch.Generator().manual_seed(0)
    candidates = sorted(p for p in path.iterdir())
    sizes = torch.tensor([float(p.stat().st_size) for p in candidates])
    # Small files as often as large ones: a flipped bit in the manifest matters as much.
    chosen = torch.multinomial(sizes.sqrt(), 1000, replacement=True, generator=generator)
    caught = 0
    for i in chosen.tolist():
        file = candidates[i]
        original = file.read_bytes()
        bit = int(torch.randint(len(original) * 8, (1,), generator=generator))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            with pytest.raises(UserError) as refused:
                store.load(path)
            assert str(path) in str(refused.value)
            caught += 1
        finally:
            file.write_bytes(original)
    assert caught == 1000
    store.load(path)
    record_property("figure", f"{caught:,} of 1,000 bits")


@pytest.mark.fault(
    "A6",
    "a file of a checkpoint is cut, at every 4 KiB, after its first byte and before its last; emptied; missing",
    "refused in one line that names the file, and its size and the size it should have",
)
def test_cut_files_are_named(record_property, store, save):
    path = save(1)
    n = 0
    for file in path.iterdir():
        original = file.read_bytes()
        last = len(original.rstrip()) - 1  # a manifest without its last newline says the same
        for size in sorted({0, 1, *range(4096, len(original), 4096), last}):
            file.write_bytes(original[:size])
            with pytest.raises(UserError) as error:
                store.load(path)
            assert file.name in str(error.value)
            assert "\n" not in str(error.value)
            if file.name != files.MANIFEST:
                assert f"{size} bytes instead of {len(original)}" in str(error.value)
            n += 1
        file.unlink()
        with pytest.raises(UserError, match=file.name):
            store.load(path)
        file.write_bytes(original)
    assert n > 30
    store.load(path)
    record_property("figure", f"{n} of {n} cuts")


@pytest.mark.fault(
    "B4",
    "a manifest names files outside its folder",
    "refused as damaged",
)
@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "sub/config.json", "..", ".hidden", "a\\nb", ""])
def test_a_manifest_cannot_name_files_elsewhere(store, save, name):
    path = save(1)
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"config.json"', f'"{name}"'))
    with pytest.raises(UserError, match="is not a manifest"):
        store.load(path)


@pytest.mark.fault(
    "B4",
    "a link stands in place of a file of a checkpoint",
    "refused: the file is missing",
)
def test_a_link_in_place_of_a_file_is_refused(store, save, tmp_path):
    path = save(1)
    target = tmp_path / "elsewhere"
    (path / "config.json").rename(target)
    (path / "config.json").symlink_to(target)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        store.load(path)


@pytest.mark.fault(
    "A4",
    "the newest checkpoint is damaged",
    "it is skipped by name, and the one before it is loaded",
)
def test_damaged_newest_is_skipped_by_name(store, save):
    save(1)
    newest = save(2)
    (newest / "training.json").write_text("{}")
    notes = []
    assert store.latest_verified(notes.append).state["step"] == 1
    assert len(notes) == 1
    assert notes[0].startswith("skipped step-0000002: ")
    assert "training.json is damaged" in notes[0]


def test_keeps_the_last_and_the_best(store, save):
    for step in range(1, 8):
        save(step, is_best=step in (2, 3))
    assert [p.name for p in store.paths()] == ["step-0000003", "step-0000006", "step-0000007"]
    assert store.load_best(pytest.fail).state["step"] == 3
    save(8, is_best=True)
    save(9)
    assert [p.name for p in store.paths()] == ["step-0000008", "step-0000009"]


@pytest.mark.fault(
    "A4",
    "the newest checkpoint cannot be read: a bad sector, no permission, a manifest of an odd form or that is no file",
    "it is skipped by name, and the one before it is loaded",
)
@pytest.mark.parametrize("how", ["EIO", "EACCES", "odd facts", "odd files", "odd format", "fifo", "zero"])
def test_a_newest_that_cannot_be_read_is_skipped_by_name(store, save, monkeypatch, how):
    save(1)
    newest = save(2)
    manifest = newest / "manifest.json"
    values = json.loads(manifest.read_text())
    if how.startswith("E"):
        whole = manifests.sha256_file

        def refuse(path):
            if path == newest / "model.safetensors":
                raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)), str(path))
            return whole(path)

        monkeypatch.setattr(manifests, "sha256_file", refuse)
    elif how == "odd facts":
        values["files"]["config.json"] = ["bytes", "sha256"]
        manifest.write_text(json.dumps(values))
    elif how == "odd files":
        manifest.write_text(json.dumps(values | {"files": ["config.json"]}))
    elif how == "odd format":
        manifest.write_text(json.dumps(values | {"format": 99}))
    else:
        manifest.unlink()
        os.mkfifo(manifest) if how == "fifo" else manifest.symlink_to("/dev/zero")
    notes = []
    assert store.latest_verified(notes.append).state["step"] == 1
    assert len(notes) == 1
    assert re.match(r"skipped step-0000002: .*(model.safetensors|manifest.json)", notes[0])
    assert find_model(store.folder.parent).name == "step-0000001"


@pytest.mark.fault(
    "A4",
    "the best checkpoint is damaged when a run ends",
    "it is passed over by name, and the run ends with the one that was the best before it, else with the newest",
)
def test_a_damaged_best_is_passed_over_by_name(store, save):
    save(1, is_best=True)
    store.keep_last = 9
    for step in (2, 3, 4):
        save(step, is_best=step < 4)
    for damaged, left in (("step-0000003", 2), ("step-0000002", 1), ("step-0000001", 4)):
        (store.folder / damaged / "model.safetensors").write_bytes(b"")
        notes = []
        assert store.load_best(notes.append).state["step"] == left
        assert notes[0].startswith("skipped step-0000003: ")
        assert notes[-1].startswith(f"skipped {damaged}: ")


@pytest.mark.fault(
    "A13",
    "step 10,000,000; folders of the user's beside the checkpoints, whose names look like theirs",
    "checkpoints are ordered by number and kept; what is not exactly a checkpoint's name is neither read nor deleted",
)
def test_names_are_numbers_and_all_else_is_not_ours(store, save):
    for step in (9_999_998, 9_999_999, 10_000_000, 10_000_001):
        save(step)
    assert [path.name for path in store.paths()] == ["step-10000000", "step-10000001"]
    odd = ["step-10000001-keep", "step-mine", "step-00000000000000000001", "step-7", "step-" + "\u0660" * 7]
    for name in odd:
        shutil.copytree(store.folder / "step-10000001", store.folder / name)
    (store.folder / "step-9999997").write_text("a file")
    (store.folder / "step-9999996").symlink_to(store.folder / "step-mine")
    save(10_000_002)
    assert [path.name for path in store.paths()] == ["step-10000001", "step-10000002"]
    assert store.latest_verified(pytest.fail).state["step"] == 10_000_002
    assert find_model(store.folder.parent).name == "step-10000002"
    assert all((store.folder / name).exists() for name in [*odd, "step-9999997", "step-9999996"])


@pytest.mark.fault(
    "B5",
    "a manifest that does not name the weights, one of whose bits is flipped",
    "refused: what is read must be vouched for",
)
def test_what_is_read_must_be_in_the_manifest(store, save):
    path = save(1)
    manifest = path / "manifest.json"
    values = json.loads(manifest.read_text())
    for name in list(values["files"]):
        less = {other: facts for other, facts in values["files"].items() if other != name}
        manifest.write_text(json.dumps(values | {"files": less}))
        with pytest.raises(UserError, match=f"manifest.json is damaged: it does not name {name}"):
            store.load(path)
        if not name.startswith("training"):
            with pytest.raises(UserError, match="does not name"):
                load_model(path)


@pytest.mark.fault(
    "A14",
    "a run drops the checkpoint that a command is reading",
    "the command reads the next one",
)
def test_a_checkpoint_that_vanishes_while_it_is_read(store, save, monkeypatch):
    save(1)
    save(2)
    whole = model_folder.load_tensors
    reads = []

    def slow(path, **how):
        reads.append(path.parent.name)
        if len(reads) == 1:
            save(3)
            save(4)
        return whole(path, **how)

    monkeypatch.setattr(model_folder, "load_tensors", slow)
    assert load_model(store.folder.parent).path.name == "step-0000004"
    assert reads == ["step-0000002", "step-0000004"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": ["gpt"]}, r'config.json: kind must be one of gpt, modern, bigram, got \["gpt"\]'),
        ({"info": "x"}, 'config.json: info must be an object or null, got "x"'),
        ({"model": []}, r"config.json: model must be an object, got \[\]"),
        ({"model": {"n_layer": "x"}}, 'config.json: model.n_layer must be int, got "x"'),
    ],
)
def test_a_config_of_an_odd_form_is_told_by_its_path(store, save, values, message):
    path = save(1) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError, match=message):
        folders.read_config(path)
