"""forcing-convert: copies demonstrations from one format into another.

    forcing-convert source=demo.hdf5 target=demo.zarr dry_run=true      says what it would do
    forcing-convert source=demo.hdf5 target=demo.zarr episodes=[0-9,12] rate_hz=20 names={img:front}

The source's format is recognised by what lies there, the target's by the ending of its name; both
can be named. What is guessed and what the target cannot carry is printed. The target is complete
or absent, and nothing is ever overwritten.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from tqdm import tqdm

from teleop_data.converters import lerobot_dataset
from teleop_data.converters.d4rl_npz import D4RL
from teleop_data.converters.episode_stream import (
    EditedSource,
    EpisodeSink,
    EpisodeSource,
    Format,
    check_episode,
    copy_episodes,
)
from teleop_data.converters.replay_buffer_zarr import DIFFUSION_POLICY, REPLAY_BUFFER
from teleop_data.converters.robomimic_hdf5 import ROBOMIMIC
from teleop_data.converters.robosuite_hdf5 import ROBOSUITE
from teleop_data.converters.stop_request import StopRequest

# A new format is one more entry here.
FORMATS: tuple[Format, ...] = (
    REPLAY_BUFFER,
    DIFFUSION_POLICY,
    lerobot_dataset.FORMAT,
    lerobot_dataset.LEGACY_FORMAT,
    ROBOMIMIC,
    ROBOSUITE,
    D4RL,
)
MAX_NEIGHBOURS = 50  # entries of a folder that are looked at for a better suggestion


@dataclass
class ConvertConfig:
    """What `forcing-convert` is told.

    Attributes:
        source: where the demonstrations lie.
        target: where they are to be; nothing may be there.
        source_format: name of the source's format; null recognises it.
        target_format: name of the target's format; null goes by the ending of its name.
        episodes: which ones, as numbers and ranges ([0-9, 12], both ends included); null is all.
        names: new names of features, by old: {observation.image: img}.
        rate_hz: control steps per second; null is as the source says or guesses.
        dry_run: only say what would be done.
        source_options: keyword arguments of the source's class: {cameras: [agentview]}.
        target_options: keyword arguments of the target's class: {compression: gzip}.
    """

    source: str = MISSING
    target: str = MISSING
    source_format: str | None = None
    target_format: str | None = None
    episodes: Any = None
    names: Any = None
    rate_hz: float | None = None
    dry_run: bool = False
    source_options: Any = None
    target_options: Any = None


def recognize(path: Path, *, formats: Sequence[Format] = FORMATS) -> tuple[Format, str]:
    """The format of what lies at `path`, and the sign it was recognised by.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: none of the formats; the message lists them, and what in the folder is one.
    """
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}")
    for known in formats:
        if sign := known.recognize(path):
            return known, sign
    lines = [f"{path} is none of:", *(f"  {known.name}: {known.title}" for known in formats)]
    entries = sorted(path.iterdir())[:MAX_NEIGHBOURS] if path.is_dir() else ()
    inside = [
        f"  source={entry}  ({known.title}: {sign})"
        for entry in entries
        for known in formats
        if (sign := known.recognize(entry))
    ]
    raise ValueError("\n".join([*lines, *(["but in it lie:", *inside] if inside else [])]))


def format_of_target(path: Path, *, formats: Sequence[Format] = FORMATS) -> tuple[Format, str]:
    """The format that a target's name means, and why. ValueError if it means none."""
    endings = {suffix: known for known in formats if known.sink for suffix in known.suffixes}
    for suffix in sorted(endings, key=len, reverse=True):
        if path.name.endswith(suffix):
            return endings[suffix], f"its name ends in {suffix}"
    listed = ", ".join(f"{suffix} ({known.name})" for suffix, known in endings.items())
    names = ", ".join(known.name for known in formats if known.sink)
    raise ValueError(
        f"target {path} says no format; end its name in one of {listed}, or say target_format=, "
        f"one of {names}"
    )


def named_format(name: str, *, formats: Sequence[Format] = FORMATS) -> Format:
    """The format called `name`. ValueError if there is none."""
    for known in formats:
        if known.name == name:
            return known
    raise ValueError(f"no format {name!r}; have: {', '.join(known.name for known in formats)}")


def parse_episodes(given: Any) -> list[int] | None:
    """Episode numbers from numbers and ranges: [0, "3-5"] is 0, 3, 4, 5; None stays None.

    Raises:
        ValueError: an entry is neither.
    """
    if given is None:
        return None
    chosen: list[int] = []
    for entry in [given] if isinstance(given, int | str) else given:
        first, dash, last = str(entry).partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"episodes: {entry!r} is no number or range; say [0, 3-5], say")
        stop = int(last) if dash else int(first)
        if stop < int(first):
            raise ValueError(f"episodes: the range {entry!r} ends before it begins")
        chosen += range(int(first), stop + 1)
    return chosen


