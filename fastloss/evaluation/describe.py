"""Implementation of `fastloss list`, `show`, `warmup` and `doctor`."""

import importlib.metadata
import io
import os
import platform
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from .._terminal import console as make_console
from .._terminal import printable
from ..losses.docs import input_kind, input_shape
from ..spec.record import REAL
from .ahead import Job, compile_ahead
from .columns import InputError
from .losses import OWN, by_rows, found, named, other_name

__all__ = ["diagnose", "print_list", "print_loss", "warm"]


def _print(*parts: Any) -> None:
    """Print in the terminal's width and colours; long lines are not wrapped in a pipe."""
    if sys.stdout.isatty():
        console = make_console()
        for part in parts:
            console.print(part)
        return
    text = io.StringIO()
    console = make_console(file=text, width=1000, no_color=True)
    for part in parts:
        console.print(part)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _grid() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table


def _loss(name: str) -> Any:
    try:
        loss = found(name)[0]
    except (KeyError, TypeError) as error:
        raise InputError(str(error)) from None
    if note := other_name(name):
        print(f"fastloss: {printable(note)}", file=sys.stderr)
    return loss


def _bound(name: str) -> Any:
    """Return the loss that a text names, with the parameters in it."""
    loss = _loss(name)
    try:
        has_parameters = bool(found(name)[1]) and by_rows(loss.record) and not loss.record.mean_of
        return named([name])[0].loss if has_parameters else loss
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def _default(record: Any, name: str, values: Any = None) -> str:
    spec, value = record.parameters[name], (values or record.defaults)[name]
    meant = spec.meant(value)
    return meant if isinstance(meant, str) else str(spec.show(value).lower())


FOR = {
    "outliers": ("huber", "log_cosh", "mae", "smooth_l1", "charbonnier", "cauchy", "welsch", "tukey", "barron"),
    "quantiles": ("quantile", "expectile", "ordered_quantiles", "interval_score"),
    "counts": ("poisson", "negative_binomial_nll", "tweedie", "gamma"),
    "uncertainty": ("gaussian_nll", "crps_gaussian", "student_t_nll", "laplace_nll", "evidential_regression"),
    "imbalance": ("focal", "asymmetric", "bce_with_logits", "softmax_focal", "tversky", "focal_tversky", "poly1_bce"),
    "mislabelled": ("generalized_cross_entropy", "label_relaxation", "cross_entropy", "mae"),
    "ordinal": ("ordinal", "wasserstein_1d", "crps_ensemble"),
    "segmentation": ("dice", "jaccard", "tversky", "focal_tversky", "lovasz_softmax", "boundary"),
    "boxes": ("iou", "giou", "diou", "ciou", "siou", "smooth_l1"),
    "embeddings": ("info_nce", "ntxent", "supcon", "triplet", "batch_hard_triplet", "contrastive", "vicreg"),
    "ranking": ("lambda_rank", "listnet", "softmax_ranking", "margin_ranking", "auc_pairwise"),
    "language": ("linear_cross_entropy", "sequence_cross_entropy", "ctc", "dpo", "orpo", "self_critical"),
    "survival": ("cox", "aft"),
    "fairness": ("demographic_parity", "equal_opportunity", "equalized_odds", "bounded_group_loss", "mindiff"),
}
"""Losses for a problem, those to begin with first."""


