"""RQ-VAE: eqs 5-8 by hand, the quantiser against vector-quantize-pytorch, determinism."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from small_codes import SMALL, clusters

from streamrec_lite.common.files import RunLog
from streamrec_lite.config.sections import TokenizerConfig
from streamrec_lite.tokenizer.kmeans import nearest
from streamrec_lite.tokenizer.rqvae import RQVAE, ResidualQuantizer, rq_kmeans, train_rqvae


def two_levels() -> ResidualQuantizer:
    """Codes on a line: level 1 at 0 and 10, level 2 at -1 and 2; beta 0.25."""
    quantizer = ResidualQuantizer(m=2, K=2, dim=1)
    with torch.no_grad():
        quantizer.codebooks.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [2.0]]]))
    return quantizer


def test_codes_and_quantisation_loss_by_hand():
    # z = 11: nearest 10, residual 1; nearest of -1 and 2 is 2 (distance 1 against 2).
    # sg terms: 1^2 + (1-2)^2 = 2; with beta 0.25: 2 * 1.25 = 2.5.
    # z = -0.6: code 0, residual -0.6; nearest -1: 0.36 + 0.16 = 0.52, times 1.25 = 0.65.
    out = two_levels()(torch.tensor([[11.0], [-0.6]]))
    assert out.codes.tolist() == [[1, 1], [0, 0]]
    torch.testing.assert_close(out.loss, torch.tensor([2.5, 0.65]), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.vector, torch.tensor([[12.0], [-1.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.residuals[:, :, 0], torch.tensor([[11.0, -0.6], [1.0, -0.6]]))


def test_each_gradient_reaches_the_tensor_that_the_stop_gradients_leave():
    quantizer, z = two_levels(), torch.tensor([[11.0]], requires_grad=True)
    quantizer(z).loss.sum().backward()
    # Codebook terms: d/de (h - e)^2 = -2 (h - e): level 1 -2 (11 - 10) = -2, level 2 -2 (1 - 2) = 2.
    expected = torch.tensor([[[0.0], [-2.0]], [[0.0], [2.0]]])
    torch.testing.assert_close(quantizer.codebooks.grad, expected, atol=1e-6, rtol=0)
    # Commitment terms: 0.25 * 2 * ((11 - 10) + (1 - 2)) = 0.
    torch.testing.assert_close(z.grad, torch.zeros(1, 1), atol=1e-6, rtol=0)
    z = torch.tensor([[-0.6]], requires_grad=True)
    quantizer(z).loss.sum().backward()
    # 0.5 * ((-0.6 - 0) + (-0.6 + 1)) = -0.1
    torch.testing.assert_close(z.grad, torch.tensor([[-0.1]]), atol=1e-6, rtol=0)


def test_reconstruction_gradient_passes_straight_through_to_the_encoder_alone():
    quantizer, z = two_levels(), torch.tensor([[11.0]], requires_grad=True)
    (quantizer(z).vector - 7.0).square().sum().backward()  # at the quantised value 12: 2 (12 - 7) = 10
    torch.testing.assert_close(z.grad, torch.tensor([[10.0]]))
    assert quantizer.codebooks.grad is None


def test_losses_of_the_whole_model_by_hand():
    sizes = SimpleNamespace(m=2, K=2, hidden=(), latent_dim=1, beta=0.25)  # one layer each
    model = RQVAE(1, sizes)
    model.quantizer = two_levels()
    with torch.no_grad():  # encoder 2x, decoder 0.5z + 1
        for layer, (weight, bias) in zip(
            (model.encoder[0], model.decoder[0]), ((2.0, 0.0), (0.5, 1.0)), strict=True
        ):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    recon, quant, _ = model.losses(torch.tensor([[5.5], [-0.3]]))
    # z 11 and -0.6 become 12 and -1, decoded 7 and 0.5: (5.5 - 7)^2 = 2.25, (-0.3 - 0.5)^2 = 0.64.
    assert recon.item() == pytest.approx((2.25 + 0.64) / 2, abs=1e-6)
    assert quant.item() == pytest.approx((2.5 + 0.65) / 2, abs=1e-6)


def test_quantiser_equals_vector_quantize_pytorch():
    vq = pytest.importorskip("vector_quantize_pytorch")
    generator = torch.Generator().manual_seed(1)
    m, K, dim = 4, 32, 16
    books = torch.randn(m, K, dim, generator=generator) * torch.tensor([1.0, 0.5, 0.25, 0.12])[:, None, None]
    other = vq.ResidualVQ(dim=dim, num_quantizers=m, codebook_size=K, kmeans_init=False).eval()
    for layer, book in zip(other.layers, books, strict=True):
        layer._codebook.embed.copy_(book[None])
    ours = ResidualQuantizer(m, K, dim)
    with torch.no_grad():
        ours.codebooks.copy_(books)
    z = torch.randn(500, dim, generator=generator)
    vector, codes, _ = other(z[None])
    out = ours(z)
    assert torch.equal(out.codes, codes[0])
    assert torch.equal(ours.encode(z), codes[0])
    torch.testing.assert_close(out.vector, vector[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.embed(out.codes), vector[0], atol=1e-5, rtol=0)


def test_training_uses_all_codes_lowers_the_loss_and_logs_it(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    x = clusters()
    model = train_rqvae(x, SMALL, log, progress=False)
    rows = log.rows()
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    assert [rows[i]["phase"] for i in (0, 2, 19)] == ["warm-up", "train", "decoder"]
    trained = [row["recon"] for row in rows if row["phase"] == "train"]
    assert trained[-1] < trained[0]
    codes = model.quantizer.encode(model.encode(x))
    assert all(len(codes[:, d].unique()) == 8 for d in range(3))
    error = (x - model.decode(model.quantizer.embed(codes))).square().sum()
    assert error < (x - x.mean(dim=0)).square().sum()


def test_codebooks_are_centres_of_the_final_latents():
    x = clusters()
    model = train_rqvae(x, dataclasses.replace(SMALL, m=2), progress=False)
    z, book = model.encode(x), model.quantizer.codebooks[0]
    code = nearest(z, book)
    centres = torch.stack([z[code == k].mean(dim=0) for k in range(8)])
    torch.testing.assert_close(centres, book, atol=1e-4, rtol=0)


def test_same_seed_same_codes_and_the_global_random_state_stays():
    x = clusters()
    state = torch.get_rng_state()
    first, again = (train_rqvae(x, SMALL, progress=False) for _ in range(2))
    other = train_rqvae(x, dataclasses.replace(SMALL, seed=1), progress=False)
    assert torch.equal(state, torch.get_rng_state())
    codes = [model.quantizer.encode(model.encode(x)) for model in (first, again, other)]
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_few_epochs_still_give_fitted_codebooks(epochs):
    x = clusters()
    model = train_rqvae(x, dataclasses.replace(SMALL, epochs=epochs), progress=False)
    assert len(model.quantizer.encode(model.encode(x))[:, 0].unique()) == 8


def test_rq_kmeans_halves_the_error_level_by_level_and_repeats_itself():
    pytest.importorskip("faiss")
    x = clusters()
    config = TokenizerConfig(method="rqkmeans", m=3, K=16)
    quantizer = rq_kmeans(x, config)
    codes = quantizer.encode(x)
    assert torch.equal(codes, rq_kmeans(x, config).encode(x))
    left = quantizer(x).residuals.square().sum(dim=(1, 2))
    assert left[1] < left[0] / 2
    assert left[2] < left[1]


def test_rq_kmeans_with_fewer_items_than_codes():
    pytest.importorskip("faiss")
    x = clusters(10)
    quantizer = rq_kmeans(x, TokenizerConfig(m=2, K=16))
    torch.testing.assert_close(quantizer.embed(quantizer.encode(x)), x, atol=1e-5, rtol=0)