def call_with_options(
    make: Callable[..., Any], options: Mapping[str, Any], *args: Any, told_by: str
) -> Any:
    """`make(*args, **options)`. ValueError if it has no such option; the message lists them."""
    if not isinstance(options, Mapping):
        raise ValueError(f"{told_by} is {options!r}; say {told_by}={{name: value}}")
    parameters = inspect.signature(make).parameters.values()
    have = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(have)):
        raise ValueError(
            f"{told_by} has no {', '.join(unknown)}; this format takes: {', '.join(have) or 'none'}"
        )
    return make(*args, **options)


def describe_conversion(source: EpisodeSource, *, losses: Sequence[str]) -> str:
    """What would be converted, what was guessed and what will be lost, as text."""
    schema = source.schema
    lines = [f"{source.num_episodes} episodes at {schema.rate_hz:g} Hz", ""]
    lines.append(f"{'feature':<24} {'role':<7} {'shape':<12} {'dtype':<8} unit")
    for feature in schema.features:
        shape = "x".join(map(str, feature.shape)) or "scalar"
        lines.append(
            f"{feature.name:<24} {feature.role:<7} {shape:<12} {feature.dtype:<8} "
            f"{feature.unit or '-'}"
        )
    lines += ["", "guessed or left out:" if source.notes else "nothing was guessed"]
    lines += [f"  {note}" for note in source.notes]
    lines.append("the target cannot carry:" if losses else "the target carries everything")
    return "\n".join(lines + [f"  {loss}" for loss in losses])


def convert(
    source: EpisodeSource, sink: EpisodeSink, target: Path, *, stop: StopRequest | None = None
) -> int:
    """Number of control steps copied, with a progress bar; raises as `copy_episodes` does."""
    bar = tqdm(total=source.num_episodes, unit="episode")

    def advance(num_steps: int) -> None:
        bar.update(1)
        if stop is not None:
            stop.check()

    with bar:
        return copy_episodes(source, sink, target, progress=advance)


def run(config: ConvertConfig, *, stop: StopRequest | None = None) -> None:
    """Convert what `config` says, unless `stop` asks to end before.

    Raises:
        FileNotFoundError: there is no source.
        FileExistsError: something is at the target.
        KeyError, IndexError, ValueError: it cannot be done as asked; the message says why.
        ModuleNotFoundError: a format needs a package that is not installed.
    """
    path, target = Path(config.source), Path(config.target)
    if target.exists():
        raise FileExistsError(f"target {target} exists; give another, or remove it")
    source_format, sign = recognize(path) if config.source_format is None else (None, "as asked")
    source_format = source_format or named_format(str(config.source_format))
    target_format, ending = (
        format_of_target(target)
        if config.target_format is None
        else (named_format(config.target_format), "as asked")
    )
    if target_format.sink is None:
        raise ValueError(f"{target_format.title} is only read, not written")
    sink = call_with_options(
        target_format.sink, config.target_options or {}, told_by="target_options"
    )
    print(f"source {path}: {source_format.title} ({sign})")
    print(f"target {target}: {target_format.title} ({ending})")
    opened = call_with_options(
        source_format.open, config.source_options or {}, path, told_by="source_options"
    )
    try:
        source = EditedSource(
            opened,
            episodes=parse_episodes(config.episodes),
            names=_names(config.names),
            rate_hz=config.rate_hz,
        )
        print(describe_conversion(source, losses=sink.losses(source.schema)))
        if config.dry_run:
            check_episode(source.episode(0), schema=source.schema)
            print("dry run: the first episode can be read; nothing was written")
            return
        start_s = time.monotonic()
        num_steps = convert(source, sink, target, stop=stop)
        took_s = time.monotonic() - start_s
        print(
            f"written to {target}: {source.num_episodes} episodes, {num_steps} steps in "
            f"{took_s:.1f} s, {num_steps / took_s:.0f} steps/s, {size_bytes(target) / 1e6:.1f} MB"
        )
    finally:
        opened.close()


def _names(given: Any) -> dict[str, str]:
    if not isinstance(given or {}, dict):
        raise ValueError(f"names is {given!r}; say names={{old: new}}")
    return {str(old): str(new) for old, new in (given or {}).items()}


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="convert_schema", node=ConvertConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="convert")(_main)()


def _main(config: Any) -> None:
    stop = StopRequest()
    stop.install()
    try:
        given: Any = OmegaConf.to_container(config, throw_on_missing=True)
        run(ConvertConfig(**given), stop=stop)
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-convert: {error.full_key} is not given; say {error.full_key}=...")
    except KeyError as error:
        sys.exit(f"forcing-convert: {error.args[0]}")
    except (OSError, IndexError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"forcing-convert: {error}")
    except KeyboardInterrupt:
        sys.exit("forcing-convert: interrupted; nothing was written")


if __name__ == "__main__":
    main()
