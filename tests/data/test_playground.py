"""The playground: the same shop for a seed, readable text, and a hidden state that is worth inferring."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamrec_lite.config.presets import preset
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data import shop
from streamrec_lite.data.dataset import TEXT_COLUMNS
from streamrec_lite.data.playground import LONGEST_SEQUENCE, SHORTEST_SEQUENCE, draw_lengths, make_playground
from streamrec_lite.data.playground_world import PlaygroundWorld
from streamrec_lite.data.sequences import leave_one_out


@pytest.fixture(scope="module")
def lite():
    return make_playground(DataConfig())


def test_scores_are_a_distribution(lite):
    scores = lite.world.oracle_scores(lite.sequences[:50])
    assert scores.shape == (50, 600) and scores.min() > 0
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-12)


def test_topk_ranks_the_scores(lite):
    test = leave_one_out(lite, 20).test.select(torch.arange(30))
    top = lite.world.oracle_topk(test, 700)
    scores = torch.from_numpy(lite.world.oracle_scores(test.history.numpy()))
    assert top.shape == (30, 700) and (top[:, 600:] == -1).all()
    assert torch.equal(top[:, :600].sort().values, torch.arange(600).expand(30, 600))
    assert (scores.gather(1, top[:, :600]).diff(dim=1) <= 0).all()
    assert torch.equal(lite.world.oracle_topk(test, 5), top[:, :5])


def ndcg10(top: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    hit = top[:, :10] == target[:, None]
    gain = 1 / torch.log2(torch.arange(2, 12, dtype=torch.float64))
    return (hit * gain).sum(dim=1).numpy()


def test_no_counting_beats_the_oracle_and_the_hidden_state_pays(lite):
    """The oracle's N@10 lies where a table is readable, and the last item alone tells under 60 % of it."""
    splits = leave_one_out(lite, 20)
    last = splits.train.history.gather(1, splits.train.length[:, None] - 1)[:, 0].numpy()
    popular = np.bincount(splits.train.target.numpy(), minlength=600)
    counts = np.zeros((600, 600))
    np.add.at(counts, (last, splits.train.target.numpy()), 1)
    markov = torch.from_numpy(counts + 1e-6 * popular)
    for part in (splits.valid, splits.test):
        best = ndcg10(lite.world.oracle_topk(part, 10), part.target)
        before = part.history.gather(1, part.length[:, None] - 1)[:, 0]
        rivals = {
            "markov": markov[before].topk(10).indices,
            "popularity": torch.from_numpy(popular).topk(10).indices.expand(part.n_examples, 10),
            "true last step": first_order(lite.world, before),
        }
        assert 0.25 < best.mean() < 0.45
        gains = {name: ndcg10(top, part.target) for name, top in rivals.items()}
        assert gains["markov"].mean() < 0.6 * best.mean()
        assert gains["popularity"].mean() < 0.15 * best.mean()
        for gain in gains.values():  # by more than four standard errors of the paired difference
            difference = best - gain
            assert difference.mean() > 4 * difference.std() / np.sqrt(len(difference))


def first_order(world: PlaygroundWorld, last: torch.Tensor) -> torch.Tensor:
    """The exact ranking of a model that knows the world but sees the last item alone."""
    return torch.from_numpy(world.oracle_scores(last.numpy()[:, None])).topk(10).indices


def test_same_seed_same_shop(lite):
    assert make_playground(DataConfig()).fingerprint() == lite.fingerprint()
    assert make_playground(DataConfig(playground_seed=1)).fingerprint() != lite.fingerprint()


def test_more_users_are_the_same_shop(lite):
    more = make_playground(DataConfig(playground_users=3000))
    assert more.items.equals(lite.items) and np.array_equal(more.world.transition, lite.world.transition)


