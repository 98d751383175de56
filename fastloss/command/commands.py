"""Commands of the command line, defined for typer."""

import contextlib
import errno
import os
import sys
from typing import Annotated, Any

import typer
import typer.core

from .. import _signals
from .._terminal import EXTRA, printable
from ..tracking.command import track
from .lean import spare_imports

__all__ = ["app"]

# Usage errors of typer: click's class, or the class in the copy of click that newer versions of typer contain.
_Reported: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _Group(typer.core.TyperGroup):
    """Command group that turns every error into one sentence on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command, then exit: 2 for usage errors and bad input, 1 for other errors, 128 + n for signal n."""
        from ..call.errors import SettingError
        from ..evaluation.columns import InputError

        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
            _ended()
        except _Reported as error:
            _stop(" ".join(error.format_message().split()) or "see fastloss --help", 2)
        except (typer.Abort, KeyboardInterrupt) as error:
            _ended()
            if isinstance(error.__cause__, EOFError):  # typer turns an EOFError into Abort, as if typed input ended
                _unexpected(error.__cause__)
            _stop("interrupted", 130)
        except ImportError as error:
            _ended()
            if (error.name or "").split(".")[0] not in ("pyarrow", "rich"):
                _unexpected(error)
            _stop(EXTRA, 2)
        except BrokenPipeError:
            raise
        except (InputError, SettingError, OSError) as error:
            _ended()
            _stop(_describe(error), 2)
        except Exception as error:
            _ended()
            _unexpected(error)
        sys.exit(code if isinstance(code, int) else 0)


def _ended() -> None:
    """Exit if a signal came; libraries replace the KeyboardInterrupt that it raised by exceptions of their own."""
    if number := _signals.ended_by():
        _stop(_signals.sentence(number), 128 + number)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        # Files that are written name themselves; what is left is the standard output.
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EIO)
        name = error.filename or ("cannot write to the standard output" if full else "")
        return f"{name}: {error.strerror}" if name else error.strerror
    return str(error)


def _stop(text: str, code: int) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"fastloss: {printable(text)}", file=sys.stderr, flush=True)
    sys.exit(code)


def _unexpected(error: BaseException) -> None:
    if os.environ.get("FASTLOSS_DEBUG"):
        raise error
    sentence = " ".join(str(error).split()) or type(error).__name__
    _stop(f"unexpected {type(error).__name__}: {sentence} (FASTLOSS_DEBUG=1 shows the traceback)", 1)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Loss functions on your own files. Start with: [bold]fastloss eval --sample[/bold]",
)
app.add_typer(track, name="track")


