"""Pictures to features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policy.observation_encoder import (
    AttentionPooling,
    CameraEncoder,
    ResNet18,
    SmallCnn,
    SpatialSoftmax,
    crop_windows,
)


def numbered(batch: int, steps: int, height: int, width: int) -> torch.Tensor:
    """(B, W, 1, H, W') every pixel tells its row and column: 100 row + column."""
    picture = 100 * torch.arange(height)[:, None] + torch.arange(width)
    return picture.expand(batch, steps, 1, height, width)


def test_a_crop_is_the_same_for_all_steps_of_a_window() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = crop_windows(numbered(200, 3, 9, 7), (6, 5), generator=generator)
    assert crops.shape == (200, 3, 1, 6, 5)
    assert torch.equal(crops, crops[:, :1].expand_as(crops))
    corners = crops[:, 0, 0, 0, 0].tolist()
    assert set(corners) == {100 * top + left for top in range(4) for left in range(3)}
    for crop, corner in zip(crops[:5, 0, 0], corners, strict=False):
        assert torch.equal(crop - corner, numbered(1, 1, 6, 5)[0, 0, 0])


def test_the_central_crop_without_a_generator() -> None:
    crops = crop_windows(numbered(2, 3, 9, 7), (5, 5), generator=None)
    assert (crops[..., 0, 0] == 201).all()
    assert (crops[..., -1, -1] == 605).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 7), (5, 2)])
def test_spatial_softmax_finds_a_peak(row: int, column: int) -> None:
    maps = torch.zeros(1, 2, 6, 8)
    maps[0, 0, row, column] = 100
    x, _, y, _ = SpatialSoftmax()(maps)[0].tolist()
    assert (x, y) == pytest.approx((2 * column / 7 - 1, 2 * row / 5 - 1), abs=1e-6)
    flat = SpatialSoftmax()(torch.ones(1, 1, 6, 8))
    torch.testing.assert_close(flat, torch.zeros(1, 2), atol=1e-6, rtol=0)


def encoder(pooling: str = "spatial_softmax", crop: tuple[int, int] | None = None) -> CameraEncoder:
    torch.manual_seed(0)
    return CameraEncoder(
        SmallCnn(8), image_size=(24, 32), crop=crop, pooling=pooling, feature_size=20
    )


def pictures(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, 24, 32, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
@pytest.mark.parametrize("pooling", ["spatial_softmax", "attention"])
@pytest.mark.parametrize("crop", [None, (20, 24)])
def test_features_have_zero_mean_and_unit_variance(pooling: str, crop) -> None:
    camera = encoder(pooling, crop)
    for scale in (1.0, 1e3):  # however large the network makes them
        camera.project.weight.mul_(scale)
        features = camera(pictures())
        assert features.shape == (2, 3, 20)
        torch.testing.assert_close(features.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            features.var(-1, unbiased=False), torch.ones(2, 3), atol=2e-2, rtol=0
        )


@torch.inference_mode()
def test_each_picture_is_encoded_by_itself() -> None:
    camera, images = encoder(), pictures()
    alone = camera(images[1:, 2:])
    torch.testing.assert_close(camera(images)[1:, 2:], alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_random_crops_in_training_the_centre_at_inference() -> None:
    camera, images = encoder(crop=(16, 16)), pictures()
    assert torch.equal(camera(images), camera(images))
    centre = camera(images[:, :, 4:20, 8:24])
    torch.testing.assert_close(camera(images), centre)
    first = camera(images, generator=torch.Generator().manual_seed(0))
    again = camera(images, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first, again)
    assert not torch.equal(first, camera(images))


@pytest.mark.parametrize(("strides", "shape"), [((2, 2, 2, 1), (12, 8)), ((2, 1, 2, 1), (24, 16))])
def test_small_cnn_is_as_coarse_as_its_strides(strides, shape: tuple[int, int]) -> None:
    network = SmallCnn(16, strides=strides)
    assert network(torch.zeros(1, 3, 96, 64)).shape == (1, network.out_channels, *shape)


def test_attention_pooling_reads_positions() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(8, 6)
    maps = torch.randn(2, 8, 2, 3)
    assert pooling(maps).shape == (2, 8)
    assert (pooling(maps) - pooling(maps.flip(-1))).abs().max() > 1e-5
    assert (pooling(maps)[:1] - pooling(maps[:1])).abs().max() < 1e-6


@torch.inference_mode()
def test_resnet_has_group_norm_everywhere() -> None:
    torch.manual_seed(0)
    network = ResNet18()
    kinds = [type(module) for module in network.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(nn.GroupNorm) == 20
    maps = network(torch.randn(2, 3, 64, 96))
    assert maps.shape == (2, ResNet18.out_channels, 2, 3)
    torch.testing.assert_close(network(torch.ones(1, 3, 32, 32)), network(torch.ones(1, 3, 32, 32)))


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match=r"crop \(25, 20\) is larger than the picture \(24, 32\)"):
        encoder(crop=(25, 20))
    with pytest.raises(ValueError, match="no pooling 'mean'; have: spatial_softmax, attention"):
        encoder("mean")
