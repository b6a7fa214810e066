import math

import pytest

from groundup.terminal import containers
from groundup.terminal.containers import cores_allowed, memory_left


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files below the folder of control groups, and what the process is told of its own."""

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(containers, "OWN", tmp_path / "own")
    monkeypatch.setattr(containers, "GROUPS", tmp_path / "groups")
    return write


QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n", "cpu.max": "800000 100000\n"}, 3),
        ("0::/a\n", {}, math.inf),
        ("0::/../../a\n", {"cpu.max": "200000 100000\n"}, 2),  # a group outside of what a container sees
        ("4:cpu,cpuacct:/docker/x\n0::/\n", {f"cpu/{QUOTA}": "50000\n", f"cpu/{PERIOD}": "100000\n"}, 0.5),
        ("4:cpu:/x\n", {f"cpu/x/{QUOTA}": "-1\n", f"cpu/x/{PERIOD}": "100000\n"}, math.inf),
        ("4:cpuset:/x\n", {f"cpu/x/{QUOTA}": "50000\n", f"cpu/x/{PERIOD}": "100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_cores_are_those_of_the_narrowest_group(groups, own, files, cores):
    groups(own, files)
    assert cores_allowed() == cores


def test_without_control_groups_nothing_is_limited(groups):
    assert cores_allowed() == memory_left() == math.inf


STAT = "anon 5\ninactive_file 300\ntotal_inactive_file 400\n"


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": STAT}, 400),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "900\n", "memory.stat": STAT}, math.inf),
        ("0::/\n", {"memory.max": "100\n", "memory.current": "900\n", "memory.stat": STAT}, 0),
        ("0::/\n", {"memory.max": "1000\n"}, math.inf),
        (
            "9:memory:/x\n0::/\n",
            {
                "memory/x/memory.limit_in_bytes": "2000",
                "memory/x/memory.usage_in_bytes": "900",
                "memory/x/memory.stat": STAT,
            },
            1500,
        ),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, math.inf),
    ],
)
def test_memory_is_what_the_limit_leaves_and_caches_can_be_dropped(groups, own, files, left):
    groups(own, files)
    assert memory_left() == left
