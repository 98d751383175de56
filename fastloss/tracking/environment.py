"""A revision of a project, checked out and installed in an environment of its own."""

import contextlib
import importlib.metadata
import os
import site
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..evaluation.columns import InputError

__all__ = ["Environment", "checkout", "install", "last_line", "project"]


class Environment(NamedTuple):
    """An interpreter that sees one revision of the project."""

    name: str
    python: Path
    home: Path
    """The folder of its packages."""
    packages: list[str]
    """The names by which the project is imported."""
    requires: list[str]
    """What the project depends on."""


def project() -> tuple[Path, Path]:
    """The root of the repository, and the folder of the project in it: this one, or the root."""
    here = Path.cwd().resolve()
    root = Path(_git(here, "rev-parse", "--show-toplevel")).resolve()
    for folder in (here, root):
        if (folder / "pyproject.toml").exists() or (folder / "setup.py").exists():
            return root, folder
    raise InputError(f"there is no pyproject.toml in {here} or {root}; run this in the folder of the project")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("there is no git, which checks out the revisions") from None
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)}: {last_line(done.stderr)}")
    return done.stdout.strip()


def last_line(text: str) -> str:
    """What an output says went wrong: its last line that begins with "error", or its last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((s for s in reversed(lines) if s.lower().startswith("error")), lines[-1] if lines else "no output")


@contextlib.contextmanager
def checkout(root: Path, revision: str, folder: Path) -> Iterator[str]:
    """A worktree of a revision, removed in the end; yields its short commit."""
    try:
        commit = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").splitlines()[-1]
    except InputError:
        raise InputError(f"{revision!r} is no revision of {root}; a shallow clone may lack it") from None
    _git(root, "worktree", "add", "--detach", str(folder), commit)
    try:
        yield commit[:9]
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))


def install(sources: Sequence[tuple[str, Path, Path]]) -> list[Environment]:
    """Environments of revisions, given by name, source and folder.

    Each sees the packages of the environment that runs this, after its own, so that only the project itself is
    installed. Where the revisions depend on different packages, these are installed too, in either's own
    environment.
    """
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda s: _environment(*s), sources))
        if any(e.requires != made[0].requires for e in made):
            list(pool.map(lambda s, e: _pip(s[1], e.home, "--upgrade"), sources, made))
    return made


def _environment(name: str, source: Path, folder: Path) -> Environment:
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    home = Path(subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    seen = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    (home / "_seen_by_the_gate.pth").write_text("\n".join(map(str, seen)) + "\n", encoding="utf-8")
    _pip(source, home, "--no-deps")
    (found,) = importlib.metadata.distributions(path=[str(home)])
    modules = [f.parts[0].split(".")[0] for f in found.files or [] if f.suffix in (".py", ".so", ".pyd")]
    requires = sorted(r for r in found.requires or [] if "extra ==" not in r)
    return Environment(name, python, home, sorted(set(modules)), requires)


def _pip(source: Path, home: Path, *options: str) -> None:
    """Install a project; with the build backend that is here, or the one that pip fetches."""
    base = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    base += ["--target", str(home), *options]
    for isolation in (["--no-build-isolation"], []):
        done = subprocess.run([*base, *isolation, str(source)], capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise InputError(f"pip could not install {source}: {last_line(done.stderr)}")
