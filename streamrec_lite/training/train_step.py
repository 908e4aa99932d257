"""One training step: zero_grad, forward, backward, clip, optimiser step.

On a GPU a step of these small models is a few thousand kernels of microseconds each, and launching them one
by one from Python takes most of the time. If the loss allows it, everything up to the clipped gradients is
captured as a CUDA graph, once for each shape of batch, and then launched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.device import autocast
from ..common.schemas import Prefixes
from ..config.training import TrainConfig

EAGER_STEPS = 2  # steps of a shape before it is captured: a rare shape is not worth a graph


class CapturedStep(NamedTuple):
    """A captured CUDA graph with its static tensors: it reads ``inputs`` and writes ``results``."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    results: dict[str, Tensor]


class TrainStep:
    """Updates the model's weights by one batch.

    Args:
        model: its trainable weights are updated.
        loss: (model, batch, *extra inputs) -> scalars by name; "loss" is minimised.
        optimizer: moves the weights; None: only compute the gradients, which stay in ``p.grad``.
        config: the precision and the largest gradient norm.
        device: the model's device.
        capture: capture CUDA graphs on a GPU. The loss must then be safe for that (``loop.Hooks``).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., dict[str, Tensor]],
        optimizer: torch.optim.Optimizer | None,
        config: TrainConfig,
        device: torch.device | str,
        capture: bool = False,
    ):
        self.model, self.loss, self.optimizer, self.config = model, loss, optimizer, config
        self.device = torch.device(device)
        self.capture = capture and self.device.type == "cuda"
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.seen: dict[tuple, int | CapturedStep] = {}
        if self.capture:  # autograd runs a gradient on the stream of its first step: all share one
            self.stream, self.pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()

    def __call__(self, batch: Prefixes, extra: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Update the weights; returns the losses, detached, and "grad_norm", before clipping."""
        gradients = self.captured_gradients if self.capture else self.gradients
        results = gradients(batch, extra)
        if self.optimizer is not None:
            self.optimizer.step()  # move the weights along the clipped gradients
        return results

    def gradients(self, batch: Prefixes, extra: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The clipped gradients of a batch, in ``p.grad``."""
        self.zero_grad()  # forget the gradients of the last batch
        with autocast(self.device, self.config.precision):
            losses = self.loss(self.model, batch, *extra)  # forward: how wrong is the model?
        losses["loss"].backward()  # backward: which way is each weight to move?
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)  # no step too large
        return {name: value.detach() for name, value in losses.items()} | {"grad_norm": norm}

    def zero_grad(self) -> None:
        """Set all gradients to zero; in place where captured graphs write to them."""
        if self.capture:
            held = [p.grad for p in self.weights if p.grad is not None]
            if held:
                torch._foreach_zero_(held)
        else:
            for p in self.weights:
                p.grad = None

    def captured_gradients(self, batch: Prefixes, extra: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``gradients`` by a CUDA graph, captured after ``EAGER_STEPS`` ordinary steps of a batch's shape."""
        inputs = [*batch, *extra]
        shape = tuple((tuple(x.shape), x.dtype) for x in inputs)
        known = self.seen.get(shape, 0)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            if isinstance(known, int) and known < EAGER_STEPS:
                self.seen[shape] = known + 1
                results = self.gradients(batch, extra)
            else:
                if isinstance(known, int):
                    known = self.seen[shape] = self._capture(inputs)
                for static, value in zip(known.inputs, inputs, strict=True):
                    static.copy_(value)
                known.graph.replay()
                results = {name: value.clone() for name, value in known.results.items()}
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return results

    def _capture(self, inputs: list[Tensor]) -> CapturedStep:
        """Capture a graph for inputs of these shapes. Capturing computes nothing."""
        static, graph, fields = [x.clone() for x in inputs], torch.cuda.CUDAGraph(), len(Prefixes._fields)
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            results = self.gradients(Prefixes(*static[:fields]), tuple(static[fields:]))
        return CapturedStep(graph, static, results)