def test_length_tells_nothing(lite):
    """Lengths are drawn before, and apart from, all that is bought: the ends look like the middles."""
    length = np.array([len(s) for s in lite.sequences])
    assert length.min() == SHORTEST_SEQUENCE and length.max() == LONGEST_SEQUENCE and 10 < length.mean() < 11
    assert np.array_equal(length[:10], draw_lengths(2500, users_rng())[:10])
    many = make_playground(DataConfig(playground_users=30_000))
    fifth_item_ends = [s[4] for s in many.sequences if len(s) == 5]
    fifth_item_goes_on = [s[4] for s in many.sequences if len(s) > 5]
    table = np.stack(
        [
            np.bincount(many.world.item_category[items], minlength=36)
            for items in (fifth_item_ends, fifth_item_goes_on)
        ]
    )
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    chi_square = ((table - expected) ** 2 / expected).sum()
    assert chi_square < 35 + 4 * np.sqrt(2 * 35)


def users_rng():
    from streamrec_lite.common.device import derive_seed

    return np.random.default_rng(derive_seed(0, "playground", "users"))


def test_text_is_complete_and_true(lite):
    assert list(lite.items.columns) == list(TEXT_COLUMNS) and len(lite.items) == lite.n_items == 600
    assert (lite.items != "").all(axis=None)
    for row in (0, 17, 599):
        item = lite.items.iloc[row]
        assert item.brand == shop.BRANDS[lite.world.item_brand[row]]
        assert item.title.startswith(item.brand) and item.brand in item.description
        department, category = item.categories.split(",")
        noun = next(d.nouns[category] for d in shop.DEPARTMENTS if d.name == department)
        assert noun.title() in item.title and noun in item.description


def test_every_department_has_its_shape():
    for department in shop.departments(shop.MAX_DEPARTMENTS):
        assert (
            len(department.nouns) == shop.CATEGORIES_PER_DEPARTMENT
            and len(department.projects) == shop.PROJECTS_PER_DEPARTMENT
        )
        for order in department.projects.values():
            assert len(set(order)) == shop.STAGES_PER_PROJECT and set(order) <= set(
                range(shop.CATEGORIES_PER_DEPARTMENT)
            )
    names = [d.name for d in shop.departments(shop.MAX_DEPARTMENTS)]
    assert len(set(names)) == len(names) == shop.MAX_DEPARTMENTS


@pytest.mark.parametrize(("items", "users"), [(20, 10), (21, 30), (120, 200), (5000, 500), (30_000, 50)])
def test_sizes(items, users):
    made = make_playground(DataConfig(playground_items=items, playground_users=users))
    assert (made.n_items, made.n_users, len(made.items)) == (items, users, items)
    assert made.item_ids == sorted(made.item_ids) and made.user_ids == sorted(made.user_ids)
    assert all(
        SHORTEST_SEQUENCE <= len(s) <= LONGEST_SEQUENCE and s.min() >= 0 and s.max() < items
        for s in made.sequences
    )
    world = made.world
    np.testing.assert_allclose(world.transition.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(world.popularity.sum(), 1, atol=1e-12)
    scores = world.oracle_scores(made.sequences[:3])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-9)


def test_smoke_preset_can_be_split():
    splits = leave_one_out(make_playground(preset("smoke").data), 20)
    assert splits.valid.n_examples == splits.test.n_examples == 200 and splits.train.n_examples > 1000


def test_explain_names_brand_and_wish(lite):
    names = list(shop.DEPARTMENTS[0].nouns)
    guitars, amplifiers = (
        np.flatnonzero(lite.items.categories == f"Music,{name}") for name in (names[0], names[1])
    )
    brand = lite.items.brand[guitars[0]]
    amplifier = next(i for i in amplifiers if lite.items.brand[i] == brand)
    belief = lite.world.explain_belief([guitars[0], amplifier])
    assert belief["brand"][0][0] == brand
    assert belief["wish"][0][0] == "start on electric guitar: Instrument Cables"
    assert 0 < belief["wish"][0][1] <= 1 and len(belief["wish"]) == 3
