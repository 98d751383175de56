"""Checkout of a project's revision, and its installation in a separate environment."""

import contextlib
import importlib.metadata
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..evaluation.columns import InputError

__all__ = ["Environment", "checkout", "install", "last_line", "project", "working_tree"]


class Environment(NamedTuple):
    """Environment in which one revision of the project is installed."""

    name: str
    python: Path
    home: Path
    """Folder of installed packages."""
    packages: list[str]
    """Import names of the project's packages."""
    requires: list[str]
    """Dependencies of the project."""


def project() -> tuple[Path, Path]:
    """Return the root of the repository, and the project's folder in it: the current one, or the root."""
    here = Path.cwd().resolve()
    root = Path(_git(here, "rev-parse", "--show-toplevel")).resolve()
    for folder in (here, root):
        if (folder / "pyproject.toml").exists() or (folder / "setup.py").exists():
            return root, folder
    raise InputError(f"there is no pyproject.toml in {here} or {root}; run this in the folder of the project")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, encoding="utf-8", errors="surrogateescape"
        )
    except FileNotFoundError:
        raise InputError("there is no git, which checks out the revisions") from None
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)}: {last_line(done.stderr)}")
    return done.stdout.strip("\n")


def last_line(text: str) -> str:
    """Return the line of a program's output that gives the error: the last that begins with "error", or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((s for s in reversed(lines) if s.lower().startswith("error")), lines[-1] if lines else "no output")


@contextlib.contextmanager
def checkout(root: Path, revision: str, folder: Path) -> Iterator[str]:
    """Check out a worktree of a revision for a `with` block; yield its short commit."""
    try:
        commit = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").splitlines()[-1]
    except InputError:
        raise InputError(f"{revision!r} is no revision of {root}; a shallow clone may lack it") from None
    _git(root, "worktree", "add", "--detach", str(folder), commit)
    try:
        yield commit[:9]
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))


@contextlib.contextmanager
def working_tree(root: Path, folder: Path) -> Iterator[None]:
    """Copy the working tree as git sees it: its last commit, with changed, new and deleted files.

    A build may write beside its sources, which must not happen in the working tree.
    """
    with checkout(root, "HEAD", folder):
        changed = _git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD").split("\0")
        new = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
        for name in filter(None, [*changed, *new]):
            here, there = root / name, folder / name
            is_file = here.is_symlink() or here.is_file()
            if there.is_symlink() or there.is_file():
                there.unlink()
            elif is_file and there.is_dir():
                shutil.rmtree(there)
            if is_file:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here, there, follow_symlinks=False)
        yield


def install(sources: Sequence[tuple[str, Path, Path]]) -> list[Environment]:
    """Install revisions, given by name, source and folder, in separate environments.

    Each environment also sees the packages of the running environment, after its own, so that only the project itself
    is installed. Where the revisions have different dependencies, each environment gets its own.
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
    """Install a project with pip, with the installed build backend or one that pip fetches."""
    base = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    base += ["--target", str(home), *options]
    for isolation in (["--no-build-isolation"], []):
        done = subprocess.run([*base, *isolation, str(source)], capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise InputError(f"pip could not install {source}: {last_line(done.stderr)}")
