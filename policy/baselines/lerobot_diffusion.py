"""LeRobot's Diffusion Policy (Chi et al. 2023) as a baseline: its U-Net, its loss, its DDIM.

Its observation history is 2 steps, side by side, as LeRobot has it. With `stride` the history is
long instead: every stride-th observation of the context, flattened into one environment state.

    context  |o . . o . . o . . o|   stride 3: the newest observation is always among them
    actions              |a|a a a|   LeRobot's plan begins at its oldest observation

B batch, W context steps, N observations the network sees, H horizon, A action size.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Generator, Tensor

from policy.baselines.baseline import Baseline, global_noise, plain_loss
from policy.baselines.memory import DrawNoise, Window
from policy.diffusion_forcing import LossTerms


class LerobotDiffusion(Baseline):
    """Diffusion Policy on the features of our encoders.

    Args:
        stride: control steps between the observations of a long history; None: the newest `context`
            observations as LeRobot takes them.
        down_dims, kernel_size, n_groups, diffusion_step_embed_dim: of LeRobot's U-Net.
        num_train_timesteps: of its noise schedule.
        shared: arguments of `Baseline`. Normalisation is ours: LeRobot's class has none.
    """

    denoises = True

    def __init__(
        self,
        *,
        stride: int | None = None,
        down_dims: tuple[int, ...] = (64, 128),
        kernel_size: int = 5,
        n_groups: int = 8,
        diffusion_step_embed_dim: int = 64,
        num_train_timesteps: int = 100,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not self.camera_size or not self.state_size:
            raise ValueError("LeRobot's Diffusion Policy needs a camera and a state")
        self.stride = stride
        self._ticks = list(range(self.context))[:: -(stride or 1)][::-1]
        num_observations = self.context if stride is None else 1
        environment = self.camera_size
        if stride is not None:
            environment = len(self._ticks) * (self.camera_size + self.state_size)
        config = DiffusionConfig(
            n_obs_steps=num_observations,
            horizon=self.horizon + num_observations - 1,
            n_action_steps=self.horizon,
            input_features={
                OBS_STATE: PolicyFeature(FeatureType.STATE, (self.state_size,)),
                OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (environment,)),
            },
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (self.action_size,))},
            device="cpu",
            down_dims=down_dims,
            kernel_size=kernel_size,
            n_groups=n_groups,
            diffusion_step_embed_dim=diffusion_step_embed_dim,
            noise_scheduler_type="DDIM",
            num_train_timesteps=num_train_timesteps,
        )
        self.policy = DiffusionPolicy(config)

    def observed(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Per source (B, W, F_s) -> what LeRobot's class expects: states, environment states."""
        state, cameras = self.split([values[:, self._ticks] for values in features])
        if self.stride is None:
            return {OBS_STATE: state, OBS_ENV_STATE: cameras}
        history = torch.cat([state, cameras], dim=-1).flatten(1)
        return {OBS_STATE: state[:, -1:], OBS_ENV_STATE: history.unsqueeze(1)}

    def loss(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """LeRobot's loss: mean squared error of the noise, padded actions included."""
        # row j + 1 is the action of tick j, and the plan begins at the oldest observation
        first = self.context - (self.policy.config.n_obs_steps - 1)
        rows = slice(first, first + self.policy.config.horizon)
        actions = self.action_normalizer.normalize(batch["action"][:, rows])
        inputs = self.observed(self.training_features(batch, generator))
        inputs |= {ACTION: actions, "action_is_pad": batch["action_is_padded"][:, rows]}
        with global_noise(generator, actions.device):
            loss, _ = self.policy(inputs)
        return plain_loss(loss)

    def start_memory(self, batch: int) -> Window:
        """See `Baseline`."""
        return Window(self.context, self._plan)

    def _plan(self, features: list[Tensor], draw: DrawNoise, num_calls: int) -> Tensor:
        diffusion = self.policy.diffusion
        diffusion.num_inference_steps = num_calls
        noise = draw((self.policy.config.horizon, self.action_size))
        return diffusion.generate_actions(self.observed(features), noise=noise)
