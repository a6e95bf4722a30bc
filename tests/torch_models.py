"""Small networks in PyTorch, one of each kind that people export: the oracle of foreign models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 16


class Residual(nn.Module):
    """Blocks with a shortcut, one of them strided, batch normalisation and a global pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 12, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.shortcut = nn.Conv2d(8, 12, 1, 2)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.bn(self.stem(x))), 3, 2, 1)
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(torch.relu(y + self.shortcut(x)), 1), 1))


def depthwise() -> nn.Module:
    """Inverted bottlenecks with ReLU6, as in MobileNet."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by what a small network says of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, 2, 1)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.conv(x))
        weight = torch.sigmoid(self.up(functional.silu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.fc((x * weight).mean((2, 3)))


class Dense(nn.Module):
    """Each layer reads what all before it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3 + 6 * i, 6, 3, padding=1) for i in range(3)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(3 + 6 * i) for i in range(3)])
        self.fc = nn.Linear(21, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(x, 2)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], 1)
        return self.fc(x.mean((2, 3)))


class EncoderDecoder(nn.Module):
    """Down and up again with a skip connection; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 12, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(12, 6, 2, 2), nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.first(x))
        y = self.up(torch.relu(self.inner(functional.max_pool2d(skip, 2))))
        return self.last(torch.cat([skip, y], 1))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normalised() -> nn.Module:
    """Normalisation of groups, and of each channel with and without its own scale."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.InstanceNorm2d(6, affine=True),
        nn.SiLU(),
        nn.Conv2d(6, 6, 3),
        nn.InstanceNorm2d(6),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )


class ConvNeXt(nn.Module):
    """A patch stem, a wide depthwise convolution, layer normalisation, GELU and a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 7, padding=3, groups=12), nn.LayerNorm(12)
        self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)
        self.gamma = nn.Parameter(torch.full((12,), 0.5))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x))
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y))) * self.gamma
        return self.fc((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


def dilated() -> nn.Module:
    """Growing dilation, and a view that flattens."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, dilation=1),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 8, 3, 2, padding=4, dilation=4),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(8 * 64, 5),
        nn.Softmax(1),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "depthwise": depthwise,
    "squeeze_excite": SqueezeExcite,
    "dense": Dense,
    "encoder_decoder": EncoderDecoder,
    "convnext": ConvNeXt,
    "dilated": dilated,
    "normalised": normalised,
}


def make(name: str) -> nn.Module:
    """One of `MODELS`, with fixed weights, in training mode."""
    torch.manual_seed(1)
    return MODELS[name]().train()


def export(model: nn.Module, path: Path, *, dynamo: bool, training: bool, batch: int = 1) -> None:
    """Write `model` as people do it: for inference, or keeping what training needs."""
    image = torch.zeros(batch, 3, SIZE, SIZE)
    if dynamo:
        torch.onnx.export(model.eval(), (image,), path, dynamo=True, verbose=False, optimize=not training)
    else:
        mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            model, (image,), str(path), dynamo=False, training=mode, do_constant_folding=not training
        )
    model.train()
