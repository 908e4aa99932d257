"""Vectors of items: found by ID or by number, zero at first, learned, kept."""

from __future__ import annotations

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json, write_json
from streamrec_lite.common.schemas import FIRST_CODE, PAD
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.config.training import TrainConfig
from streamrec_lite.inference.beam_search import answer_log_probs, beam_search
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.item_representation import item_table, represent_items
from streamrec_lite.model.item_vectors import ItemVectors
from streamrec_lite.model.sequences import history_tokens, shift_right
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.training.optim import make_optimizer


def with_vectors():
    model, tokenizer, users = small_world()
    model.item_vectors = ItemVectors.of(tokenizer, model.config.d_model)
    return model, tokenizer, users


def test_each_token_carries_its_items_vector_and_padding_none():
    model, tokenizer, users = with_vectors()
    torch.nn.init.normal_(model.item_vectors.vectors.weight[:-1])
    found = model.item_vectors(history_tokens(tokenizer.tokens, users.history))
    found = found.view(*users.history.shape, 3, 16)
    for row in range(6):
        for place, item in enumerate(users.history[row].tolist()):
            want = model.item_vectors.vectors.weight[item] if item >= 0 else torch.zeros(16)
            assert torch.equal(found[row, place], want.expand(3, 16))


def test_tokens_that_name_no_item_have_no_vector():
    model, tokenizer, _ = with_vectors()
    torch.nn.init.normal_(model.item_vectors.vectors.weight[:-1])
    known = {tuple(row) for row in tokenizer.tokens.tolist()}
    every = torch.cartesian_prod(*(torch.arange(3 + 6 * j, 9 + 6 * j) for j in range(3)))
    named = model.item_vectors(every).abs().sum(dim=(1, 2)) > 0
    assert named.tolist() == [tuple(row) in known for row in every.tolist()]
    assert not model.item_vectors(torch.full((1, 3), PAD)).any()


def test_at_first_the_model_is_the_same_and_then_t_moves_by_the_vector():
    plain, tokenizer, users = small_world()
    model, _, _ = with_vectors()
    tokens = history_tokens(tokenizer.tokens, users.history)
    assert torch.equal(model.encode(tokens)[0], plain.encode(tokens)[0])
    before = item_table(model, tokenizer)
    assert torch.equal(before, item_table(plain, tokenizer))
    with torch.no_grad():
        model.item_vectors.vectors.weight[7] = 2.0
    assert torch.equal(
        represent_items(model, tokenizer, torch.tensor([7, 8])), before[7:9] + torch.tensor([[2.0], [0]])
    )


def test_gradients_reach_the_items_read_and_the_target_and_never_the_padding():
    model, tokenizer, users = with_vectors()
    states, _ = model.encode_history(tokenizer, users.history)
    (states.sum() + represent_items(model, tokenizer, users.target).sum()).backward()
    touched = model.item_vectors.vectors.weight.grad.abs().sum(1) > 0
    read = set(users.history[users.history >= 0].tolist()) | set(users.target.tolist())
    assert set(touched.nonzero().flatten().tolist()) == read


def test_vectors_learn_as_fast_as_the_table_without_weight_decay():
    model, _, _ = with_vectors()
    groups = make_optimizer(model, TrainConfig(lr=1e-3, embedding_lr_factor=20.0)).param_groups
    own = next(g for g in groups if any(p is model.item_vectors.vectors.weight for p in g["params"]))
    assert own["lr_factor"] == 20.0 and own["weight_decay"] == 0.0


def test_saved_and_loaded_with_the_model(tmp_path):
    model, tokenizer, users = with_vectors()
    torch.nn.init.normal_(model.item_vectors.vectors.weight[:-1])
    model.save(tmp_path)
    again = Backbone.load(tmp_path)
    tokens = history_tokens(tokenizer.tokens, users.history)
    assert torch.equal(again.encode(tokens)[0], model.encode(tokens)[0])
    assert torch.equal(item_table(again, tokenizer), item_table(model, tokenizer))
    sizes = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(sizes.replace("40", "41"))  # another catalogue's
    with pytest.raises(BadInput):
        Backbone.load(tmp_path)


def test_ids_too_long_for_a_key_are_refused():
    with pytest.raises(BadInput, match="63 bits"):
        ItemVectors(10, 8, 4, 1027)


