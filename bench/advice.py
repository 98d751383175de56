"""How often advice is right, by kind of noise and number of rows: python -m bench.advice [--sets 50]."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import fastloss as fl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "advice"))

from noise_sets import KINDS, right


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=50, help="sets of each kind and size")
    sets = parser.parse_args().sets
    print("| noise | rows | right | right and clear | wrong and clear |\n| --- | ---: | ---: | ---: | ---: |")
    for n in (200, 500, 2000):
        for kind in KINDS:
            found: Counter[tuple[bool, bool]] = Counter()
            for seed in range(1000, 1000 + sets):  # other sets than the tests'
                y, pred, group, names = kind(np.random.default_rng([seed, n]), n)
                if len(np.unique(y)) == 1:
                    continue  # a rare class may be missing altogether, which advice refuses
                advice = fl.advise(y, pred, group)
                found[right(advice[0], names), advice.confidence == "clear"] += 1
            count = found.total()
            shares = (found[True, True] + found[True, False], found[True, True], found[False, True])
            print(f"| {kind.__name__} | {n} | {' | '.join(f'{share / count:.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
