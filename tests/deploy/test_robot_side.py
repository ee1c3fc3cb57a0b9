"""The robot's side starts fast and drags in nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.deploy.processes import ROOT

MODULES = (
    "teleop_data.schema",
    "teleop_data.clock",
    "teleop_data.environment",
    "teleop_data.teleoperator",
    "policy.interface",
    "deploy.wire",
    "deploy.frames",
    "deploy.policy_client",
    "deploy.controller",
    "deploy.control_loop",
    "deploy.safety",
)
HEAVY = {"torch", "hydra", "omegaconf", "zarr", "lerobot", "robomimic", "scipy", "matplotlib"}
PROGRAM = """
import json, sys, time, numpy, zmq, msgspec, simplejpeg
started_s = time.process_time()
for module in sys.argv[1:]:
    __import__(module)
print(json.dumps([time.process_time() - started_s, sorted({m.split(".")[0] for m in sys.modules})]))
"""


def imported(*modules: str) -> tuple[float, set[str]]:
    """CPU seconds that our own part of the import took, and every top-level module there is."""
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules], cwd=ROOT, capture_output=True, check=True
    ).stdout
    seconds, names = json.loads(output)
    return seconds, set(names)


def test_the_robots_side_imports_nothing_heavy_and_fast():
    runs = [imported(*MODULES) for _ in range(3)]
    assert runs[0][1] & HEAVY == set()
    assert {"deploy", "policy", "teleop_data"} <= runs[0][1]
    assert "sim" not in runs[0][1]
    assert min(seconds for seconds, _ in runs) < 0.3


def test_the_check_would_notice():
    assert imported("omegaconf")[1] & HEAVY == {"omegaconf"}
