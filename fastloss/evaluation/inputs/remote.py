"""Files of object stores and other file systems, by URI: Arrow's file systems, and those of fsspec."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow.fs as fs

from ..columns import InputError, reading
from .paths import compression_of, format_of, is_remote

__all__ = ["expand", "file_system", "opened"]

ARROW = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss", "hdfs": "hdfs"}
"""Schemes of Arrow's own file systems."""

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp"}
"""Packages behind fsspec."""

ACCESS = re.compile(r"ACCESS_DENIED|AccessDenied|Forbidden|\b40[13]\b|INVALID_ACCESS_KEY|SIGNATURE|[Cc]redential")
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and run az login",
}


def file_system(path: str) -> tuple[Any, str]:
    """Return the file system of a path or URI, and the path in it."""
    if not is_remote(path):
        return fs.LocalFileSystem(), os.path.abspath(path)
    uri, mark, query = path.partition("?")
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket and scheme != "memory":
        raise InputError(f"{path} names no bucket; expected such as {scheme}://bucket/predictions.parquet")
    with accessible(path):
        system, base = _connected(scheme.lower(), bucket, mark + query)
    return system, f"{base}/{key}" if key else base


@lru_cache(maxsize=32)
def _connected(scheme: str, bucket: str, query: str) -> tuple[Any, str]:
    """Return the file system behind a bucket, and the bucket's path in it."""
    if scheme in ARROW:
        try:
            system, base = fs.FileSystem.from_uri(f"{ARROW[scheme]}://{bucket}/{query}")
            return system, base.rstrip("/")
        except (NotImplementedError, ImportError):  # Arrow was built without it
            pass
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if scheme == "az" and account and hasattr(fs, "AzureFileSystem"):
        return fs.AzureFileSystem(account_name=account), bucket
    try:
        import fsspec

        system, base = fsspec.core.url_to_fs(f"{scheme}://{bucket}{query}")
    except ImportError as error:
        package = (error.name or PACKAGES.get(scheme, "fsspec")).split(".")[0]
        raise InputError(f'{scheme}:// needs {package}: pip install "fastloss[cloud]" {package}') from None
    except ValueError as error:
        if "rotocol" not in str(error):
            raise
        raise InputError(f"{scheme}:// is no scheme that is known; expected such as s3://, gs:// or az://") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), base.rstrip("/")


@contextmanager
def accessible(path: str) -> Iterator[None]:
    """Turn an error of a file system into a sentence that names the file, and what to set for access."""
    with reading(path):
        try:
            yield
        except Exception as error:
            if not is_remote(path) or isinstance(error, InputError) or not ACCESS.search(str(error)):
                raise
            scheme = path.partition("://")[0]
            advice = CREDENTIALS.get({"gcs": "gs", "abfs": "az", "abfss": "az"}.get(scheme, scheme))
            raise InputError(f"{path}: access denied{'; ' + advice if advice else ''}") from None


def opened(path: str, buffer: int) -> Any:
    """Return a stream of the bytes of a file, decompressed."""
    system, inner = file_system(path)
    compression = compression_of(path)
    if compression == "xz":
        import lzma

        return lzma.open(system.open_input_stream(inner, compression=None, buffer_size=buffer))
    return system.open_input_stream(inner, compression=compression, buffer_size=buffer)


def expand(uri: str) -> list[str]:
    """Return the URIs of the files that a URI stands for: a file, a directory or a glob."""
    system, inner = file_system(uri)
    plain = uri.partition("?")[0]
    if set(plain) & set("*[") and "://" in plain:
        stable = re.split(r"[^/]*[*\[]", inner)[0].rstrip("/")
        pattern = re.compile(_pattern(inner))
        return [u for u in _below(system, stable, uri, inner) if pattern.fullmatch(file_system(u)[1])]
    with accessible(uri):
        info = system.get_file_info(inner)
    if info.type == fs.FileType.File:
        return [uri]
    if info.type == fs.FileType.NotFound:
        raise InputError(f"no such file or directory: {uri}")
    found = [u for u in _below(system, inner, uri, inner) if format_of(u)]
    if not found:
        raise InputError(f"directory {uri} holds no file that can be read")
    return found


def _below(system: Any, folder: str, uri: str, inner: str) -> list[str]:
    """Return the URIs of the files below a folder, without hidden ones."""
    plain, mark, query = uri.partition("?")
    root = plain[: len(plain) - len(inner)] if plain.endswith(inner) else plain.partition("://")[0] + "://"
    with accessible(uri):
        found = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    files = [i.path for i in found if i.type == fs.FileType.File]
    shown = [f for f in files if not any(p[:1] in (".", "_") for p in f[len(folder) :].strip("/").split("/"))]
    return [f"{root}{f}{mark}{query}" for f in shown]


def _pattern(path: str) -> str:
    """Return the regular expression of a glob whose `*` stays within a directory and whose `**` does not."""
    parts = re.split(r"(\*\*/?|\*|\[[^\]]*\])", path)
    kinds = {"**/": r"(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return "".join(kinds.get(p) or (p if p[:1] == "[" else re.escape(p)) for p in parts)
