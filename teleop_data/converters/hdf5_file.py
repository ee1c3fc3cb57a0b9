"""Opening HDF5 files of demonstrations, with errors that say what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.replay_buffer import StoreError

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def import_h5py() -> Any:
    """The module h5py. ModuleNotFoundError that says what to install if it is not there."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "HDF5 files need h5py, which is not installed: "
            "pip install 'lerobot_policy_diffusion_forcing[data]'",
            name="h5py",
        ) from error
    return h5py


def is_hdf5(path: Path) -> bool:
    """Whether `path` is a file that begins as HDF5 files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def open_hdf5(path: Path) -> Any:
    """The `h5py.File` at `path`, open for reading.

    Raises:
        FileNotFoundError: nothing there.
        ModuleNotFoundError: h5py is not installed.
        StoreError: it is no HDF5 file, cut off, or being written.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file at {path}")
    h5py = import_h5py()
    with told(path):
        return h5py.File(path, "r")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what h5py and the attributes' JSON raise about `path` into a StoreError."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise StoreError(
            f"{path} cannot be read as demonstrations; it is cut off, damaged, or of another kind "
            f"({type(error).__name__}: {error})"
        ) from error


def demo_number(name: str) -> tuple[int, str]:
    """Sort key of a demonstration's name: demo_2 before demo_10."""
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else 0, name)


def first_demo(file: Any) -> Any:
    """One demonstration's group in an open file, None where it holds none."""
    data = file.get("data")
    if not hasattr(data, "keys"):
        return None
    names = sorted((name for name in data if name.startswith("demo")), key=demo_number)
    return data[names[0]] if names else None


def json_ready(value: Any) -> Any:
    """An HDF5 attribute as JSON can hold it: numpy's numbers and arrays, bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    return [json_ready(entry) for entry in value] if isinstance(value, list) else value