def _version(shown: bool) -> None:
    if shown:
        from .._version import __version__

        print(f"fastloss {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Evaluate, benchmark and inspect loss functions."""


LOSS = typer.Option(
    "--loss",
    "-l",
    metavar="NAME[:param=value,...]",
    help="A loss to evaluate; may be repeated. One of your own: FILE.py:NAME, or an expression of p or z and t,"
    " 'expr:(p - t)**2'.",
)

PREDICTION = typer.Option(
    "--pred",
    "-p",
    metavar="COLUMN",
    help="Column of the prediction (numbers or lists), a glob such as 'logit_*', or a .npy file; repeat it for"
    " a loss of several predictions.",
)


TARGET = typer.Option("--target", "-t", metavar="COLUMN", help="Column of the target.")
WEIGHT = typer.Option("--weight", "-w", metavar="COLUMN", help="Column of the rows' weights.")
PRED_IS = typer.Option(metavar="prob|logit|log-prob|mean", help="What predictions are: converted for each loss.")
BY = typer.Option(
    "--by",
    metavar="COLUMN[,COLUMN...]",
    help="Also by group: by a column, or several crossed; repeat it for another grouping.",
)
RESUME = typer.Option(metavar="DIR", help="Keep the sums of finished files, and do not read these again.")
SCHEDULER = typer.Option(metavar="tcp://HOST:PORT", help="Dask scheduler whose workers read the files.")
FORMAT = typer.Option(
    metavar="csv|tsv|jsonl|arrow|parquet", help="Format of the standard input, and of files whatever their endings."
)
SHOW = typer.Option("--show", metavar="COLUMN[,COLUMN...]", help="Columns of the worst rows, such as id,text.")
THREADS = typer.Option(min=1, help="Threads that compute while others read.")

ON_INVALID = typer.Option(
    metavar="fail|skip|propagate", help="What to do about rows with a null, NaN or infinity, or such a loss."
)


@app.command("eval")
def evaluate(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS...",
            help="Parquet, Arrow, CSV, JSON lines, .npy: files, directories, globs, URIs; - for standard input.",
        ),
    ] = None,
    loss: Annotated[list[str] | None, LOSS] = None,
    pred: Annotated[list[str] | None, PREDICTION] = None,
    target: Annotated[str | None, TARGET] = None,
    weight: Annotated[str | None, WEIGHT] = None,
    pred_is: Annotated[str, PRED_IS] = "",
    by: Annotated[list[str] | None, BY] = None,
    sort: Annotated[str, typer.Option(metavar="LOSS|count", help="Order of groups, largest first; else by key.")] = "",
    top: Annotated[int, typer.Option(min=0, metavar="K", help="Show K groups of a grouping; 0 for all.")] = 20,
    hist: Annotated[int, typer.Option(min=0, metavar="BINS", help="Histograms of losses and columns.")] = 0,
    quantiles: Annotated[str, typer.Option(metavar="Q[,Q...]", help="Quantiles of losses, such as .5,.9,.99.")] = "",
    calibration: Annotated[bool, typer.Option("--calibration", help="Calibration of predicted probabilities.")] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="Count right and wrong decisions.")] = False,
    threshold: Annotated[str, typer.Option(metavar="P[,P...]", help="Probabilities to decide at; .5 if none.")] = "",
    gaps: Annotated[bool, typer.Option("--gaps", help="Largest gaps between groups, of losses and rates.")] = False,
    format: Annotated[str, FORMAT] = "",
    sql: Annotated[str, typer.Option(metavar="QUERY", help="Evaluate the rows of a query of DuckDB.")] = "",
    positive: Annotated[str | None, typer.Option(metavar="LABEL", help="Label that is 1; others are 0.")] = None,
    classes: Annotated[str, typer.Option(metavar="LABEL,LABEL...", help="Labels in the order of the scores.")] = "",
    on_invalid: Annotated[str, ON_INVALID] = "fail",
    worst: Annotated[int, typer.Option(min=0, metavar="K", help="Show the K rows of largest loss.")] = 0,
    show: Annotated[list[str] | None, SHOW] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report as JSON; - for stdout.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page of HTML; - for stdout.")] = None,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write Markdown; - for stdout.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write CSV; - for stdout.")] = None,
    per_sample: Annotated[str | None, typer.Option(metavar="FILE.parquet", help="Write the loss of every row.")] = None,
    resume: Annotated[str | None, RESUME] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the predictions that ship with fastloss.")] = False,
    threads: Annotated[int | None, THREADS] = None,
) -> None:
    """Evaluate losses on files of any size, all in one read."""
    spare_imports(loss or [])
    from ..evaluation.command import Request, evaluate_command
    from ..evaluation.details.command import parsed
    from ..evaluation.groups import groupings_of

    request = Request(
        paths=paths or [],
        losses=loss or [],
        pred=pred or [],
        target=target,
        weight=weight,
        on_invalid=on_invalid,
        worst=worst,
        format=format,
        sql=sql,
        positive=positive,
        classes=tuple(filter(None, classes.split(","))),
        resume=resume,
        scheduler=scheduler,
        show=tuple(n for each in show or () for n in each.split(",") if n),
        json=json,
        per_sample=per_sample,
        sample=sample,
        threads=threads,
        by=groupings_of(by)[0],
        sort=sort,
        top=top,
        pred_is=pred_is,
        html=html,
        markdown=markdown,
        csv=csv,
        details=parsed(hist, quantiles, calibration, confusion, threshold, gaps),
    )
    evaluate_command(request)


