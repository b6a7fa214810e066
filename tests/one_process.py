"""Which tests share a process where pytest-xdist runs several: those of a file that makes something for all of them."""

import functools
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


class OneProcess(LoadScopeScheduling):
    """Tests go to whichever process is free, one by one; those of a file with a fixture of the module, to one process.

    A fixture of the module would be made once in each of them: the site, a server, a browser. (pytest-xdist's own way,
    `@pytest.mark.xdist_group`, needs a mark in the id of the test, which pytest 9.2 does not let it set.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return path if makes_something_for_all(path) else nodeid

    def _pending_of(self, workload: dict[str, dict[str, bool]]) -> int:
        """Forgets what is done: pytest-xdist would count it again at each of the six messages about a test."""
        for scope in [scope for scope, tests in workload.items() if all(tests.values())]:
            del workload[scope]
        return super()._pending_of(workload)


@functools.cache
def makes_something_for_all(path: str) -> bool:
    """Whether a file of tests has a fixture of the module."""
    return 'scope="module"' in (ROOT / path).read_text(encoding="utf-8")
