"""LeRobot's ACT (Zhao et al. 2023) as a baseline: a chunk from the newest observation.

B batch, W context steps, H horizon, A action size.
"""

from __future__ import annotations

from typing import Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Generator, Tensor

from policy.baselines.baseline import Baseline, global_noise, plain_loss
from policy.baselines.memory import DrawNoise, Window
from policy.diffusion_forcing import LossTerms


class LerobotAct(Baseline):
    """ACT on the features of our encoders, which it gets as one token.

    Args:
        dim_model, n_heads, dim_feedforward, n_encoder_layers, n_decoder_layers: of LeRobot's
            transformer.
        n_vae_encoder_layers, latent_dim, kl_weight: of the VAE that it is trained with.
        dropout: inside the transformer.
        shared: arguments of `Baseline`. Normalisation is ours: LeRobot's class has none.
    """

    def __init__(
        self,
        *,
        dim_model: int = 128,
        n_heads: int = 4,
        dim_feedforward: int = 512,
        n_encoder_layers: int = 3,
        n_decoder_layers: int = 1,
        n_vae_encoder_layers: int = 2,
        latent_dim: int = 32,
        kl_weight: float = 10.0,
        dropout: float = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not self.camera_size or not self.state_size:
            raise ValueError("LeRobot's ACT needs a camera and a state here")
        config = ACTConfig(
            chunk_size=self.horizon,
            n_action_steps=self.horizon,
            input_features={
                OBS_STATE: PolicyFeature(FeatureType.STATE, (self.state_size,)),
                OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (self.camera_size,)),
            },
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (self.action_size,))},
            device="cpu",
            pretrained_backbone_weights=None,
            dim_model=dim_model,
            n_heads=n_heads,
            dim_feedforward=dim_feedforward,
            n_encoder_layers=n_encoder_layers,
            n_decoder_layers=n_decoder_layers,
            n_vae_encoder_layers=n_vae_encoder_layers,
            latent_dim=latent_dim,
            kl_weight=kl_weight,
            dropout=dropout,
        )
        self.policy = ACTPolicy(config)

    def observed(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Per source (B, W, F_s) -> the newest observation as LeRobot's class expects it."""
        state, cameras = self.split([values[:, -1] for values in features])
        return {OBS_STATE: state, OBS_ENV_STATE: cameras}

    def loss(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """LeRobot's loss: mean absolute error of the actions not padded, and the VAE's KL."""
        rows = slice(self.context, self.context + self.horizon)
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
        return self.policy.model(self.observed(features))[0]  # its latent is zero at inference