@app.command("compare")
def compare(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS...", help="As for eval; with --on the first and the second."),
    ],
    loss: Annotated[
        list[str] | None,
        typer.Option("--loss", "-l", metavar="NAME[:param=value,...]", help="A loss to compare; may be repeated."),
    ] = None,
    pred: Annotated[
        list[str] | None,
        typer.Option("--pred", "-p", metavar="COLUMN", help="Column of the first prediction."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", "-a", metavar="COLUMN", help="Column of the second prediction.")
    ] = None,
    target: Annotated[str | None, TARGET] = None,
    weight: Annotated[str | None, WEIGHT] = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="COLUMN", help="Identifier by which rows of two inputs are joined.")
    ] = None,
    by: Annotated[list[str] | None, BY] = None,
    cluster_by: Annotated[
        list[str] | None,
        typer.Option("--cluster-by", metavar="COLUMN", help="Rows of one key, such as a user, are not independent."),
    ] = None,
    confidence: Annotated[float, typer.Option(metavar="LEVEL", help="Level of the intervals.")] = 0.95,
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="Bootstrap, for skewed losses.")] = False,
    correction: Annotated[
        str, typer.Option(metavar="holm|bh", help="Correction of the p values of groups for their number.")
    ] = "holm",
    pred_is: Annotated[str, PRED_IS] = "",
    on_invalid: Annotated[str, typer.Option(metavar="fail|skip", help="What to do about invalid rows.")] = "fail",
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all figures as JSON; - for stdout.")] = None,
    threads: Annotated[int | None, THREADS] = None,
) -> None:
    """Compare two predictions of the same rows: paired differences of losses, with intervals."""
    spare_imports(loss or [])
    from ..evaluation.compare.command import Request, compare_command

    options: dict[str, Any] = {"target": target, "weight": weight, "on": on, "by": by or None, "pred_is": pred_is}
    options |= {"cluster_by": tuple(cluster_by or ()), "confidence": confidence, "bootstrap": bootstrap}
    options |= {"correction": correction, "on_invalid": on_invalid, "threads": threads}
    compare_command(Request(paths, loss or [], pred or [], against or [], json, options))


@app.command("advise")
def advise(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS...", help="As for eval.")],
    target: Annotated[str | None, TARGET] = None,
    pred: Annotated[list[str] | None, PREDICTION] = None,
    group: Annotated[
        str | None, typer.Option("--group", "-g", metavar="COLUMN", help="Column of groups, or of queries to rank.")
    ] = None,
    wanted: Annotated[
        str | None, typer.Option(metavar="mean|median|quantile:Q|probability|ranking", help="What predictions are for.")
    ] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the advice as JSON; - for stdout.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page of HTML; - for stdout.")] = None,
) -> None:
    """Advise on the loss to train with, from targets, predictions and groups."""
    from ..advice.command import Request, advise_command

    advise_command(Request(paths, target, pred or [], group, wanted, json, html))


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Losses, such as mse, huber:delta=2 or 'cross_entropy[K=1000]'; a short list if none is named.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every loss.")] = False,
    size: Annotated[
        list[str] | None, typer.Option("--size", "-n", metavar="N", help="Numbers predicted: 1e2,1e4,1e6 by default.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(metavar="float32|float64", help="Precision.")] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(metavar="value|value_and_grad|grad_and_hess", help="What is computed; value_and_grad by default."),
    ] = None,
    contestant: Annotated[
        list[str] | None,
        typer.Option(
            "--contestant", "-c", metavar="NAME", help="Whom to compare with; all adds those that are slow to start."
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="Rounds; else up to 15 in 1.5 seconds a case.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all figures as JSON; - for stdout.")] = None,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write Markdown; - for stdout.")] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png|svg", help="Draw ratios, throughput, roofline.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of every contestant.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Also time first calls, in processes of their own.")
    ] = False,
    cuda_model: Annotated[
        bool, typer.Option("--cuda-model", help="Measure nothing: print what memory alone would take of a GPU.")
    ] = False,
) -> None:
    """Measure losses beside NumPy, PyTorch, JAX and scikit-learn, in one process, round after round."""
    if cuda_model:
        from ..performance.cuda_model import show

        show(names or [], dtype or ["float32"], mode or ["value_and_grad"], json)
        return
    from ..performance.command import Request
    from ..performance.command import bench as run

    sizes, modes = size or ["1e2,1e4,1e6"], mode or ["value_and_grad"]
    chosen = names or [], everything, sizes, dtype or ["float32"], modes, contestant or []
    run(Request(*chosen, rounds, json, markdown, plot, threads, compile))


