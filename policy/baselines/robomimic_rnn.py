"""robomimic's BC-RNN (Mandlekar et al. 2021) as a baseline: an LSTM with a Gaussian mixture.

It plans one action a control step and carries its state through the whole episode. It is trained on
whole episodes, each step's likelihood counting once (`data.whole_episodes`).

B batch, W context steps, F_s features of a source, A action size.
"""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from typing import Any

import torch
from torch import Generator, Tensor

from policy.baselines.baseline import Baseline, plain_loss
from policy.baselines.memory import DrawNoise
from policy.diffusion_forcing import LossTerms

with contextlib.redirect_stdout(io.StringIO()):  # it prints a page about a file of its own
    from robomimic.models.policy_nets import RNNGMMActorNetwork
    from robomimic.utils.obs_utils import initialize_obs_modality_mapping_from_dict

AS_IT_IS = {
    "core_class": None,
    "core_kwargs": {},
    "obs_randomizer_class": None,
    "obs_randomizer_kwargs": {},
}


class RobomimicRnn(Baseline):
    """BC-RNN-GMM on the features of our encoders.

    Args:
        rnn_hidden_dim, rnn_num_layers: of the LSTM.
        mlp_layer_dims: of the layers behind it.
        num_modes, min_std: of the mixture. Acting draws a mode and stays within 1e-4 of its mean,
            as robomimic's low-noise evaluation does.
        shared: arguments of `Baseline`; the horizon is 1. Normalisation is ours.
    """

    def __init__(
        self,
        *,
        rnn_hidden_dim: int = 320,
        rnn_num_layers: int = 2,
        mlp_layer_dims: tuple[int, ...] = (),
        num_modes: int = 5,
        min_std: float = 0.01,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if self.horizon != 1:
            raise ValueError(f"the RNN plans one action a step: horizon 1, got {self.horizon}")
        self._names = [feature.name for feature in self.schema.observed]
        # robomimic looks up the kind of each observation in a table of its module
        initialize_obs_modality_mapping_from_dict({"low_dim": self._names})
        self.network = RNNGMMActorNetwork(
            obs_shapes=OrderedDict(
                (n, (size,)) for n, size in zip(self._names, self.feature_sizes, strict=True)
            ),
            ac_dim=self.action_size,
            mlp_layer_dims=list(mlp_layer_dims),
            rnn_hidden_dim=rnn_hidden_dim,
            rnn_num_layers=rnn_num_layers,
            rnn_type="LSTM",
            rnn_kwargs={},
            num_modes=num_modes,
            min_std=min_std,
            encoder_kwargs={"low_dim": AS_IT_IS},
        )
        # It holds the layers behind the LSTM under a second name; a checkpoint wants each once.
        for alias in {"mlp", "decoder"} & set(self.network.nets):
            del self.network.nets[alias]

    def named(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Sources as robomimic's class expects them."""
        return dict(zip(self._names, features, strict=True))

    def loss(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """Negative log-likelihood of each step's action, padded steps left out.

        Padding comes first in a window; the LSTM begins at the episode's first step all the same.
        """
        features = self.training_features(batch, generator)
        actions = self.action_normalizer.normalize(batch["action"][:, 1 : self.context + 1])
        num_padded = batch["observation_is_padded"].sum(1, keepdim=True)  # (B, 1)
        tick = torch.arange(self.context, device=actions.device)
        is_inside = tick < self.context - num_padded  # (B, W)
        rows = (tick + num_padded).clamp(max=self.context - 1)
        *features, actions = (_take(values, rows) for values in (*features, actions))
        log_likelihood = self._mixture(features).log_prob(actions)  # (B, W)
        return plain_loss(-(log_likelihood * is_inside).sum() / is_inside.sum())

    def _mixture(self, features: list[Tensor]) -> Any:
        """The trained mixture of every step, also while the module is in evaluation mode."""
        low_noise, self.network.low_noise_eval = self.network.low_noise_eval, False
        try:
            return self.network.forward_train(self.named(features))
        finally:
            self.network.low_noise_eval = low_noise

    def start_memory(self, batch: int) -> RecurrentState:
        """See `Baseline`."""
        return RecurrentState(self, batch)


class RecurrentState:
    """A `policy.baselines.memory.Memory`: the LSTM's state since the episode's first step."""

    def __init__(self, model: RobomimicRnn, batch: int) -> None:
        self._model = model
        self._state: Any = model.network.get_rnn_init_state(batch, device="cpu")
        self._mixture: Any = None

    def append(self, features: list[Tensor]) -> None:
        """See `Memory`."""
        inputs = self._model.named(features)
        self._mixture, self._state = self._model.network.forward_train_step(
            inputs, rnn_state=self._state
        )

    def plan(self, draw: DrawNoise, num_calls: int) -> Tensor:
        """See `Memory`: a mode drawn by its weight, and its action."""
        noise = draw((1 + self._model.action_size,))
        shares = self._mixture.mixture_distribution.probs.cumsum(-1)  # (B, modes)
        u = torch.special.ndtr(noise[:, :1]) * shares[:, -1:]
        mode = (shares < u).sum(-1)
        normal = self._mixture.component_distribution.base_dist
        row = torch.arange(len(mode))
        action = normal.loc[row, mode] + normal.scale[row, mode] * noise[:, 1:]
        return action.unsqueeze(1)

    def keep(self, rows: list[int]) -> None:
        """See `Memory`. The next plan follows an observation."""
        self._state = self._state[0][:, rows], self._state[1][:, rows]


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """(B, W, F) at `rows` (B, W) of each sample."""
    return torch.gather(values, 1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
