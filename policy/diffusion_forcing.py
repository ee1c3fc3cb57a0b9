"""Diffusion Forcing as a module: encoders, normalisers, denoiser and the training loss.

Chen et al., NeurIPS 2024 (arXiv 2407.01392): every token has its own noise level. Here the context
tokens (cameras, state, executed action at each step) take theirs from `ContextRule`, the plan's
tokens from `LevelMixture`, and the loss is on the plan.

B batch, W context steps, S sources, M plans per window, H horizon, A action size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Generator, Tensor, nn

from policy.auxiliary_loss import guess_loss, keypose_loss, recall_loss
from policy.denoiser import Context, Denoiser
from policy.loss_weight import TINY_LEVEL, CappedVelocity, LossWeight
from policy.noise_levels import ContextRule, LevelMixture, from_first_step
from policy.noise_schedule import (
    LinearPath,
    NoiseSchedule,
    Prediction,
    add_noise,
    expected_clean,
    to_clean,
)
from policy.normalizer import Normalizer
from policy.observation_encoder import CameraEncoder, encode_observation
from teleop_data.schema import Schema

LONG_AGO = -1_000_000  # control step of a token that nobody may look at
NOISE_BOUND = 6.0  # as the released code clips noise for robots


@dataclass
class LossTerms:
    """The loss, and the squared error behind it by plan noise level.

    Attributes:
        loss: scalar with gradient.
        error: (B M H,) mean squared error of each plan token's clean value, detached.
        level: (B M H,) its noise level.
        counted: (B M H,) whether it entered the loss.
    """

    loss: Tensor
    error: Tensor
    level: Tensor
    counted: Tensor


class DiffusionForcing(nn.Module):
    """A policy's network and its loss. Holds no episode state.

    Args:
        schema: observed features and the action, in the order of the context sources.
        normalizers: one per state feature and one for the action, by name.
        cameras: one encoder per camera, by name.
        denoiser: its sources are the schema's observed features and then the executed action.
        horizon: H, slots of a plan.
        context: W, control steps of context.
        noise_schedule, prediction, loss_weight, level_mixture, context_rule: the method.
        plans_per_window: M, plans denoised per window: one from the newest step, the others from
            random earlier steps that see only their own past. Encoded context is shared.
        plan_drift: standard deviation, at unit scale, of a straight line added to half of the noisy
            plans but not to their targets, so that the network trusts the observation over a plan
            that has drifted. 0 turns it off.
        guess_weight, recall_weight, keypose_weight: of what the context stack is asked besides
            (`auxiliary_loss`), where the denoiser has `guessed_actions`, `recalls`, `keyposes`.
        guess_stride: control steps between the guessed actions. Beyond the plan's horizon a guess
            must come from what is seen and remembered: the last motion alone does not tell it.
        starts_empty: before its first observation an episode has no context at all, rather than
            tokens of pure noise: right for a memory as long as the episode.
        renew_at: control steps that the memory of a running episode grows to until its newest half
            is encoded anew, as if the episode had begun there (`history`). So no token depends on
            more than a training window holds, however long the episode. None: it only slides.
        shrinks_noise: each noisy context source is shrunk to what is to be expected of its clean
            features (`noise_schedule.expected_clean`). Where the sources of a step are summed to
            one token (a pooled denoiser), the noise of a missing camera would otherwise drown the
            others.
        full_sequence: one level for a whole window, context and plan alike, as full-sequence
            diffusion has it (a baseline). Sampling noises the context along with the plan.
        clip: bound on clean estimates at sampling, at unit scale.
    """

    def __init__(
        self,
        *,
        schema: Schema,
        normalizers: dict[str, Normalizer],
        cameras: dict[str, CameraEncoder],
        denoiser: Denoiser,
        horizon: int,
        context: int,
        noise_schedule: NoiseSchedule | None = None,
        prediction: Prediction = "x0",
        loss_weight: LossWeight | None = None,
        level_mixture: LevelMixture | None = None,
        context_rule: ContextRule | None = None,
        plans_per_window: int = 1,
        plan_drift: float = 0.0,
        guess_weight: float = 1.0,
        guess_stride: int = 1,
        recall_weight: float = 0.0,
        keypose_weight: float = 1.0,
        starts_empty: bool = False,
        renew_at: int | None = None,
        shrinks_noise: bool = False,
        full_sequence: bool = False,
        clip: float | None = 1.2,
    ) -> None:
        super().__init__()
        renews = starts_empty and not full_sequence
        if renew_at is not None and not (renews and 2 <= renew_at <= context):
            raise ValueError(
                f"renew_at {renew_at} needs starts_empty, no full_sequence, and 2 to {context} "
                f"control steps, the context that training windows hold"
            )
        self.schema, self.horizon, self.context = schema, horizon, context
        self.normalizers, self.cameras = nn.ModuleDict(normalizers), nn.ModuleDict(cameras)
        self.denoiser = denoiser
        self.noise_schedule: NoiseSchedule = noise_schedule or LinearPath()
        self.prediction: Prediction = prediction
        self.loss_weight = loss_weight or CappedVelocity()
        self.level_mixture = level_mixture or LevelMixture()
        self.context_rule = context_rule or ContextRule()
        self.plans_per_window, self.plan_drift, self.clip = plans_per_window, plan_drift, clip
        self.guess_weight, self.guess_stride = guess_weight, guess_stride
        self.recall_weight, self.keypose_weight = recall_weight, keypose_weight
        self.starts_empty, self.full_sequence = starts_empty, full_sequence
        self.renew_at, self.shrinks_noise = renew_at, shrinks_noise
        self.source_names = [f.name for f in schema.observed] + [schema.action.name]

    @property
    def action_normalizer(self) -> Normalizer:
        """Of the action feature."""
        return self.normalizers[self.schema.action.name]  # type: ignore[return-value]

    def encode(
        self, observation: dict[str, Tensor], *, generator: Generator | None = None
    ) -> list[Tensor]:
        """Observed features (B, W, *shape) -> one (B, W, F_s) at unit scale per observed source."""
        return encode_observation(
            self.schema,
            cameras=self.cameras,  # type: ignore[arg-type]
            normalizers=self.normalizers,  # type: ignore[arg-type]
            observation=observation,
            generator=generator,
        )

    def corrupt(self, features: list[Tensor], levels: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """Each source (B, W, F_s) at its levels (B, W, S); pure noise keeps nothing of it."""
        noisy = [
            add_noise(self.noise_schedule, x, eps, levels[..., s])
            for s, (x, eps) in enumerate(zip(features, noise, strict=True))
        ]
        if not self.shrinks_noise:
            return noisy
        return [
            expected_clean(self.noise_schedule, x_k, levels[..., s]) for s, x_k in enumerate(noisy)
        ]

    def clean_estimate(
        self, plan: Tensor, levels: Tensor, steps: Tensor, context: Context
    ) -> Tensor:
        """(B, H, A) clean value of a noisy plan; arguments as `Denoiser.forward`."""
        output = self.denoiser(plan, levels, steps, context)
        return to_clean(self.noise_schedule, self.prediction, output=output, x_k=plan, k=levels)

    def forward(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """`loss`, under the name that wrappers for many processes call."""
        return self.loss(batch, generator=generator)

    def loss(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """The weighted error of one batch of windows (see `teleop_data.dataset`).

        All randomness comes from `generator` (CPU), so that a step can be repeated exactly.
        """
        actions = self.action_normalizer.normalize(batch["action"])
        device, (batch_size, steps) = actions.device, batch["observation_is_padded"].shape
        features = [*self.encode(batch, generator=generator), actions[:, : self.context]]
        one_level = self._window_level(batch_size, generator)
        levels = self._context_levels(batch, one_level, generator).to(device)
        levels = torch.where(self._is_unknown(batch), 1.0, levels)
        noise = [_noise(x.shape, generator, device) for x in features]
        tokens = self.denoiser.context_tokens(self.corrupt(features, levels, noise))
        tick = torch.arange(steps, device=device)[None]
        if self.starts_empty:
            tick = torch.where(batch["observation_is_padded"], LONG_AGO, tick)
        context, _ = self.denoiser.read_context(tokens, levels, tick)
        terms = self._plan_loss(batch, actions, context, one_level, generator)
        extra = self._auxiliary_loss(batch, actions, features, levels, context)
        return replace(terms, loss=terms.loss + extra)

    def _auxiliary_loss(
        self,
        batch: dict[str, Tensor],
        actions: Tensor,
        features: list[Tensor],
        levels: Tensor,
        context: Context,
    ) -> Tensor | float:
        """Weighted sum of what `auxiliary_loss` asks of the context stack."""
        heads, inside = self.denoiser, ~batch["observation_is_padded"]
        loss: Tensor | float = 0.0
        if heads.guess is not None:
            guess = heads.guess(context.summary)
            loss += self.guess_weight * guess_loss(guess, actions, inside, stride=self.guess_stride)
        if heads.recall is not None:
            unseen = (levels * inside.unsqueeze(-1))[..., :-1]  # the last is the executed action
            recalled = heads.recall(context.summary)
            loss += self.recall_weight * recall_loss(recalled, features[:-1], unseen)
        if heads.keypose is not None:
            told = heads.keypose(context.summary)
            loss += self.keypose_weight * keypose_loss(told, actions, inside)
        return loss

    def _window_level(self, batch: int, generator: Generator) -> Tensor | None:
        """(B, 1) the level of each whole window; None unless they have one."""
        return self.level_mixture.draw_shared(batch, generator) if self.full_sequence else None

    def _context_levels(
        self, batch: dict[str, Tensor], one_level: Tensor | None, generator: Generator
    ) -> Tensor:
        """(B, W, S)."""
        is_padded, sources = batch["observation_is_padded"].cpu(), len(self.source_names)
        size, steps = is_padded.shape
        if one_level is not None:
            return one_level.unsqueeze(-1).expand(size, steps, sources)
        is_camera = torch.tensor([f.role == "camera" for f in self.schema.observed] + [False])
        levels = self.context_rule.draw(
            size, steps, sources, is_camera=is_camera, generator=generator
        )
        return from_first_step(levels, is_padded)

    def _is_unknown(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, W, S) tokens outside the episode: never seen, so pure noise."""
        observed = batch["observation_is_padded"].unsqueeze(-1)
        executed = batch["action_is_padded"][:, : self.context].unsqueeze(-1)
        return torch.cat([observed.expand(-1, -1, len(self.source_names) - 1), executed], dim=-1)

    def _plan_loss(
        self,
        batch: dict[str, Tensor],
        actions: Tensor,
        context: Context,
        one_level: Tensor | None,
        generator: Generator,
    ) -> LossTerms:
        batch_size, m, device = len(actions), self.plans_per_window, actions.device
        start = self._plan_starts(batch_size, m, generator).to(device)  # (B, M)
        slots = start.unsqueeze(-1) + torch.arange(self.horizon, device=device)  # (B, M, H)
        rows = rearrange(slots, "b m h -> b (m h)") + 1  # action j + 1 is executed at tick j
        target = rearrange(
            torch.gather(actions, 1, repeat(rows, "b t -> b t a", a=actions.shape[-1])),
            "b (m h) a -> (b m) h a",
            m=m,
        )
        if one_level is None:
            k = self.level_mixture.draw(batch_size * m, self.horizon, generator=generator)
        else:
            k = one_level.repeat_interleave(m, dim=0).expand(-1, self.horizon)
        k = k.to(device)
        noise = _noise(target.shape, generator, device)
        x = target + self._drift(target, generator)
        plan = add_noise(self.noise_schedule, x, noise, k)
        estimate = self.clean_estimate(plan, k, rearrange(slots, "b m h -> (b m) h"), context)
        error = (estimate - target).square().mean(-1)  # (B M, H)
        counted = self._starts_inside(batch, start) & (k > TINY_LEVEL)
        weight = self.loss_weight(self.noise_schedule, k) * counted
        loss = (weight * error).sum() / counted.sum().clamp(min=1)
        return LossTerms(loss, error.detach().flatten(), k.flatten(), counted.flatten())

    def _starts_inside(self, batch: dict[str, Tensor], start: Tensor) -> Tensor:
        """(B M, 1) whether a plan starts inside its episode.

        Slots after the episode's end do count: they hold the last action, and so the policy learns
        to stay where it is done.
        """
        padded = torch.gather(batch["observation_is_padded"], 1, start)
        return ~rearrange(padded, "b m -> (b m) 1")

    def _plan_starts(self, batch: int, m: int, generator: Generator) -> Tensor:
        """(B, M) tick from which each plan starts: the newest, then random ones."""
        newest = torch.full((batch, 1), self.context - 1)
        earlier = torch.randint(0, self.context, (batch, m - 1), generator=generator)
        return torch.cat([newest, earlier], dim=1)

    def _drift(self, target: Tensor, generator: Generator) -> Tensor:
        """(B M, H, A) an error that a stale plan might have; zero for half of the samples."""
        if self.plan_drift == 0:
            return torch.zeros_like(target)
        count, horizon, size = target.shape
        ends = self.plan_drift * torch.randn(2, count, 1, size, generator=generator)
        share = torch.linspace(0, 1, horizon).view(1, horizon, 1)
        is_drifted = torch.rand(count, 1, 1, generator=generator) < 0.5
        return (is_drifted * (ends[0] + share * ends[1])).to(target.device)


def _noise(shape: torch.Size, generator: Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator).clamp(-NOISE_BOUND, NOISE_BOUND).to(device)