def print_list(problem: str = "") -> None:
    """Print all losses, or those for a problem: name, parameters with defaults, summary."""
    import fastloss

    if problem and problem not in FOR:
        raise InputError(f"--for is {problem!r}; allowed: {', '.join(FOR)}")
    losses = [fastloss.LOSSES[name] for name in (FOR[problem] if problem else fastloss.LOSSES)]
    rows = []
    for loss in losses:
        record = loss.record
        rows.append((loss.name, ", ".join(f"{p}={_default(record, p)}" for p in record.parameters), record.summary))
    if not sys.stdout.isatty():
        # One line a loss, whose parameters come last: they are what is long.
        width = max(len(name) for name, _, _ in rows)
        print("\n".join(f"{n:<{width}}  {what}{f' ({given})' if given else ''}" for n, given, what in rows))
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("loss", no_wrap=True, style="bold")
    table.add_column("parameters", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _print(table)


def print_loss(name: str) -> None:
    """Print everything that the record of one loss holds."""
    loss = _bound(name)
    record = loss.record
    table = _grid()
    if record.math:
        table.add_row("formula", record.math)
    for p, spec in record.parameters.items():
        allowed = "true or false" if spec.flag else " or ".join(spec.choices) or str(spec.allowed)
        allowed += " or none" if spec.none is not None else ""
        own, default = _default(record, p, loss.defaults), _default(record, p)
        here = "" if own == default else f"{own}; "
        table.add_row(f"  {p}", f"{spec.doc} ({here}default {default}; allowed: {allowed})")
    if record.family == "arrays":
        for name, x in record.inputs.items():
            optional = ", optional" if x.optional else ""
            table.add_row(name, f"{x.doc}: {input_kind(x)} {input_shape(x)}{optional}" + _in(x.domain))
        table.add_row("gradient by", ", ".join(record.predictions))
    elif record.family == "rows":
        table.add_row("prediction", "a row of scores")
    else:
        for p, domain in zip(record.predictions, record.prediction_domains, strict=True):
            table.add_row("prediction" if len(record.predictions) == 1 else f"prediction {p}", f"in {domain}")
    if record.family != "arrays":
        table.add_row("target", _target(record))
        table.add_row("link", record.link)
    table.add_row("properties", ", ".join(_properties(record)) or "-")
    if record.paper:
        table.add_row("reference", record.paper)
    if by_rows(record):
        call = shlex.quote(name) if OWN.match(name) else _call(record)
        table.add_row("on a file", f"fastloss eval FILE --loss {call} {_options(record)}")
    _print(Text.assemble((record.name, "bold"), "  ", record.summary), table)


def _in(domain: Any) -> str:
    return "" if domain == REAL else f", in {domain}"


def _target(record: Any) -> str:
    if record.target is None:
        return "none: a penalty on the prediction alone"
    return f"in {record.target_domain}" if record.family != "rows" else record.row_loop.target


def _properties(record: Any) -> list[str]:
    words = [w for w in ("convex", "differentiable", "bounded", "robust") if getattr(record, w)]
    words.append("second derivative" if record.second else "no second derivative")
    if record.surrogate:
        words.append(f"surrogate curvature: {record.surrogate}")
    if record.lipschitz is not None:
        words.append(f"Lipschitz constant {record.lipschitz:g}")
    return words


def _call(record: Any) -> str:
    first = next(iter(record.parameters), None)
    return record.name if first is None else f"{record.name}:{first}={_default(record, first)}"


def _options(record: Any) -> str:
    if record.family == "arrays" and not record.mean_of:
        *preds, target = [n.upper() for n in record.inputs]
        return " ".join(f"--pred {n}" for n in preds) + f" --target {target}"
    names = (
        ["'logit_*'"]
        if record.family == "rows" or record.mean_of
        else [p.upper() if len(p) > 1 else "COLUMN" for p in record.predictions]
    )
    return " ".join(f"--pred {n}" for n in names) + (" --target COLUMN" if record.target is not None else "")


def warm(names: list[str]) -> None:
    """Compile the named losses, or all."""
    import fastloss

    # A helper process finds a loss of a user's own by its text.
    labels = [n.strip() if OWN.match(n.strip()) else _loss(n).name for n in names] or list(fastloss.LOSSES)
    for label in labels:
        _loss(label)
    start = time.perf_counter()
    console = make_console(stderr=True)
    shown = (lambda text: console.print(f"{text:<79}", end="\r")) if console.is_terminal else None
    # Columns of files are arrays that cannot be written to, or copies that can.
    kinds = [(dtype, writeable) for dtype in ("<f4", "<f8") for writeable in (False, True)]
    statistics = Job("statistics", "statistics", (kinds, [False, True]))
    compile_ahead([statistics, *(Job(label, "warmup", None) for label in labels)], shown)
    what = "1 loss" if len(labels) == 1 else f"{len(labels)} losses"
    print(
        f"{what} ready in {time.perf_counter() - start:.1f} s, "
        f"cached in {printable(_cache_folder() or 'no folder: caching is off')}"
    )


def _cache_folder() -> Path | None:
    from ..cpu.runtime.cache import directory

    return directory()


def diagnose() -> None:
    """Print versions, threads, processor, cache and CUDA status."""
    table = _grid()
    # The table says what a warning about the cache would say.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, text in _findings():
            table.add_row(name, printable(text))
    _print(table)


def _findings() -> list[tuple[str, str]]:
    import llvmlite.binding as llvm
    import numba

    from .._version import __version__
    from ..cpu.runtime.threads import get_num_threads

    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    found = [("fastloss", f"{__version__}, {system}")]
    for package in ("numpy", "numba", "llvmlite", "pyarrow", "typer", "rich"):
        found.append((package, _version_of(package)))
    features = llvm.get_host_cpu_features()
    found.append(("processor", f"{llvm.get_host_cpu_name()}, {os.cpu_count()} cores"))
    found.append(("vectors", _vectors(features)))
    found.append(("threads", f"{get_num_threads()}, layer {_layer()}"))
    found.append(("JIT", "off: NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else "on"))
    found.append(("cache", _cache()))
    found.append(("CUDA", _cuda()))
    return found


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _vectors(features: Any) -> str:
    for name, bits in (("avx512f", 512), ("avx2", 256), ("avx", 256), ("sse2", 128), ("neon", 128)):
        if features.get(name):
            fused = " with fused multiply-add" if features.get("fma") or name == "neon" else ""
            return f"{bits} bits ({name}){fused}: {bits // 32} float32 at a time"
    return "unknown"


def _layer() -> str:
    """Run a parallel loop, as Numba chooses its threading layer only then."""
    import numba
    import numpy as np

    import fastloss

    x = np.zeros(1 << 17, np.float32)
    try:
        fastloss.LOSSES["mse"](x, x)
        return str(numba.threading_layer())
    except ValueError:
        return "not started (one thread)"


def _cache() -> str:
    from ..cpu.runtime.cache import locate, refusal

    folder, reason, _ = locate()
    if folder is None:
        return f"off: {reason}"
    found = [f.lstat() for f in folder.glob("*.nbc")]
    refused = [reason for reason in map(refusal, found) if reason]
    text = f"{folder}: {len(found)} kernels, {sum(f.st_size for f in found) / 1e6:.1f} MB"
    return f"{text}, {len(refused)} of them not loaded: one {refused[0]}" if refused else text


def _cuda() -> str:
    try:
        from ..call.backend_choice import missing

        reason = missing()
        if reason:
            return f"not available: {reason}"
        from numba import cuda

        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"
    except Exception as error:
        return f"not available ({type(error).__name__})"
