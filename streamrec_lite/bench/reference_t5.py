"""What the benchmarks compare with: the same weights, run by transformers."""

from __future__ import annotations

from ..common.schemas import BOS, PAD
from ..model.backbone import Backbone


def as_transformers_t5(model: Backbone, decoder: str = "direct"):
    """``T5ForConditionalGeneration`` with the weights of ``model`` and one of its decoders."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {
        k: v
        for k, v in vars(model.config).items()
        if k not in ("dropout", "softmax", "recency_embeddings", "decoder_layers")
    }
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=model.vocab_size, dropout_rate=model.config.dropout, pad_token_id=PAD,
            decoder_start_token_id=BOS, eos_token_id=None, **sizes,
        )
    )  # fmt: skip
    state = {"shared.weight": model.shared.weight}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in model.decoders[decoder].state_dict().items()}
    t5.load_state_dict(state, strict=False)
    return t5
