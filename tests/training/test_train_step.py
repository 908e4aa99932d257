"""One training step: gradients by hand, losses that a CUDA graph can capture, captured like eager steps."""

from __future__ import annotations

import contextlib
import copy
import dataclasses

import pytest
import torch
from tiny_world import SIZES, chain_world, small_world

from streamrec_lite.baselines.tiger import tiger_loss
from streamrec_lite.common.schemas import Prefixes
from streamrec_lite.config.presets import preset
from streamrec_lite.config.training import SftConfig, TrainConfig
from streamrec_lite.inference.beam_search import beam_search
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.item_vectors import ItemVectors
from streamrec_lite.training.finetune import finetune
from streamrec_lite.training.finetune_loss import finetune_loss
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.pretrain import pretrain, pretrain_loss
from streamrec_lite.training.train_step import EAGER_STEPS, TrainStep

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to record steps on")


def test_a_step_is_gradient_and_clip():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, -1.0]])
    batch = Prefixes(*(torch.zeros(1, dtype=torch.long) for _ in range(4)))
    config = TrainConfig(max_grad_norm=1.0)
    step = TrainStep(model, lambda m, batch, x: {"loss": m(x).sum()}, None, config, "cpu", capture=True)
    for _ in range(2):  # the second step does not add to the first one
        found = step(batch, (torch.tensor([[3.0, 4.0]]),))
        assert found["loss"].item() == -1.0 and not found["loss"].requires_grad
        assert found["grad_norm"].item() == pytest.approx(5.0)
        assert torch.allclose(model.weight.grad, torch.tensor([[0.6, 0.8]]), atol=1e-5)  # of length 1


def test_a_step_moves_the_weights_along_the_clipped_gradient():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, -1.0]])
    batch = Prefixes(*(torch.zeros(1, dtype=torch.long) for _ in range(4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    config = TrainConfig(max_grad_norm=1.0)
    step = TrainStep(model, lambda m, batch, x: {"loss": m(x).sum()}, optimizer, config, "cpu")
    step(batch, (torch.tensor([[3.0, 4.0]]),))
    assert torch.allclose(model.weight.data, torch.tensor([[1.0 - 0.5 * 0.6, -1.0 - 0.5 * 0.8]]), atol=1e-5)


def without_values():
    """``small_world`` whose tensors have shapes but no values: reading a value is an error."""
    model, tokenizer, batch = small_world()
    model.item_vectors, model.reads_answer_token = (
        ItemVectors.of(tokenizer, SIZES.d_model, in_answer_logits=True),
        True,
    )
    model.item_vectors.dropout = 0.3
    tokenizer, trie = copy.copy(tokenizer), copy.copy(tokenizer.trie)
    trie.paths = trie.paths.to("meta")
    trie.start, trie.child_code = ([x.to("meta") for x in part] for part in (trie.start, trie.child_code))
    trie.leaf_item = trie.leaf_item.to("meta")
    tokenizer.trie, tokenizer.tokens = trie, tokenizer.tokens.to("meta")
    return model.train().to("meta"), tokenizer, batch.to("meta")


@pytest.mark.parametrize("condition_on", ["own", "annotated"])
@pytest.mark.parametrize("negatives", ["catalogue", "batch"])
def test_the_losses_read_no_value_of_a_tensor(condition_on, negatives, monkeypatch):
    """Control flow that depends on a value needs a host synchronisation, and cannot be captured."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)  # transformers asks
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no "meta"
    model, tokenizer, batch = without_values()
    two = torch.zeros(batch.n_examples, 2, dtype=torch.long, device="meta")
    nearby = torch.zeros(tokenizer.n_items, 3, dtype=torch.long, device="meta")
    config = SftConfig(condition_on=condition_on, negatives=negatives, mu=0.3)
    extra = two, two[:, 0], two.float(), nearby
    losses = {
        "TIGER": tiger_loss(model, tokenizer, batch, TrainConfig()),
        "pretraining": pretrain_loss(model, tokenizer, batch, two, preset("smoke").pretrain)["loss"],
        "fine-tuning": finetune_loss(model, tokenizer, batch, *extra, config)["loss"],
    }
    for name, loss in losses.items():
        gradient = torch.autograd.grad(loss, model.shared.weight, retain_graph=True)[0]
        assert gradient.shape == model.shared.weight.shape, name


def test_a_beam_does_look_at_values():
    """... which shows that the test above can fail."""
    model, tokenizer, batch = without_values()
    with pytest.raises((NotImplementedError, RuntimeError)):
        beam_search(model.eval(), tokenizer.trie, tokenizer.tokens[batch.history].flatten(1))


def largest_gap(one: dict, other: dict) -> float:
    """The largest relative difference between two models' weights."""
    gaps = [(one[name] - x).float().norm() / (x.float().norm() + 1e-6) for name, x in other.items()]
    return float(torch.stack(gaps).max())


@on_gpu
@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_captured_steps_learn_what_eager_ones_learn(stage, tmp_path, monkeypatch):
    """... dropout and own thoughts included: the same draws, in the same order."""
    tokenizer, splits = chain_world()
    config, ends = preset("smoke"), []
    sizes = dataclasses.replace(SIZES, dropout=0.1)
    small = {"batch_size": 16, "max_epochs": 3, "warmup_steps": 2, "precision": "float32"}
    config = dataclasses.replace(
        config,
        backbone=sizes,
        pretrain=dataclasses.replace(config.pretrain, **small),
        sft=dataclasses.replace(config.sft, **small, l=2, similar_pool=3),
    )
    near = (torch.arange(12)[:, None] + torch.arange(1, 4)) % 12
    for most in (EAGER_STEPS, 10**9):  # captured after a few steps, or never
        monkeypatch.setattr("streamrec_lite.training.train_step.EAGER_STEPS", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        if stage == "pretrain":
            found = pretrain(TrainingJob(splits, config, 0, folder, "cuda", False), tokenizer, near)
        else:
            torch.manual_seed(0)
            model = Backbone(sizes, tokenizer.vocab_size, ("direct", "thinking"))
            found = finetune(model, TrainingJob(splits, config, 0, folder, "cuda", False), tokenizer, near)
        ends.append({name: x.clone() for name, x in found.model.state_dict().items()})
    assert largest_gap(*ends) < 1e-3


@on_gpu
def test_a_shape_is_captured_after_some_steps():
    model = torch.nn.Linear(2, 1, bias=False).cuda()
    batch = Prefixes(*(torch.zeros(1, dtype=torch.long, device="cuda") for _ in range(4)))
    config = TrainConfig(max_grad_norm=100.0, precision="float32")
    step = TrainStep(model, lambda m, batch, x: {"loss": m(x).sum()}, None, config, "cuda", capture=True)
    for i in range(EAGER_STEPS + 3):
        x = torch.tensor([[float(i), 1.0]], device="cuda")
        found = step(batch, (x,))
        assert torch.allclose(model.weight.grad, x)
        assert found["loss"].item() == pytest.approx(model(x).item(), abs=1e-6)
    assert len(step.seen) == 1 and not isinstance(next(iter(step.seen.values())), int)
