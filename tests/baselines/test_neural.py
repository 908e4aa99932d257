"""The neural baselines: what each can learn and what it cannot, masks, losses by hand, the grid."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from streamrec_lite.baselines import neural
from streamrec_lite.baselines.bert4rec import BERT4Rec
from streamrec_lite.baselines.caser import WINDOW, Caser
from streamrec_lite.baselines.gru4rec import GRU4Rec
from streamrec_lite.baselines.rearec import ReaRec, contrastive_loss, progressive_loss, step_divergence
from streamrec_lite.baselines.sasrec import SASRec
from streamrec_lite.baselines.sequence import ItemModel, pad_left
from streamrec_lite.common.schemas import PAD_ITEM, Prefixes, Splits
from streamrec_lite.config.presets import preset
from streamrec_lite.config.training import BaselineConfig
from streamrec_lite.evaluation.evaluate import evaluate
from streamrec_lite.training.loop import TrainingJob

SMALL = BaselineConfig(d=16, num_layers=1, num_heads=2, dropout=0.0)
ALL = sorted(neural.MODELS)


def prefixes(histories, targets) -> Prefixes:
    width = max(map(len, histories))
    rows = [history + [PAD_ITEM] * (width - len(history)) for history in histories]
    length = torch.tensor([len(history) for history in histories])
    return Prefixes(torch.tensor(rows), length, torch.tensor(targets), torch.arange(len(histories)))


def world(rule, n_items=8, length=6, rows=256, seed=0) -> Splits:
    """Random histories whose target is ``rule(history)``."""
    drawn = torch.randint(n_items, (rows, length), generator=torch.Generator().manual_seed(seed))
    target = rule(drawn)
    whole = Prefixes(drawn, torch.full((rows,), length), target, torch.arange(rows))
    return Splits(whole, whole.select(torch.arange(64)), whole.select(torch.arange(64, 128)))


def config_of(**values):
    base = preset("smoke")
    settings = dataclasses.replace(
        base.baselines, d=32, lr=0.005, dropout=0.0, batch_size=64, precision="float32", **values
    )
    return dataclasses.replace(base, baselines=settings)


def trained(name, splits, tmp_path, n_items=8, **values):
    config = config_of(**{"max_epochs": 40, **values})
    return neural.train_neural(name, TrainingJob(splits, config, 0, tmp_path / name, progress=False), n_items)


@pytest.mark.parametrize("name", ALL)
def test_learns_an_order_two_rule(name, tmp_path):
    """The item before the last one decides whether the last one or itself comes again.

    Who sees the last item alone is right half of the time: N@1 of at most 0.57, and N@10 of at most 0.85.
    """
    splits = world(lambda h: torch.where(h[:, -2] < 4, h[:, -1], h[:, -2]), rows=512)
    assert trained(name, splits, tmp_path, max_epochs=40).best["N@10"] > 0.95


def test_caser_skips_and_does_not_see_beyond_its_window(tmp_path):
    """What stood three places back decides; what stood six places back is outside the window of five."""
    near = world(lambda h: h[:, -3])
    assert trained("Caser", near, tmp_path).best["N@10"] > 0.95
    model = Caser(8, SMALL, 20).eval()
    seven = prefixes([[7, 0, 1, 2, 3, 4, 5]], [0])
    other = prefixes([[6, 7, 1, 2, 3, 4, 5]], [0])
    assert WINDOW == 5 and torch.equal(model.state(seven), model.state(other))


def test_order_matters_to_all_that_should_see_it():
    """Models with places or recurrence tell (a, b, c) from (b, a, c); the multiset alone does not decide."""
    torch.manual_seed(0)
    for name in ALL:
        model = neural.build_baseline(name, world(lambda h: h[:, 0]), 8, SMALL).eval()
        one, two = (model.scores(prefixes([h], [0])) for h in ([1, 2, 3], [2, 1, 3]))
        assert (one - two).abs().max() > 1e-7, name


@pytest.mark.parametrize("name", ALL)
def test_no_model_sees_the_target_or_the_padding(name):
    """The target is not an input, and a history means the same however long its padding is."""
    torch.manual_seed(0)
    model = neural.build_baseline(name, world(lambda h: h[:, 0]), 8, SMALL).eval()
    alone = prefixes([[1, 2, 3]], [0])
    assert torch.equal(model.scores(alone), model.scores(alone._replace(target=torch.tensor([5]))))
    beside = prefixes([[1, 2, 3], [4, 5, 6, 7, 0, 1]], [0, 0])._replace(user=torch.tensor([0, 1]))
    torch.testing.assert_close(model.scores(beside)[:1], model.scores(alone), atol=2e-6, rtol=0)
    assert torch.isfinite(model.train().loss(beside))


@pytest.mark.parametrize("model", [SASRec, ReaRec])
def test_no_place_sees_its_future(model):
    torch.manual_seed(0)
    reader = model(8, SMALL, 20).eval().reader
    x, is_real = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    changed = x.clone()
    changed[:, 3:] = torch.randn(1, 2, 16)
    before, after = reader(x, is_real), reader(changed, is_real)
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=0)
    assert (before[:, 3:] - after[:, 3:]).abs().min() > 1e-6


def test_bert_sees_both_sides_and_not_what_is_masked():
    torch.manual_seed(0)
    model = BERT4Rec(8, SMALL, 20).eval()
    masked = torch.tensor([[False, True, False]])
    states = model.states(torch.tensor([[1, 2, 3]]), masked)
    assert torch.equal(states, model.states(torch.tensor([[1, 5, 3]]), masked))  # 2 is not seen
    right = model.states(torch.tensor([[1, 2, 4]]), masked)
    assert (states[:, 1] - right[:, 1]).abs().max() > 1e-6  # what comes later is


def test_bert_learns_from_a_clue_on_the_right():
    """Middle items equal their right neighbour, so that cloze training must use the right side."""
    torch.manual_seed(0)
    model = BERT4Rec(6, dataclasses.replace(SMALL, d=32), 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(150):
        right = torch.randint(6, (128,))
        sequence = torch.stack([torch.randint(6, (128,)), right, right], dim=1)
        masked = torch.tensor([[False, True, False]]).expand(128, 3)
        logits = model.states(sequence, masked)[masked] @ model.items.weight.T + model.bias
        loss = torch.nn.functional.cross_entropy(logits, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < math.log(6)


def test_bert_loss_is_finite_for_the_shortest_history():
    model = BERT4Rec(8, SMALL, 20)
    batch = prefixes([[1]], [2])
    assert all(torch.isfinite(model.loss(batch)) for _ in range(20))


@pytest.mark.parametrize("model", [SASRec, GRU4Rec])
def test_loss_of_a_model_without_opinion_is_log_n(model):
    model = model(8, SMALL, 20)
    torch.nn.init.zeros_(model.items.weight)
    assert model.loss(prefixes([[1, 2], [3]], [0, 5])).item() == pytest.approx(math.log(8), abs=1e-6)


def test_pad_left_by_hand():
    history = torch.tensor([[3, 4, PAD_ITEM], [5, PAD_ITEM, PAD_ITEM], [1, 2, 3]])
    moved = pad_left(history, torch.tensor([2, 1, 3]))
    assert moved.tolist() == [[PAD_ITEM, 3, 4], [PAD_ITEM, PAD_ITEM, 5], [1, 2, 3]]


class Fixed(ItemModel):
    def state(self, prefixes: Prefixes) -> torch.Tensor:
        return torch.ones(prefixes.n_examples, 1)


def test_full_ranking_fills_up_a_small_catalogue():
    model = Fixed(3, 1)
    model.items.weight.data = torch.tensor([[0.1], [0.3], [0.2]])
    assert model.topk(prefixes([[0], [1]], [0, 0]), 4).tolist() == [[1, 2, 0, -1]] * 2
    assert evaluate(model, prefixes([[0]], [2])).ranks.tolist() == [2]
    exclude = torch.tensor([[1, -1], [0, 2]])
    assert model.topk(prefixes([[0], [1]], [0, 0]), 2, exclude).tolist() == [[2, 0], [1, -1]]


def test_divergence_by_hand():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    kl = lambda a, b: (a * (a / b).log()).sum().item()  # noqa: E731
    logits = torch.stack([p, q]).log()[None]
    assert step_divergence(logits).item() == pytest.approx((kl(p, q) + kl(q, p)) / 2, abs=1e-6)
    assert step_divergence(logits[:, :1].expand(1, 3, 2)).item() == pytest.approx(0.0, abs=1e-6)
    far_apart = torch.tensor([[[40.0, 0.0], [0.0, 40.0]]])
    assert step_divergence(far_apart).item() == 1.0  # the bound


def test_progressive_by_hand():
    """Two steps before the last: temperatures 25 and 5."""
    logits = torch.tensor([[[25.0, 0.0], [5.0, 0.0]]])
    want = -math.log(math.e / (math.e + 1))
    assert progressive_loss(logits, torch.tensor([0])).item() == pytest.approx(want, abs=1e-6)


def test_the_contrastive_loss_leaves_out_equal_targets():
    clean = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    alike, all_differ = torch.tensor([7, 7, 1]), torch.tensor([7, 8, 1])
    far = math.log(1 + math.exp(-10))
    want = (2 * far + math.log(1 + 2 * math.exp(-10))) / 3
    assert contrastive_loss(clean, clean, alike).item() == pytest.approx(want, abs=1e-5)
    assert contrastive_loss(clean, clean, all_differ).item() > 0.4  # two of three cannot tell their twin


@pytest.mark.parametrize("reasoning", ["ERL", "PRL"])
def test_rearec_thinks_in_steps(reasoning):
    torch.manual_seed(0)
    settings = dataclasses.replace(SMALL, reasoning_steps=3, reasoning_method=reasoning)
    model = ReaRec(8, settings, 20).eval()
    batch = prefixes([[1, 2], [3, 4, 5]], [6, 7])
    steps = model.reasoning_states(batch)
    assert steps.shape == (2, 4, 16)
    want = steps.mean(dim=1) if reasoning == "ERL" else steps[:, -1]
    torch.testing.assert_close(model.state(batch), want)
    fast = SASRec(8, settings, 20).eval()
    fast.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(fast.state(batch), steps[:, 0])  # step 0 is SASRec
    assert torch.isfinite(model.train().loss(batch))


def test_a_step_equals_reading_all_anew():
    """Memory saves work and changes nothing: the whole sequence, thought appended, says the same."""
    torch.manual_seed(0)
    model = ReaRec(8, SMALL, 20).eval()
    reader, x, thought = model.reader, torch.randn(2, 3, 16), torch.randn(2, 1, 16)
    is_real, layer_inputs = torch.tensor([[False, True, True], [True, True, True]]), []
    reader(x, is_real, layer_inputs)
    more = torch.nn.functional.pad(is_real, (0, 1), value=True)
    positions = reader.positions(torch.arange(2, -1, -1))
    whole = reader.input_norm(torch.cat([x + positions, thought], dim=1))
    for layer in reader.blocks.layers:
        whole = layer(whole, src_mask=reader._attention_mask(more))
    torch.testing.assert_close(reader.step(thought, more, layer_inputs), whole[:, -1:], atol=1e-6, rtol=0)


def test_ranking_is_without_dropout():
    """A model that is being trained answers the same twice, or validation would be of another model."""
    torch.manual_seed(0)
    model = SASRec(50, dataclasses.replace(SMALL, dropout=0.5), 20).train()
    batch = prefixes([[1, 2, 3]], [0])
    assert torch.equal(model.topk(batch, 10), model.topk(batch, 10))


def test_the_grid_keeps_its_best_and_the_seed_continues_from_it(tmp_path, monkeypatch):
    splits = world(lambda h: (h[:, -1] + 3) % 8, rows=128)
    monkeypatch.setattr(neural, "LEARNING_RATES", (0.00001, 0.005))
    monkeypatch.setattr(neural, "DROPOUTS", (0.2, 0.9))
    config = config_of(max_epochs=8)
    rows = neural.tune("SASRec", TrainingJob(splits, config, 0, tmp_path / "tuning", progress=False), 8)
    points = {(row["lr"], row["dropout"]) for row in rows}
    assert points == {(0.00001, 0.2), (0.005, 0.2), (0.005, 0.9)}
    assert (rows[0]["lr"], rows[0]["dropout"]) == (0.005, 0.2)
    assert rows[0]["valid N@10"] > rows[1]["valid N@10"]
    files = sorted(path.name for path in (tmp_path / "tuning").iterdir())
    assert files == sorted(f"best-{kept}" for kept in neural.CHECKPOINT_FILES)
    again = tmp_path / "again"
    again.mkdir()
    for kept in neural.CHECKPOINT_FILES:
        (tmp_path / "tuning" / f"best-{kept}").rename(again / kept)
    values = neural.with_lr_and_dropout(config, 0.005, 0.2)
    result = neural.train_neural("SASRec", TrainingJob(splits, values, 0, again, progress=False), 8)
    fresh = neural.train_neural(
        "SASRec", TrainingJob(splits, values, 0, tmp_path / "fresh", progress=False), 8
    )
    assert result.best == fresh.best and result.epochs == 8
    for one, two in zip(result.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_point_that_diverges_does_not_end_the_grid(tmp_path, monkeypatch):
    splits = world(lambda h: h[:, -1], rows=128)
    monkeypatch.setattr(neural, "LEARNING_RATES", (0.005, 0.003))
    monkeypatch.setattr(neural, "DROPOUTS", (0.2,))
    real = neural.train_neural

    def fails(name, job, n_items):
        if job.config.baselines.lr == 0.003:
            raise FloatingPointError("the loss is nan")
        return real(name, job, n_items)

    monkeypatch.setattr(neural, "train_neural", fails)
    rows = neural.tune(
        "GRU4Rec", TrainingJob(splits, config_of(max_epochs=1), 0, tmp_path / "t", progress=False), 8
    )
    assert rows[0]["lr"] == 0.005 and rows[1]["failed"] == "the loss is nan"


def test_of_settings_as_good_the_one_that_finds_more_is_chosen():
    row = lambda n, r: {"valid N@10": n, "valid R@10": r}  # noqa: E731
    rows = [row(0.0800, 0.118), row(0.0793, 0.125), row(0.0791, 0.130)]
    assert neural.choose(rows) is rows[1]  # 0.0793 is within one hundredth of the best, 0.0791 is not
    assert neural.choose([row(0.0, 0.0)]) == row(0.0, 0.0)
