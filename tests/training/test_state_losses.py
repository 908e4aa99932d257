"""States and residuals: their losses by hand, whom they move, and the warm-up of the head."""

from __future__ import annotations

import math

import pytest
import torch
from finetuning import pretrained, settings, two_users
from torch.nn import functional as F

from streamrec_lite.config.training import SftConfig
from streamrec_lite.evaluation.metrics import rank_by_score
from streamrec_lite.model.item_representation import item_table, represent_items, state_scores
from streamrec_lite.training.annotator import annotate
from streamrec_lite.training.finetune import finetune
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.state_losses import (
    align_loss,
    distillation_loss,
    distilled_state_loss,
    in_batch_labels,
    quantisation_losses,
    soft_labels,
    state_loss,
    warm_up_state_head,
)


def test_state_loss_by_hand():
    """Two users, s_1 and s_2 after a wild s_0, three candidates; weights 0, 1/3 and 2/3."""
    states = torch.tensor([[[9.0, 7.0], [1.0, 0.0], [0.0, 2.0]], [[-5.0, 6.0], [0.0, 1.0], [1.0, 1.0]]])
    t = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    e = math.exp
    first = math.log(e(1) + 1 + e(1)) - 1, math.log(1 + e(2) + e(2)) - 0  # user 0 wants candidate 0
    second = math.log(1 + e(1) + e(1)) - 1, math.log(e(1) + e(1) + e(2)) - 2  # user 1 candidate 2
    want = sum(row[0] / 3 + 2 * row[1] / 3 for row in (first, second)) / 2
    got = state_loss(states @ t.T, torch.tensor([0, 2]))
    assert got.item() == pytest.approx(want, abs=1e-6)
    alone = state_loss(states[:, 1:2] @ t.T, torch.tensor([0, 2]))  # without thoughts s_0 is all there is
    assert alone.item() == pytest.approx((first[0] + second[0]) / 2, abs=1e-6)


def test_what_is_kept_of_the_first_guess_by_hand():
    """One user, two candidates: s_0 has 3/4 and 1/4, s_1 1/2 and 1/2, s_2 2/3 and 1/3."""
    log = math.log
    scores = torch.tensor([[[log(3), 0.0], [0.0, 0.0], [log(2), 0.0]]], requires_grad=True)
    loss = distillation_loss(scores, soft_labels(scores[:, :1], None, 0.0))
    two = 0.75 * log(3 / 2) + 0.25 * log(3)
    assert loss.item() == pytest.approx(log(2) / 3 + two * 2 / 3, abs=1e-6)
    loss.backward()
    assert scores.grad[0, 0].tolist() == [0, 0]  # the guess does not follow
    pull = 2 / 3 * (2 / 3 - 3 / 4)  # a softmax minus its label, by w_2
    assert scores.grad[0, 2].tolist() == pytest.approx([pull, -pull], abs=1e-6)


def test_a_guess_says_nothing_of_users_with_the_same_target():
    scores, same_target = torch.randn(1, 2, 3), torch.tensor([[False, True, False]])
    guess = torch.tensor([[[0.3, 0.0, 0.7]]])
    got = distillation_loss(scores, guess, same_target)
    torch.testing.assert_close(got, distillation_loss(scores[..., ::2], guess[..., ::2]))


def test_a_guess_is_spread_on_similar_items_by_hand():
    """Items 0 to 3 have 1/2, 1/4, 1/8 and 1/8; each is given the mean of the two that are nearest to it."""
    scores = torch.tensor([[[4.0, 2.0, 1.0, 1.0]]]).log().requires_grad_()
    nearby = torch.tensor([[1, 2], [0, 2], [0, 3], [0, 2]])
    got = soft_labels(scores, nearby, 0.2)
    near = torch.tensor([3 / 16, 5 / 16, 5 / 16, 5 / 16])
    want = 0.8 * torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]) + 0.2 * near / (18 / 16)
    torch.testing.assert_close(got, want.view(1, 1, 4))
    assert not got.requires_grad
    torch.testing.assert_close(soft_labels(scores, nearby, 0.0), scores.detach().softmax(-1))
    both = soft_labels(torch.cat([scores, scores.flip(-1)]), nearby, 0.2)  # users do not mix
    torch.testing.assert_close(both[:1], got)
    torch.testing.assert_close(both.sum(-1), torch.ones(2, 1))


