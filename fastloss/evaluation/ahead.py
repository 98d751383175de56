"""Compilation of a command's kernels before they are needed, side by side in several processes.

Numba compiles on one core. Here the command takes jobs from one end of a list, and helper processes from the other;
what they compile reaches the command through the kernel cache. Helpers start at the first kernel that is not there, so
a command with a warm cache starts none. A helper ends when its standard input does: however the command ends, no
helper outlives it.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .losses import Evaluated, found, named
from .sources import Selection, open_source

__all__ = ["Job", "compile_ahead", "jobs_of", "serve"]

MOST_HELPERS = 3
"""Helper processes at the most; each takes 150 MB, and a list of jobs rarely has more long ones."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")

Shown = Callable[[str], None]


class Job(NamedTuple):
    """Work that compiles kernels: made of what JSON can hold."""

    label: str
    """Name that progress shows."""
    kind: str
    """`loss` to evaluate some rows, `warmup` of a loss, `statistics` or `details`."""
    given: Any
    """Of a loss, the first row of each prediction and of the target; of statistics, two lists.

    They hold the columns as (dtype, whether they can be written to), and whether there are weights. A third element
    says whether there are groups. Of details, the options that ask for them, and whether there are weights.
    """


def jobs_of(parts: Sequence[tuple[Any, Selection, Sequence[Evaluated]]]) -> list[Job]:
    """Return the jobs of evaluating losses on files, by the first row of each."""
    from .plan import joined

    found: list[tuple[str, Job]] = []
    kinds: set[tuple[str, bool]] = set()
    weights: set[bool] = set()
    grouped = False
    for paths, selection, losses in parts:
        source, selection = open_source(paths, selection)
        with closing(source.batches(selection)) as batches:  # type: ignore[type-var]
            batch = next(batches, None)
        if batch is None:
            continue
        columns = [
            joined(batch.numbers(g)) for g in range(len(batch.groups) - len(selection.by) - bool(selection.show))
        ]
        arrays = [None if c is None else c[0] for c in columns]
        kinds |= {(a.dtype.str, a.flags.writeable) for a in arrays if a is not None}
        weights.add(arrays[-1] is not None)
        grouped |= bool(selection.by)
        rows = [None if a is None else a[:1].tolist() for a in arrays[:-1]]
        found += [(e.loss.record.family, Job(e.label, "loss", rows)) for e in losses]
    statistics = ("", Job("statistics", "statistics", (sorted(kinds), sorted(weights), grouped)))
    # Families share inner functions: each process should meet few families.
    order = ("elementwise", "", "arrays", "rows")
    return [job for _, job in sorted([*found, statistics], key=lambda each: order.index(each[0]))]


def perform(job: Job) -> None:
    """Do a job; what is wrong with its rows is for the evaluation itself to say."""
    import numpy as np

    if job.kind == "warmup":
        found(job.label)[0].warmup()
    elif job.kind == "statistics":
        _perform_statistics(*job.given)
    elif job.kind == "details":
        from .details.collector import warm

        warm(*job.given)
    else:
        (loss,) = named([job.label])
        *preds, target = [None if a is None else np.array(a, np.float64) for a in job.given]
        if target is not None and loss.takes_labels(target):
            target = target.astype(np.int64)
        with suppress(ValueError, TypeError):
            loss.call(loss.prediction(preds, target), target)


def _perform_statistics(kinds: list[tuple[str, bool]], weights: list[bool], grouped: bool = False) -> None:
    import numpy as np

    from .accumulate import Partial
    from .groups.tables import Tables
    from .plan import widened

    one = np.ones(1)
    for dtype, writeable in kinds:
        column = np.ones(1, dtype)
        column.flags.writeable = writeable
        widened(column, one)
    for weighted in weights:
        Partial(weighted).add(one, one if weighted else None)
        if grouped:
            Tables(weighted).add(one, np.zeros(1, np.int32), one if weighted else None, 1)


def _processors() -> int:
    """Return how many processes may compile at once: threads of fastloss, within the processor time of a container."""
    from ..cpu.runtime.threads import get_num_threads

    limit = get_num_threads()
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        limit = min(limit, max(1, round(int(quota) / int(period))))
    return limit


class _Crew:
    """A list of jobs, the processes that help with it, and what they left undone."""

    def __init__(self, jobs: Sequence[Job], shown: Shown | None) -> None:
        self.jobs, self.total, self.begun, self.shown = deque(jobs), len(jobs), 0, shown
        self.label = ""
        self.undone: deque[Job] = deque()
        self.helpers: list[subprocess.Popen[str]] = []
        self.threads: list[threading.Thread] = []
        self.lock = threading.Lock()

    def take(self, first: bool) -> Job | None:
        """Take a job from one end of the list; None where none is left."""
        with self.lock:
            if not self.jobs:
                return None
            self.begun += 1
            return self.jobs.popleft() if first else self.jobs.pop()

    def missed(self) -> None:
        """Show what is compiled, and start helpers at the first kernel that the cache has not got."""
        self.show(self.label)
        if not self.threads:
            for _ in range(min(_processors() - 1, len(self.jobs), MOST_HELPERS)):
                self._start()

    def show(self, label: str) -> None:
        """Show the name of a job that compiles."""
        if self.shown is not None:
            self.shown(f"compiling {self.begun} of {self.total}: {label}")

    def _start(self) -> None:
        # The search path of this process, and no module of the working directory, which `-c` puts first.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        with suppress(OSError):
            helper = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            thread = threading.Thread(target=self._lead, args=(helper,), daemon=True)
            self.helpers.append(helper)
            self.threads.append(thread)
            thread.start()

    def _lead(self, helper: Any) -> None:
        """Give a helper one job after another; one that it does not finish is left to this process."""
        while (job := self.take(first=False)) is not None:
            self.show(job.label)
            answer = ""
            with suppress(OSError, ValueError):
                helper.stdin.write(json.dumps(job) + "\n")
                helper.stdin.flush()
                answer = helper.stdout.readline()
            if not answer:
                self.undone.append(job)
                return

    def work(self) -> None:
        """Do jobs until all are done."""
        while (job := self.take(first=True)) is not None:
            self.label = job.label
            perform(job)
        for thread in self.threads:
            thread.join()
        while self.undone:
            perform(self.undone.popleft())

    def end(self) -> None:
        """End all helpers, at whatever they are."""
        for helper in self.helpers:
            helper.kill()
        for helper, thread in zip(self.helpers, self.threads, strict=True):
            helper.wait()
            thread.join()
            for pipe in (helper.stdin, helper.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def compile_ahead(jobs: Sequence[Job], shown: Shown | None = None) -> None:
    """Do all jobs, with helpers where kernels are not in the cache yet; `shown` gets the name of each that compiles."""
    from numba import config

    from ..cpu.runtime import cache

    if config.DISABLE_JIT or cache.directory() is None:
        return
    crew = _Crew(jobs, shown)
    cache.missed.append(crew.missed)
    try:
        crew.work()
    finally:
        cache.missed.remove(crew.missed)
        crew.end()


def serve() -> None:
    """Do the jobs that the standard input names, one a line, and answer each with a line."""
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(Job(*json.loads(line)))
        # The command has ended, perhaps in the middle of a job of ours.
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        perform(jobs.get())
        print(flush=True)
