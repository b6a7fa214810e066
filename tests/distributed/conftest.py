"""Ranks as processes that are forked from a server which has imported everything: starting one takes milliseconds."""

from multiprocessing.connection import wait
from pathlib import Path

import pytest
import ranks
from torch.distributed import TCPStore

from forked import server


class Team:
    """Processes that believe torchrun has started them."""

    def __init__(self, size, function, folder, per_rank=None, **arguments):
        context = server()
        # As torchrun does: the store belongs to the one who starts the ranks, and outlives each of them.
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.folder, self.pipes, self.processes = Path(folder), [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            each = {**arguments, **(per_rank[rank] if per_rank else {})}
            process = context.Process(
                target=ranks.enter, args=(theirs, function, rank, size, self.store.port, str(folder), each), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def results(self, seconds=240.0):
        """What each rank returned; None of one that died."""
        values = [None] * len(self.pipes)
        waiting = dict(zip(self.pipes, range(len(self.pipes)), strict=True))
        while waiting:
            ready = wait(list(waiting), timeout=seconds)
            assert ready, f"ranks {sorted(waiting.values())} are still at work: {self.texts()}"
            for pipe in ready:
                rank = waiting.pop(pipe)
                try:
                    values[rank] = pipe.recv()
                except EOFError:
                    values[rank] = None
        for process in self.processes:
            process.join(60)
        return values

    def text(self, rank):
        """What a rank has printed, on both streams, but for what PyTorch says of a machine without a name."""
        path = self.folder / f"rank{rank}.txt"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return "".join(line for line in lines if "The hostname of the client socket cannot be retrieved" not in line)

    def texts(self):
        return "\n".join(f"rank {rank}: {self.text(rank)}" for rank in range(len(self.pipes)))

    def stop(self):
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture
def start(tmp_path):
    """start(size, function, **arguments) -> Team, at work in tmp_path; what is left of it is killed after the test."""
    teams = []

    def begin(size, function, **arguments):
        for old in tmp_path.glob("rank*.txt"):
            old.unlink()
        teams.append(Team(size, function, tmp_path, **arguments))
        return teams[-1]

    yield begin
    for team in teams:
        team.stop()
