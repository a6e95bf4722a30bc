"""PyTorch: modules as everybody writes them, the fused optimizers, eager or compiled, both memory formats."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.architectures import (
    Adam,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    Layers,
    MaxPool,
    Momentum,
    ReLU,
    Residual,
)
from benchmarks.workers.protocol import Array, Job, Step, serve


class Add(nn.Module):
    """A residual block."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Network:
    """The network as a module, and its layers by their names."""

    def __init__(self, layers: Layers) -> None:
        self.named: dict[str, nn.Module] = {}
        self.module = self.sequential(layers)

    def sequential(self, layers: Layers) -> nn.Sequential:
        return nn.Sequential(*map(self.layer, layers))

    def layer(self, layer: Layer) -> nn.Module:
        module: nn.Module
        match layer:
            case Conv(inputs, outputs, kernel, stride, padding, groups, bias):
                module = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
            case BatchNorm(channels):
                module = nn.BatchNorm2d(channels)
            case Dense(inputs, outputs):
                module = nn.Linear(inputs, outputs)
            case MaxPool(kernel, stride, padding):
                return nn.MaxPool2d(kernel, stride, padding)
            case ReLU():
                return nn.ReLU()
            case GlobalAvgPool():
                return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            case Flatten():
                return nn.Flatten()
            case Residual(body, shortcut):
                return Add(self.sequential(body), self.sequential(shortcut))
        self.named[layer.name] = module
        return module

    def load(self, state: dict[str, Array]) -> None:
        for key, array in state.items():
            name, _, tensor = key.rpartition(".")
            module = self.named[name]
            value = torch.from_numpy(array)
            with torch.no_grad():
                getattr(module, tensor).copy_(value.t() if isinstance(module, nn.Linear) else value)


def contestant(job: Job) -> Step:
    """Options: ``memory`` contiguous or channels-last, ``compile`` yes or no."""
    torch.set_num_threads(job.threads)
    network = Network(job.architecture.layers)
    network.load(job.state())
    channels_last = job.options["memory"] == "channels-last"
    form = torch.channels_last if channels_last else torch.contiguous_format
    module = network.module.to(memory_format=form)
    batches = [
        (torch.from_numpy(images).to(memory_format=form), torch.from_numpy(labels))
        for images, labels in job.batches()
    ]
    model = torch.compile(module) if job.options["compile"] == "yes" else module
    if job.task != "train":
        model.eval()
        return evaluation(model, batches) if job.task == "evaluate" else inference(model, batches)

    optimizer = make_optimizer(job.architecture.optimizer, module)

    def train(i: int) -> float:
        images, labels = batches[i % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def make_optimizer(wanted: Adam | Momentum, module: nn.Module) -> torch.optim.Optimizer:
    if isinstance(wanted, Adam):
        betas = wanted.beta1, wanted.beta2
        return torch.optim.Adam(module.parameters(), wanted.rate, betas, wanted.epsilon, fused=True)
    return torch.optim.SGD(module.parameters(), wanted.rate, wanted.momentum, fused=True)


def evaluation(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Step:
    @torch.inference_mode()
    def evaluate(i: int) -> float:
        images, labels = batches[i % len(batches)]
        return functional.cross_entropy(model(images), labels).item()

    return evaluate


def inference(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Step:
    @torch.inference_mode()
    def infer(i: int) -> Array:
        return model(batches[i % len(batches)][0]).softmax(dim=1).numpy()

    return infer


if __name__ == "__main__":
    serve(contestant, "torch", "numpy")