def test_in_training_whole_vectors_are_left_out_and_the_rest_made_up_for():
    model, tokenizer, _ = with_vectors()
    model.item_vectors.vectors.weight.data[:-1] = 1.0
    model.item_vectors.dropout = 0.25
    tokens = tokenizer.tokens[torch.randint(0, tokenizer.n_items, (2000, 4))].flatten(1)
    assert torch.equal(model.item_vectors.eval()(tokens), torch.ones(2000, 12, 16))
    found = model.item_vectors.train()(tokens)
    assert torch.allclose(found.unique(), torch.tensor([0.0, 1 / 0.75]))
    by_item = found.view(2000, 4, -1)
    assert (by_item.amin(-1) == by_item.amax(-1)).all()  # an item's tokens share their fate
    assert abs(float(found.mean()) - 1) < 0.02  # 8,000 draws: a deviation of 0.0065


def test_a_prefix_is_scored_by_the_mean_vector_of_its_items():
    model, tokenizer, _ = with_vectors()
    torch.nn.init.normal_(model.item_vectors.vectors.weight[:-1])
    trie = tokenizer.trie
    for depth in range(1, 4):
        got = model.item_vectors.prefix_means(trie, depth)
        assert got.shape == (trie.n_nodes(depth), 16)
        for node in range(trie.n_nodes(depth)):
            inside = trie.paths[:, depth] == node
            want = model.item_vectors.vectors.weight[:-1][inside].mean(0)
            torch.testing.assert_close(got[node], want, atol=1e-6, rtol=0)


def test_code_scores_with_item_vectors_by_hand():
    codes = torch.tensor([[0, 0], [0, 1], [1, 0]])
    tokenizer = SemanticTokenizer.from_codes(codes, 2)
    sizes = BackboneConfig(d_model=4, d_ff=8, num_layers=1, num_heads=2, d_kv=2, dropout=0.0)
    model = Backbone(sizes, tokenizer.vocab_size)
    model.item_vectors = ItemVectors.of(tokenizer, 4, in_answer_logits=True)
    with torch.no_grad():
        model.shared.weight.zero_()
        model.shared.weight[FIRST_CODE : FIRST_CODE + 4, 0] = torch.tensor([1.0, 2.0, 3.0, 5.0])
        model.item_vectors.vectors.weight[:3, 0] = torch.tensor([2.0, 4.0, 0.5])
    hidden = torch.tensor([[2.0, 7.0, 7.0, 7.0]])  # scaled by 4**-0.5: it reads component 0 once
    first = model.code_log_probs(
        hidden, 0, tokenizer.trie, tokenizer.trie.padded_children(0, torch.tensor([0]))
    )
    want = torch.tensor([[1.0 + 3.0, 2.0 + 0.5]]).log_softmax(-1)  # the mean of 2 and 4; 0.5 alone
    torch.testing.assert_close(first, want)
    second = model.code_log_probs(
        hidden, 1, tokenizer.trie, tokenizer.trie.padded_children(1, torch.tensor([0]))
    )
    torch.testing.assert_close(second, torch.tensor([[3.0 + 2.0, 5.0 + 4.0]]).log_softmax(-1))
    model.item_vectors.in_answer_logits = False
    plain = model.code_log_probs(
        hidden, 0, tokenizer.trie, tokenizer.trie.padded_children(0, torch.tensor([0]))
    )
    torch.testing.assert_close(plain, torch.tensor([[1.0, 2.0]]).log_softmax(-1))


def test_answers_sum_to_one_and_the_beam_agrees_when_vectors_score_them():
    model, tokenizer, users = with_vectors()
    torch.nn.init.normal_(model.item_vectors.vectors.weight[:-1])
    tokens, plain = history_tokens(tokenizer.tokens, users.history), None
    for in_answer_logits in (False, True):
        model.item_vectors.in_answer_logits = in_answer_logits
        found = beam_search(model.eval(), tokenizer.trie, tokens, tokenizer.n_items, tokenizer.n_items)
        torch.testing.assert_close(found.score.exp().sum(1), torch.ones(len(tokens)))
        states, mask = model.encode(tokens)
        hidden = model.decode(shift_right(tokenizer.tokens[users.target]), states, mask)
        want = answer_log_probs(model, tokenizer, hidden, users.target).sum(1)
        got = found.score[found.item == users.target[:, None]]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        assert plain is None or not torch.allclose(got, plain, atol=1e-3)
        plain = got


def test_the_part_in_the_logits_is_kept_with_the_weights(tmp_path):
    model, _, _ = with_vectors()
    model.item_vectors.in_answer_logits = True
    model.save(tmp_path)
    assert Backbone.load(tmp_path).item_vectors.in_answer_logits
    sizes = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", {**sizes, "item_vectors": [*sizes["item_vectors"][:2], False]})
    assert not Backbone.load(tmp_path).item_vectors.in_answer_logits
    write_json(tmp_path / "model.json", {**sizes, "item_vectors": sizes["item_vectors"][:2]})
    with pytest.raises(BadInput, match="what Backbone"):
        Backbone.load(tmp_path)
