"""forcing-rerun: episodes as recordings that the Rerun viewer opens, one file an episode.

forcing-rerun path=data/swap.zarr output_dir=outputs/swap episodes=[0,7]
rerun outputs/swap/*.rrd

/cameras/<name>   pictures (JPEG)          timelines   time   seconds since the episode began
/state/<name>     one curve an entry                   step   control steps
/action/<name>    one curve an entry
/labels/<name>    what was told beside: sub-goals, lateness, capture times
/episode          its attributes, as text
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
import simplejpeg
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Role

if TYPE_CHECKING:
    import rerun

FOLDERS: dict[Role, str] = {
    "camera": "cameras",
    "state": "state",
    "action": "action",
    "other": "labels",
}
COLOURS = {1: "GRAY", 3: "RGB"}  # by channels, as simplejpeg names them


@dataclass
class RerunConfig:
    """What `forcing-rerun` is told.

    Attributes:
        path: the store: ours, or a Diffusion Policy or UMI store.
        output_dir: folder for episode_<number>.rrd; made if it is not there.
        episodes: numbers of the episodes; none given means all.
        jpeg_quality: of the pictures, 1 to 100.
    """

    path: str = MISSING
    output_dir: str = MISSING
    episodes: list[int] = field(default_factory=list)
    jpeg_quality: int = 90


def export_episode(
    buffer: ReplayBuffer, episode: int, path: Path, *, jpeg_quality: int = 90
) -> None:
    """Write one episode to `path`, which is replaced.

    Raises:
        IndexError: no such episode.
        ValueError: a camera has neither one nor three channels, or a quality outside 1..100.
        ModuleNotFoundError: Rerun is not installed.
    """
    if not 1 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality must lie in 1..100, got {jpeg_quality}")
    values = buffer.episode(episode)
    import rerun

    name = buffer.path.name
    with rerun.RecordingStream(name, recording_id=f"{name}, episode {episode}") as recording:
        recording.save(path)
        told = json.dumps(buffer.episode_attributes[episode], indent=2)
        text = rerun.TextDocument(f"```json\n{told}\n```", media_type="text/markdown")
        recording.log("episode", text, static=True)
        for feature in buffer.schema.features:
            if feature.role == "camera":
                _send_pictures(recording, feature, values[feature.name], jpeg_quality, buffer)
            else:
                _send_curves(recording, feature, values[feature.name], buffer)
        recording.flush()


def _timelines(num_steps: int, *, rate_hz: float) -> list[rerun.TimeColumn]:
    import rerun

    steps = np.arange(num_steps)
    return [
        rerun.TimeColumn("step", sequence=steps),
        rerun.TimeColumn("time", duration=steps / rate_hz),
    ]


def _send_pictures(
    recording: rerun.RecordingStream,
    feature: Feature,
    frames: np.ndarray,
    jpeg_quality: int,
    buffer: ReplayBuffer,
) -> None:
    import rerun

    if (channels := feature.shape[-1]) not in COLOURS:
        raise ValueError(f"camera {feature.name!r} has {channels} channels; Rerun is given 1 or 3")
    colour = COLOURS[channels]
    files = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=jpeg_quality, colorspace=colour)
        for frame in frames
    ]
    recording.send_columns(
        f"cameras/{feature.name}",
        indexes=_timelines(len(frames), rate_hz=buffer.schema.rate_hz),
        columns=rerun.EncodedImage.columns(blob=files, media_type=["image/jpeg"] * len(files)),
    )


def _send_curves(
    recording: rerun.RecordingStream, feature: Feature, values: np.ndarray, buffer: ReplayBuffer
) -> None:
    import rerun

    size = math.prod(feature.shape)
    path = f"{FOLDERS[feature.role]}/{feature.name}"
    unit = f" [{feature.unit}]" if feature.unit else ""
    names = [f"{feature.name}[{entry}]{unit}" for entry in range(size)] if size > 1 else None
    recording.log(path, rerun.SeriesLines(names=names or f"{feature.name}{unit}"), static=True)
    recording.send_columns(
        path,
        indexes=_timelines(len(values), rate_hz=buffer.schema.rate_hz),
        columns=rerun.Scalars.columns(scalars=values.reshape(-1).astype(np.float64)).partition(
            [size] * len(values)
        ),
    )


def run(config: RerunConfig) -> None:
    """Write what `config` says and print where. OSError, IndexError or ValueError if it cannot."""
    buffer = ReplayBuffer.open(config.path)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for episode in list(config.episodes) or range(buffer.num_episodes):
        path = folder / f"episode_{episode:04d}.rrd"
        export_episode(buffer, episode, path, jpeg_quality=config.jpeg_quality)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="rerun_schema", node=RerunConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="rerun")(_main)()


def _main(config: Any) -> None:
    try:
        run(config)
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-rerun: {error.full_key} is not given; say {error.full_key}=...")
    except ModuleNotFoundError as error:
        sys.exit(f"forcing-rerun: {error}; install the extra: uv sync --extra rerun")
    except (FileNotFoundError, IndexError, ValueError) as error:
        sys.exit(f"forcing-rerun: {error}")


if __name__ == "__main__":
    main()
