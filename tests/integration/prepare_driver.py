"""A preparation in a process of its own, for tests that kill it. Its source keeps a diary, and may kill its worker."""

import argparse
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from groundup.config.data import ShardConfig
from groundup.config.errors import UserError
from groundup.formats.document import Document
from groundup.prepare.executors import run_here, run_processes
from groundup.prepare.executors_ray import run_ray
from groundup.prepare.prepare import prepare
from groundup.tokenizer.char import CharTokenizer

LAYOUT = ShardConfig(shard_tokens=7001, val_rule="hash", val_fraction=0.2)


@dataclass(frozen=True)
class Lines:
    """Each file is a part, each line a document."""

    folder: Path
    diary: Path
    nap: float
    deadly: Path | None
    """The worker that finds this file removes it and dies."""
    name: str = "lines"

    def describe(self):
        return {"files": len(self.parts())}

    def parts(self):
        return sorted(map(str, self.folder.iterdir()))

    def read(self, part, skipped):
        self._note(f"begin {part}")
        self._note(f"process {os.getpid()}")
        time.sleep(self.nap)
        for k, line in enumerate(Path(part).read_text().splitlines()):
            yield Document(line)
            if k == 20 and self.deadly:
                with contextlib.suppress(FileNotFoundError):  # another worker was faster, perhaps by a hair
                    self.deadly.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
        self._note(f"memory {psutil.Process().memory_info().rss}")

    def _note(self, text):
        with self.diary.open("a") as file:
            file.write(f"{text}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("diary", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--nap", type=float, default=0.0)
    parser.add_argument("--deadly", type=Path)
    parser.add_argument("--shard-tokens", type=int, default=LAYOUT.shard_tokens)
    options = parser.parse_args()
    source = Lines(options.texts, options.diary, options.nap, options.deadly)
    layout = ShardConfig(shard_tokens=options.shard_tokens, val_rule="hash", val_fraction=0.2)
    executor = run_processes(options.workers) if options.workers > 1 else run_here
    if options.ray:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
        executor = run_ray()
    try:
        prepare(source, CharTokenizer([chr(i) for i in range(32, 127)]), options.out, layout, executor=executor)
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
