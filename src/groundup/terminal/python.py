"""Python started by this package, which finds the modules of its parent and none of the folder that the user is in."""

import os
import sys
from collections.abc import Mapping


def fresh_python(*words: str, environ: Mapping[str, str] = os.environ) -> tuple[list[str], dict[str, str]]:
    """Command and environment of another Python.

    Without -P it would take random.py of the folder that it starts in for Python's own.

    Args:
        words: `-m MODULE ...` or `-c CODE ...`.
        environ: Its environment, apart from where modules are.
    """
    places = os.pathsep.join(filter(None, sys.path))  # none for the working folder, as a notebook has
    return [sys.executable, "-P", *words], {**environ, "PYTHONPATH": places}
