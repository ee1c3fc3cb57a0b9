"""Entry point `forcing-report`: the report on an experiment, from its results folder alone.

    forcing-report results=<folder> output_dir=<folder>

Writes `report.md`, `report.html` with all pictures inside, the pictures, and the films that it
links to. What was not measured yet is left out or said so, so that it can be called at any time.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from deploy.experiment.measured import read_experiment
from deploy.experiment.sections import SECTIONS, introduction
from deploy.report_html import to_html


@dataclass
class ReportConfig:
    """What `forcing-report` is told.

    Attributes:
        results: folder that forcing-experiment wrote.
        output_dir: folder of the report.
    """

    results: str = MISSING
    output_dir: str = MISSING


ConfigStore.instance().store(name="write_report_schema", node=ReportConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="write_report")
def main(config: ReportConfig) -> None:
    """Write the report; exits with a message if it cannot."""
    plain = cast(ReportConfig, OmegaConf.to_object(config))  # type: ignore[arg-type]
    try:
        html = write_report(Path(plain.results), Path(plain.output_dir))
    except (KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{html}")


def write_report(results: Path, folder: Path) -> Path:
    """Write the report on `results` into `folder`; returns the path of `report.html`.

    Raises:
        ValueError: there are no results, or a file of them is broken.
    """
    experiment = read_experiment(results)
    folder.mkdir(parents=True, exist_ok=True)
    title = experiment.plan.title
    lines = [f"# {title}", "", *introduction(experiment)]
    for section in SECTIONS:
        lines += section(experiment, folder)
    (folder / "report.md").write_text("\n".join(lines))
    html = folder / "report.html"
    html.write_text(to_html(lines, folder=folder, title=title, has_films_inside=False))
    return html


if __name__ == "__main__":
    main()
