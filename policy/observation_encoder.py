"""Observation encoders: one feature vector per source and control step, at unit scale.

Noise is added to these vectors, so they are normalised without a learned scale: a network could
otherwise grow its features until the noise no longer hides them. Encoders run once per observation,
never inside the denoise loop.

B batch, W context steps, C H W image, F feature size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor, nn

from teleop_data.schema import Schema


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of each channel's activation (Finn et al. 2016): (B, 2 C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 C), coordinates in [-1, 1], all x then all y."""
        height, width = maps.shape[-2:]
        attention = maps.flatten(2).softmax(-1)
        y = torch.linspace(-1, 1, height, device=maps.device).repeat_interleave(width)
        x = torch.linspace(-1, 1, width, device=maps.device).repeat(height)
        return torch.cat([attention @ x, attention @ y], dim=-1)


class AttentionPooling(nn.Module):
    """One learned query per head over the positions of a feature map: (B, C)."""

    def __init__(self, channels: int, num_positions: int, num_heads: int = 4) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, num_positions, channels))
        self.query = nn.Parameter(torch.randn(1, 1, channels) / channels**0.5)
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        tokens = rearrange(maps, "b c h w -> b (h w) c") + self.position
        query = self.query.expand(len(maps), -1, -1)
        return self.attention(query, tokens, tokens, need_weights=False)[0].squeeze(1)


class SmallCnn(nn.Sequential):
    """Four convolutions with GroupNorm: for two cores.

    Args:
        width: channels of the first layer; the others have twice as many.
        strides: of the four layers; their product is how much coarser the map is than the picture.
            Spatial softmax places things the better, the finer the map.
    """

    def __init__(self, width: int = 32, strides: Sequence[int] = (2, 2, 2, 1)) -> None:
        channels = (3, width, width * 2, width * 2, width * 2)
        layers: list[nn.Module] = []
        for i, (ins, outs) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            size = 5 if i == 0 else 3
            layers += [
                nn.Conv2d(ins, outs, size, stride=strides[i], padding=size // 2),
                nn.GroupNorm(8, outs),
                nn.ReLU(),
            ]
        super().__init__(*layers[:-1])  # the pooling that follows wants signed maps
        self.out_channels = channels[-1]


class ResNet18(nn.Module):
    """torchvision's ResNet-18, headless, with GroupNorm for BatchNorm (which breaks under EMA)."""

    out_channels = 512

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        from torchvision.models import ResNet18_Weights, resnet18

        weights = ResNet18_Weights.IMAGENET1K_V1 if pretrained else None
        network = resnet18(weights=weights)
        _replace_batch_norm(network)
        self.layers = nn.Sequential(*list(network.children())[:-2])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 512, H / 32, W / 32)."""
        return self.layers(images)


def _replace_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(child.num_features // 16, child.num_features))
        else:
            _replace_batch_norm(child)


class CameraEncoder(nn.Module):
    """Pictures of one camera -> (.., F) features of zero mean and unit variance.

    Args:
        backbone: (B, 3, H, W) -> (B, C, h, w), with an attribute `out_channels`.
        image_size: (H, W) of the schema's pictures.
        crop: side lengths (h, w) of the crop; random in training, the same for all steps of a
            window, central otherwise. None: no crop.
        pooling: "spatial_softmax" or "attention".
        feature_size: F.
        is_frozen: the encoder was trained beforehand (`policy.pretraining`): it gets no gradient,
            and each feature is centred and scaled by what it was over the training pictures.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        image_size: tuple[int, int],
        crop: tuple[int, int] | None = None,
        pooling: str = "spatial_softmax",
        feature_size: int = 64,
        is_frozen: bool = False,
    ) -> None:
        super().__init__()
        if crop and (crop[0] > image_size[0] or crop[1] > image_size[1]):
            raise ValueError(f"crop {crop} is larger than the picture {image_size}")
        self.backbone, self.crop, self.feature_size = backbone, crop, feature_size
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, *(crop or image_size)))
        if pooling == "spatial_softmax":
            self.pooling, pooled = SpatialSoftmax(), 2 * channels
        elif pooling == "attention":
            self.pooling, pooled = AttentionPooling(channels, maps[0, 0].numel()), channels
        else:
            raise ValueError(f"no pooling {pooling!r}; have: spatial_softmax, attention")
        self.project = nn.Linear(pooled, feature_size)
        self.is_frozen = is_frozen
        if is_frozen:
            self.register_buffer("feature_mean", torch.zeros(feature_size))
            self.register_buffer("feature_std", torch.ones(feature_size))
            self.requires_grad_(False)

    def forward(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """(B, W, H, W', 3) uint8 -> (B, W, F). Crops at random if given a generator."""
        batch, steps = images.shape[:2]
        images = rearrange(images, "b t h w c -> b t c h w")
        if self.crop is not None:
            images = crop_windows(images, self.crop, generator=generator)
        x = rearrange(images, "b t c h w -> (b t) c h w").contiguous().float() / 127.5 - 1
        maps = self.backbone(x)
        with torch.autocast(
            maps.device.type, enabled=False
        ):  # bfloat16 cannot say where to a pixel
            features = self.project(self.pooling(maps.float()))
            features = F.layer_norm(features, (self.feature_size,))
        if self.is_frozen:
            features = (features - self.feature_mean) / self.feature_std
        return features.view(batch, steps, -1)


def encode_observation(
    schema: Schema,
    *,
    cameras: Mapping[str, nn.Module],
    normalizers: Mapping[str, nn.Module],
    observation: Mapping[str, Tensor],
    generator: Generator | None = None,
) -> list[Tensor]:
    """Observed features (B, W, *shape) -> one (B, W, F_s) at unit scale per observed source.

    A camera's entry holds its pictures, or (B, W, F) what a frozen encoder made of them before.
    """
    features = []
    for feature in schema.observed:
        values = observation[feature.name]
        if feature.role != "camera":
            features.append(normalizers[feature.name].normalize(values.flatten(2)))  # type: ignore[operator]
        elif values.is_floating_point():
            features.append(values)
        else:
            features.append(cameras[feature.name](values, generator=generator))
    return features


def crop_windows(images: Tensor, size: tuple[int, int], *, generator: Generator | None) -> Tensor:
    """(B, W, C, H, W') -> (B, W, C, h, w): one crop per window, central without a generator."""
    height, width = images.shape[-2:]
    spare = (height - size[0], width - size[1])
    if generator is None:
        top, left = spare[0] // 2, spare[1] // 2
        return images[..., top : top + size[0], left : left + size[1]]
    batch = len(images)
    tops = torch.randint(0, spare[0] + 1, (batch,), generator=generator).tolist()
    lefts = torch.randint(0, spare[1] + 1, (batch,), generator=generator).tolist()
    return torch.stack(
        [
            window[..., top : top + size[0], left : left + size[1]]
            for window, top, left in zip(images, tops, lefts, strict=True)
        ]
    )