@app.command("list")
def list_losses(
    problem: Annotated[
        str, typer.Option("--for", metavar="PROBLEM", help="For outliers, imbalance, counts, ranking ...")
    ] = "",
) -> None:
    """List all losses, or those for a problem."""
    from ..evaluation.describe import print_list

    print_list(problem)


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="The loss to show.")]) -> None:
    """Show one loss: formula, parameters, domain, properties, reference."""
    from ..evaluation.describe import print_loss

    print_loss(name)


@app.command()
def plot(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Losses, such as mse or huber:delta=2.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.png|svg", help="Picture to write.")] = "losses.svg",
    target: Annotated[float | None, typer.Option("--target", "-t", help="Target of every curve.")] = None,
    over: Annotated[str, typer.Option(metavar="LOW,HIGH", help="Range of the prediction.")] = "",
    show: Annotated[str, typer.Option(metavar="PANELS", help="Panels to draw.")] = "loss,gradient,curvature",
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="PARAMETER=VALUE,...", help="A curve for each value; may be repeated.")
    ] = None,
) -> None:
    """Draw losses, their gradients and curvatures against the prediction."""
    from ..plot.command import Request
    from ..plot.command import plot as draw

    draw(Request(names, out, target, over, show, sweep or []))


@app.command("blend")
def blend(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS...", help="As for eval.")],
    pred: Annotated[
        list[str] | None, typer.Option("--pred", "-p", metavar="COLUMN", help="Column of a model; a name or a glob.")
    ] = None,
    target: Annotated[str, TARGET] = "target",
    loss: Annotated[str, typer.Option("--loss", "-l", metavar="NAME[:param=value,...]", help="Loss to minimise.")] = "",
    weight: Annotated[str | None, WEIGHT] = None,
    folds: Annotated[int, typer.Option(metavar="N", help="Folds of the losses out of fold.")] = 5,
    bootstrap: Annotated[int, typer.Option(metavar="N", help="Resamples for the intervals of the weights.")] = 200,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all figures as JSON; - for stdout.")] = None,
) -> None:
    """Find the weights of several models' predictions that minimise a loss, and what they gain out of fold."""
    from ..evaluation.columns import InputError
    from ..train.blend_command import Request, blend_command

    if not loss or not pred:
        raise InputError(
            f"blend needs {'--loss, such as -l log_loss' if pred else '--pred, the columns of the models'}"
        )
    blend_command(Request(paths, pred, target, loss, weight, folds, bootstrap, json))


@app.command()
def warmup(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Losses; all if none is named.")
    ] = None,
) -> None:
    """Compile losses into the cache, so that no later process waits for the compiler."""
    from ..evaluation.describe import warm

    warm(names or [])


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")]) -> None:
    """Print a script that completes commands, options and losses in a shell."""
    from .completion import SHELLS, script

    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell!r} is no shell that is known; allowed: {', '.join(SHELLS)}")
    import fastloss

    print(script(typer.main.get_command(app), shell, list(fastloss.LOSSES)), end="")


@app.command()
def doctor() -> None:
    """Show versions, threads, vector width, the kernel cache and CUDA."""
    from ..evaluation.describe import diagnose

    diagnose()
