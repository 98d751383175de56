"""Check evaluation by Ray and Spark beside one process: `python bench/eval_engines.py ray|spark`.

Needs the package `ray`, or `pyspark` and a Java runtime. Exits with 1 where the bits differ.
"""

import os
import sys
import time

import numpy as np
import pyarrow as pa

import fastloss as fl

ROWS, PARTS = 200_000, 5
OPTIONS = {"losses": ["bce_with_logits", "focal:gamma=1.5"], "pred": "z", "target": "t", "weight": "w", "by": "g"}


def table():
    """Return predictions, targets, weights and keys."""
    rng = np.random.default_rng(0)
    columns = {"z": rng.normal(size=ROWS), "t": rng.integers(0, 2, ROWS), "w": rng.random(ROWS)}
    return pa.table({**columns, "g": rng.choice(["a", "b"], ROWS)})


def by_ray(data):
    """Evaluate blocks of a Ray data set."""
    import ray

    variables = {k: v for k, v in os.environ.items() if k in ("PYTHONPATH", "FASTLOSS_CACHE_DIR")}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": variables})
    step = ROWS // PARTS
    dataset = ray.data.from_arrow([data.slice(i * step, step) for i in range(PARTS)])
    return ray.__version__, fl.evaluate(dataset, **OPTIONS)


def by_spark(data):
    """Evaluate partitions of a Spark data frame in local mode."""
    import pyspark
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    frame = session.createDataFrame(data.to_pandas()).repartition(PARTS)
    return pyspark.__version__, fl.evaluate(frame, **OPTIONS)


def main():
    """Evaluate by the engine that is named, and in one process."""
    engine = sys.argv[1]
    data, begun = table(), time.perf_counter()
    version, found = {"ray": by_ray, "spark": by_spark}[engine](data)
    taken, expected = time.perf_counter() - begun, fl.evaluate(data, **OPTIONS)
    print(f"{engine} {version}: {found.rows:,} rows, the same bits: {found == expected}, {taken:.1f} s with its start")
    sys.exit(found != expected)


if __name__ == "__main__":
    main()
