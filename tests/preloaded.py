"""What the server of forked.py does once, so that none of its children need. It is the last that is imported there."""

import contextlib
import gc

from groundup.cli.train import read_request
from groundup.terminal import waiting, words  # noqa: F401

with contextlib.suppress(ImportError):
    import torch.profiler._cupti_monitor  # noqa: F401

read_request(["shakespeare"])  # reading flags imports half of tyro
gc.collect()
gc.freeze()  # a child that looks for garbage would copy every page of what it shares
