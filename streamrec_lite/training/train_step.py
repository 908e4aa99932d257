"""One training step up to the optimiser: the losses, their gradients, clipped.

On a GPU a step of models as small as these is a few thousand kernels of microseconds each, and the time
goes into launching them one by one from Python. Where a task is ``steady`` (see ``loop.Task``) the whole
step is recorded once for each shape of batch, as a CUDA graph, and then launched as one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.device import autocast
from ..common.schemas import Prefixes
from ..config.sections import TrainConfig

EAGER = 2  # steps of a shape before it is recorded: what is rare is not worth it


class Recorded(NamedTuple):
    """A step that the GPU knows by heart: it reads ``inputs`` and writes all gradients and ``results``."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    results: dict[str, Tensor]


class Step:
    """Call it with a batch and what the loss is given beside it: gradients are then in ``p.grad``.

    Args:
        loss: (model, batch, *given) -> scalars by name; "loss" is minimised.
        record: record the step where it runs on a GPU. The loss must then be steady.
    """

    def __init__(self, model: nn.Module, loss: Callable, config: TrainConfig, device, record: bool):
        self.model, self.loss, self.config, self.device = model, loss, config, torch.device(device)
        self.record = record and self.device.type == "cuda"
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.seen: dict[tuple, int | Recorded] = {}
        if self.record:  # autograd runs a gradient on the stream of its first step: so all share one
            self.stream, self.pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()

    def __call__(self, batch: Prefixes, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The losses, detached, and "grad_norm", the gradients' norm before clipping."""
        if not self.record:
            return self._step(batch, given)
        inputs = [*batch, *given]
        shape = tuple((tuple(x.shape), x.dtype) for x in inputs)
        known = self.seen.get(shape, 0)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            if isinstance(known, int) and known < EAGER:
                self.seen[shape] = known + 1
                results = self._step(batch, given)
            else:
                if isinstance(known, int):
                    known = self.seen[shape] = self._recorded(inputs)
                for place, value in zip(known.inputs, inputs, strict=True):
                    place.copy_(value)
                known.graph.replay()
                results = {name: value.clone() for name, value in known.results.items()}
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return results

    def _recorded(self, inputs: list[Tensor]) -> Recorded:
        """Record a step for inputs of these shapes. Recording computes nothing."""
        places, graph, fields = [x.clone() for x in inputs], torch.cuda.CUDAGraph(), len(Prefixes._fields)
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            results = self._step(Prefixes(*places[:fields]), tuple(places[fields:]))
        return Recorded(graph, places, results)

    def _step(self, batch: Prefixes, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self.record:  # gradients stay where they are, since recorded steps write there
            held = [p.grad for p in self.weights if p.grad is not None]
            if held:
                torch._foreach_zero_(held)
        else:
            for p in self.weights:
                p.grad = None
        with autocast(self.device, self.config.precision):
            losses = self.loss(self.model, batch, *given)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
        return {name: value.detach() for name, value in losses.items()} | {"grad_norm": norm}
