"""What starting a server imports: each module is time before the address is printed."""

import subprocess
import sys

CODE = """
import sys
import groundup.cli.serve
assert not {"torch", "numpy", "starlette", "uvicorn", "pydantic"} & set(sys.modules), "before a wrong word is refused"
import torch
before = set(sys.modules)
import groundup.playground.start
print(*sorted(set(sys.modules) - before))
"""


def test_a_server_imports_nothing_of_pytorch_beyond_pytorch_and_no_library_that_it_may_not_need():
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    heavy = (
        "torch",
        "transformers",
        "datasets",
        "matplotlib",
        "rich",
        "tiktoken",
        "tyro",
        "sympy",
        "pandas",
        "websockets",
    )
    assert not [name for name in said if name.split(".")[0] in heavy]
    assert "groundup.training" not in said
    assert "groundup.loop" not in said
    assert len([name for name in said if name.startswith("groundup.")]) < 120
