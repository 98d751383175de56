"""Random calls of all losses for a while.

    python tests/fuzz/fuzz.py [--seconds 60] [--seed N] [--first N] [--calls N] [--loss NAME]

Every call has a number, and a seed and a number are the same call on every machine. The calls run in a process of their
own, so that a crash or a hang is a finding like any other. Exits 1 if there was one.
"""

import argparse
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
HANGS = 300.0
"""Seconds after which a single call counts as hanging: compiling its kernels takes a few."""


def arguments(given=None):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try new calls; 60")
    parser.add_argument("--seed", type=int, help="what the calls are drawn from; a new one each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first call; 0")
    parser.add_argument("--calls", type=int, default=1 << 62, help="how many calls at most")
    parser.add_argument("--loss", action="append", default=[], help="draw calls of this loss alone; may be repeated")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def say(**what):
    print(json.dumps(what), flush=True)


def work(options):
    """Check call after call, and print each number before its call is made, then what was found."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from checks import one

    import fastloss as fl

    names = options.loss or sorted(fl.LOSSES)
    end = time.monotonic() + options.seconds
    for index in range(options.first, options.first + options.calls):
        if time.monotonic() > end:
            break
        say(call=index)
        call, finding = one(options.seed, index, names)
        if finding:
            say(found=finding, of=shown(call))
    say(done=True)


def shown(call):
    """A call as text, whatever its arguments are."""
    arrays = {k: f"{getattr(a, 'dtype', type(a).__name__)}{getattr(a, 'shape', '')}" for k, a in call.arrays.items()}
    return f"{call.name} {arrays} { ({k: type(v).__name__ if k == 'out' else v for k, v in call.options.items()}) }"


class Watch:
    """The calls and findings that a worker has printed."""

    def __init__(self, options):
        self.options, self.calls, self.findings = options, 0, []

    def run(self):
        """Start workers until the time is over: another one behind a call that ended the last."""
        end = time.monotonic() + self.options.seconds
        first = self.options.first
        last = first + self.options.calls
        while first < last and (left := end - time.monotonic()) > 0:
            first = self.watch(first, last - first, left) + 1

    def watch(self, first, calls, seconds):
        """Follow one worker to its end; return the number of its last call, or of no more where it came to its end."""
        o = self.options
        losses = [part for name in o.loss for part in ("--loss", name)]
        command = [sys.executable, __file__, "--worker", "--seed", o.seed, "--first", first, "--calls", calls]
        command = [*map(str, command), "--seconds", str(seconds), *losses]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            timer = Timer(process)
            at = first
            for line in process.stdout:
                said = json.loads(line)
                timer.reset()
                if "call" in said:
                    at, self.calls = said["call"], self.calls + 1
                elif "found" in said:
                    self.report(at, f"{said['found']}\n    {said['of']}")
                else:
                    timer.stop()
                    process.wait()
                    return 1 << 62
            timer.stop()
            status = process.wait()
        self.report(at, f"no end after {HANGS:g} s" if timer.expired else f"the process ended with status {status}")
        return at

    def report(self, index, what):
        """Print a finding with the command that repeats it."""
        self.findings.append(index)
        losses = "".join(f" --loss {name}" for name in self.options.loss)
        again = f"python tests/fuzz/fuzz.py --seed {self.options.seed} --first {index} --calls 1{losses}"
        print(f"FOUND in call {index}: {what}\n    {again}", flush=True)


class Timer:
    """Ends a process that says nothing for too long."""

    def __init__(self, process):
        self.process, self.expired, self.timer = process, False, None
        self.reset()

    def reset(self):
        import threading

        self.stop()
        self.timer = threading.Timer(HANGS, self.expire)
        self.timer.daemon = True
        self.timer.start()

    def stop(self):
        if self.timer is not None:
            self.timer.cancel()

    def expire(self):
        self.expired = True
        self.process.kill()


def main(given=None):
    """Run the worker, or watch one: the exit status."""
    options = arguments(given)
    if options.worker:
        work(options)
        return 0
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 32)
    print(f"seed {options.seed}, calls from {options.first}, {options.seconds:g} s", flush=True)
    watch = Watch(options)
    watch.run()
    print(f"{watch.calls} calls, {len(watch.findings)} findings, seed {options.seed}")
    return 1 if watch.findings else 0


if __name__ == "__main__":
    sys.exit(main())
