"""forcing-serve: serve a trained policy to robots.

    forcing-serve checkpoint=policy/pretrained/pusht_image 'cameras={img:tcp://127.0.0.1:5600}'

Cameras that are named here come from their own processes (forcing-stream); the others come with the
robot's requests. Ends cleanly on SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from deploy.frames import camera_endpoints
from deploy.inference_session import warm_up
from deploy.policy_server import PolicyServer
from deploy.source_condition import ConditionLimits
from deploy.stop_signal import stop_on_signal

logger = logging.getLogger(__name__)


@dataclass
class ConditionConfig:
    """When a source stops being believed; see `ConditionLimits`."""

    max_age_steps: float = 3.0
    num_frozen: int = 3
    min_contrast: float = 4.0
    min_motion: float = 1e-3
    tolerance: float = 1.0


@dataclass
class ServeConfig:
    """What `forcing-serve` is told.

    Attributes:
        checkpoint: folder of a trained policy.
        inference: planning mode of the checkpoint, rolling or chunk.
        policy: `_target_` and arguments that give the Policy.
        endpoint: where to bind; other machines reach it only if it says so, and there is no
            authentication.
        cameras: endpoint of the frame stream by camera feature, {name:endpoint, ...}.
        condition: when a source stops being believed.
        max_sessions: robots at a time.
        expiry_s: a session that was silent for as long gives its place away when it is needed.
        is_warmed_up: answer one made-up request first, so that no robot waits for set-up.
    """

    checkpoint: str = MISSING
    inference: str = "rolling"
    policy: dict[str, Any] = MISSING
    endpoint: str = "tcp://127.0.0.1:5555"
    cameras: Any = None  # Hydra lets nobody add a key to a typed dict
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    max_sessions: int = 8
    expiry_s: float = 60.0
    is_warmed_up: bool = True


def run(config: ServeConfig) -> None:
    """Serve until a signal comes. ValueError or OSError if that cannot be."""
    policy = instantiate(config.policy)
    if config.is_warmed_up:
        warm_up(policy)
    server = PolicyServer(
        policy,
        endpoint=config.endpoint,
        cameras=camera_endpoints(config.cameras, key="cameras"),
        limits=ConditionLimits(**asdict(config.condition)),
        max_sessions=config.max_sessions,
        expiry_s=config.expiry_s,
    )
    stop_on_signal(server.stop)
    if not server.endpoint.startswith(("tcp://127.", "ipc://")):
        logger.warning("%s: whoever reaches this port can use the policy", server.endpoint)
    # whoever started this process on a free port reads it here
    print(f"policy server at {server.endpoint}", flush=True)
    logger.info("observes %s", [feature.name for feature in policy.schema.observed])
    server.run()
    logger.info("policy server ended")


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="serve_schema", node=ServeConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="serve")(_main)()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-serve: {error.full_key} is not given; say {error.full_key}=...")
    except (ValueError, OSError) as error:
        sys.exit(f"forcing-serve: {error}")


if __name__ == "__main__":
    main()
