"""The drawing of the model is what its script draws."""

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
NAMES = runpy.run_path(str(DOCS / "stream.py"))


def test_the_committed_drawing_is_the_scripts():
    assert NAMES["PICTURE"].read_text("utf-8") == NAMES["drawing"]()


def test_a_block_adds_twice_to_the_stream():
    svg = NAMES["drawing"]()
    assert svg.count("<circle") == 2
    assert all(f'cy="{NAMES["STREAM"]}"' in circle for circle in re.findall("<circle[^>]*>", svg))