def test_states_come_near_the_target_from_the_first_one_on():
    """|s_j - t|^2 a component is 4, 1 and 0 for s_0, s_1, s_2, by the weights 1/6, 2/6 and 3/6."""
    t = torch.ones(1, 2, requires_grad=True)
    loss = align_loss(torch.tensor([[[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]]), t)
    assert loss.item() == pytest.approx(4 / 6 + 2 / 6)
    assert not loss.requires_grad  # the target does not follow


def test_scores_have_a_scale_of_their_own():
    model, *_ = pretrained()
    model.state_score_scale.data.fill_(0.5)
    s, t = torch.tensor([[1.0, 2.0] + [0.0] * 14]), torch.eye(16)[:3] * 4
    assert state_scores(model, s, t).tolist() == [[2.0, 4.0, 0.0]]


def test_an_items_place_by_hand():
    """Equal scores do not push it down; among 300 items more than a byte can count are before it."""
    scores = torch.tensor([[0.5, 2.0, 0.5, -1.0], [3.0, 1.0, 2.0, 0.0]])
    assert rank_by_score(torch.tensor([2, 3]), scores).tolist() == [2, 4]
    many = rank_by_score(torch.tensor([0]), torch.arange(300.0)[None])
    assert many.tolist() == [300] and many.dtype == torch.int64


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_the_scale_is_learned_unless_it_is_given(tmp_path, given):
    model, tokenizer, splits, neighbours = pretrained()
    config = settings(max_epochs=1, state_score_scale=given)
    finetune(model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, neighbours)
    if given:
        assert model.state_score_scale.item() == given
    else:
        assert model.state_score_scale.item() not in (given, model.config.d_model**-0.5)


def test_another_user_with_the_same_target_is_no_negative():
    states, t = torch.randn(3, 3, 4), torch.randn(3, 4)
    items = torch.tensor([7, 8, 7])
    place, same_target = in_batch_labels(items)
    assert same_target.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    got = state_loss(states @ t.T, place, same_target)
    left_out = torch.stack([states[0, 1:] @ t[:2].T, states[2, 1:] @ t[[2, 1]].T])  # (2, steps, 2)
    own = F.cross_entropy(left_out.flatten(0, 1), torch.zeros(4, dtype=torch.long), reduction="none")
    other = F.cross_entropy(states[1, 1:] @ t.T, torch.ones(2, dtype=torch.long), reduction="none")
    weight = torch.tensor([1 / 3, 2 / 3])
    want = ((own.view(2, 2) * weight).sum() + (other * weight).sum()) / 3
    torch.testing.assert_close(got, want)


def test_against_all_items_one_state_a_user_is_drawn_by_the_weights():
    """The mean of 1,000 draws for 2 users; s_0, the worst by far, is never drawn."""
    model, tokenizer, batch, *_, nearby = two_users()
    t = represent_items(model, tokenizer, batch.target)
    torch.manual_seed(0)
    s = torch.stack([-t, torch.randn_like(t), t], dim=1).detach()  # from bad to good
    with torch.no_grad():
        scores = state_scores(model, s, item_table(model, tokenizer))
        each = [state_loss(scores[:, j : j + 1], batch.target).item() for j in range(3)]
        want = state_loss(scores, batch.target).item()
        many = batch.select(torch.arange(2).repeat(1000))
        many_s, many_t, config = (
            s.repeat(1000, 1, 1),
            t.repeat(1000, 1),
            SftConfig(first_guess_share=0.0, first_state_weight=0.0),
        )
        got = distilled_state_loss(model, tokenizer, many, many_s, many_t, nearby, config).item()
    assert want == pytest.approx((each[1] + 2 * each[2]) / 3, abs=1e-5)
    assert got == pytest.approx(want, abs=0.1)


@pytest.mark.parametrize("negatives", ["catalogue", "batch"])
def test_what_is_kept_is_the_first_guess_among_the_candidates(negatives):
    """Two states: the draw has no choice, so the loss is that of s_1 with the label worked out here."""
    model, tokenizer, batch, *_, nearby = two_users()
    t = represent_items(model, tokenizer, batch.target).detach()
    s = torch.randn(2, 2, t.shape[1])
    catalogue = negatives == "catalogue"
    table = item_table(model, tokenizer).detach() if catalogue else t
    place = batch.target if catalogue else torch.arange(2)
    first, later = (state_scores(model, s[:, j], table).detach() for j in range(2))
    guess = first.softmax(-1)
    if catalogue:  # in a batch nothing is known of what is similar
        spread = guess[:, nearby].mean(-1)
        guess = 0.75 * guess + 0.25 * spread / spread.sum(-1, keepdim=True)
    target, config = (
        F.one_hot(place, len(table)),
        SftConfig(negatives=negatives, first_guess_share=0.7, similar_items_share=0.25),
    )
    want = 0.5 * F.cross_entropy(first, place) + F.cross_entropy(later, 0.3 * target + 0.7 * guess)
    torch.testing.assert_close(distilled_state_loss(model, tokenizer, batch, s, t, nearby, config), want)
    want = 0.5 * F.cross_entropy(first, place) + F.cross_entropy(first, 0.3 * target + 0.7 * guess)
    alone = distilled_state_loss(model, tokenizer, batch, s[:, :1], t, nearby, config)
    torch.testing.assert_close(alone, want)  # no thought: s_0 is guess and last state in one
    plain = SftConfig(negatives=negatives, first_guess_share=0.0, first_state_weight=0.0)
    got = distilled_state_loss(model, tokenizer, batch, s, t, nearby, plain)
    torch.testing.assert_close(got, F.cross_entropy(later, place))  # eq. 14


def test_users_with_the_same_target_do_not_count_in_a_guess_either():
    model, tokenizer, batch, *_, nearby = two_users()
    same = batch._replace(target=batch.target[[0, 0]])
    t, config = represent_items(model, tokenizer, same.target).detach(), SftConfig(negatives="batch")
    s = torch.randn(2, 2, t.shape[1])
    assert (
        distilled_state_loss(model, tokenizer, same, s, t, nearby, config).item() == 0
    )  # nobody else is left


def test_quantisation_loss_by_hand_and_whom_it_moves():
    residual = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    thought = torch.tensor([[[0.0, 0.0]]], requires_grad=True)
    loss = quantisation_losses(residual, thought, beta=0.25)
    assert loss.item() == pytest.approx(5 * 1.25)
    loss.backward()
    assert thought.grad.tolist() == [[[-2.0, -4.0]]]  # the table follows the residual
    assert residual.grad.tolist() == [[[0.5, 1.0]]]  # beta as strong the other way


def test_warming_up_touches_the_head_alone_and_brings_states_to_their_targets():
    model, tokenizer, splits, _ = pretrained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = annotate(model, tokenizer, splits.train, 0).norm.mean()
    warm_up_state_head(model, tokenizer, splits.train, 2)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith(("state_", "state_score_scale")) for name in changed)
    assert annotate(model, tokenizer, splits.train, 0).norm.mean() < 0.8 * start
