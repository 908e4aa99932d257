"""The backbone is transformers' T5, with one table and one or two decoders."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.schemas import BOS, PAD
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.sequences import label_log_probs, shift_right

SIZES = BackboneConfig(
    d_model=32, d_ff=48, num_layers=3, num_heads=4, d_kv=16, dropout=0.0, recency_embeddings=0
)
V = 3 + 4 * 16


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Backbone(SIZES, V, ("direct", "thinking")).eval()


@pytest.fixture(scope="module")
def tokens():
    tokens = torch.randint(3, V, (5, 24), generator=torch.Generator().manual_seed(1))
    tokens[1, 8:] = PAD
    tokens[3, 20:] = PAD
    return tokens


@pytest.fixture(scope="module")
def labels():
    return torch.randint(3, V, (5, 4), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("decoder", ["direct", "thinking"])
def test_logits_equal_transformers_t5(model, tokens, labels, decoder):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_ff": 48, "num_layers": 3, "num_heads": 4, "d_kv": 16}
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=V, dropout_rate=0.0, decoder_start_token_id=BOS, pad_token_id=PAD, **sizes)
    ).eval()
    state = {"shared.weight": model.shared.weight}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in model.decoders[decoder].state_dict().items()}
    missing, unexpected = t5.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("embed_tokens" in name or "lm_head" in name for name in missing)  # tied to shared
    with torch.no_grad():
        theirs = t5(input_ids=tokens, attention_mask=tokens != PAD, labels=labels)
        ours = model(tokens, labels, decoder)
    torch.testing.assert_close(ours, theirs.logits, atol=1e-5, rtol=0)
    assert float(theirs.loss) == pytest.approx(-float(label_log_probs(ours, labels).mean()), abs=1e-5)


def test_recency_counts_from_the_newest_token(model, tokens):
    """A token carries the embedding of its distance from the end; beyond the table's end all are alike."""
    torch.manual_seed(0)
    near = Backbone(dataclasses.replace(SIZES, recency_embeddings=6), V).eval()
    distance = torch.tensor([5] * 18 + [5, 4, 3, 2, 1, 0])  # a row of 24 tokens without padding
    by_hand = near.shared(tokens[:1]) + near.recency.weight[distance]
    with torch.no_grad():
        want = near.encoder(inputs_embeds=by_hand).last_hidden_state
        torch.testing.assert_close(near.encode(tokens[:1])[0], want, atol=1e-6, rtol=0)
        padded = near.encode(tokens[1:2])[0][:, :8]  # counted from the newest real token, not from the PADs
        torch.testing.assert_close(padded, near.encode(tokens[1:2, :8])[0], atol=1e-5, rtol=0)


def test_padding_changes_nothing(model, tokens, labels):
    with torch.no_grad():
        alone = model(tokens[1:2, :8], labels[1:2])
        padded = model(tokens, labels)[1:2]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=0)


def test_decoders_share_encoder_and_table_and_nothing_else(model, tokens, labels):
    names = [name for name, _ in model.named_parameters()]
    assert sum("shared" in name for name in names) == 1
    assert not any("embed_tokens" in name for name in model.state_dict())
    copy = Backbone(SIZES, V, ("direct", "thinking"))
    copy.load_state_dict(model.state_dict())
    copy(tokens, labels, "direct").sum().backward()
    grads = {name: p.grad is not None for name, p in copy.named_parameters()}
    assert grads["shared.weight"]
    assert all(has for name, has in grads.items() if name.startswith(("encoder.", "decoders.direct")))
    assert not any(has for name, has in grads.items() if name.startswith("decoders.thinking"))


def test_shift_right_and_log_probs_by_hand():
    assert shift_right(torch.tensor([[7, 8, 9]])).tolist() == [[BOS, 7, 8]]
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    assert label_log_probs(logits, torch.tensor([[1]])).item() == pytest.approx(math.log(0.75))
    # tau = 0.5 squares the odds: 9 to 1 (eq. 11)
    assert label_log_probs(logits, torch.tensor([[1]]), 0.5).item() == pytest.approx(math.log(0.9))


def test_save_and_load(model, tokens, labels, tmp_path):
    model.save(tmp_path)
    loaded = Backbone.load(tmp_path)
    assert torch.equal(loaded(tokens, labels), model(tokens, labels))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("damage", ["truncate", "other sizes", "no json", "not json"])
def test_bad_checkpoints_are_one_line(model, tmp_path, damage):
    model.save(tmp_path)
    weights, sizes = tmp_path / "model.safetensors", tmp_path / "model.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    if damage == "other sizes":
        sizes.write_text(sizes.read_text().replace('"d_ff": 48', '"d_ff": 64'))
    if damage == "no json":
        sizes.unlink()
    if damage == "not json":
        sizes.write_text("{")
    with pytest.raises(BadInput) as caught:
        Backbone.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_decoder():
    with pytest.raises(BadInput, match="direct"):
        Backbone(SIZES, V, ("dirct",))
