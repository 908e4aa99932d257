"""TIGER, fast thinking (Rajput et al., 2023): history codes in, the next item's codes out."""

from __future__ import annotations

from torch import Tensor

from ..common.device import seed_everything
from ..common.schemas import Prefixes
from ..config.training import TrainConfig
from ..inference.beam_search import answer_log_probs
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..model.item_vectors import ItemVectors
from ..model.sequences import shift_right
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..training.loop import Hooks, Task, Trained, TrainingJob, train
from ..training.optim import use_byte_dropout


def tiger_loss(model: Backbone, tokenizer: SemanticTokenizer, batch: Prefixes, config: TrainConfig) -> Tensor:
    """Mean of -log P(c_j | c_<j, history) over the m codes of each target (eqs 10 and 11).

    The encoder reads the codes of the history, the decoder [BOS, c_1..c_{m-1}] of the target.

    Args:
        model: with the direct decoder.
        tokenizer: gives the items' codes.
        batch: B examples.
        config: the temperature of eq. 11.
    """
    states, mask = model.encode_history(tokenizer, batch.history)
    inputs = shift_right(tokenizer.tokens[batch.target])
    hidden = model.decode(inputs, states, mask, "direct")
    return -answer_log_probs(model, tokenizer, hidden, batch.target, config.temperature).mean()


def train_tiger(job: TrainingJob, tokenizer: SemanticTokenizer, items: bool = False) -> Trained:
    """Train TIGER from scratch by ``loop.train``, which says what is written to the job's folder.

    With ``items`` every item has a learned vector in addition to its codes. TIGER has none: a control.
    """
    job = job.on_device()
    device, config, settings = job.device, job.config, job.config.tiger
    seed_everything(job.seed, "tiger", "weights")
    model = use_byte_dropout(Backbone(config.backbone, tokenizer.vocab_size), device).to(device)
    tokenizer = tokenizer.to(device)
    if items:
        in_answer_logits = config.sft.item_vectors == "history-and-answer"
        model.item_vectors = ItemVectors.of(
            tokenizer,
            config.backbone.d_model,
            config.sft.item_vector_dropout,
            in_answer_logits=in_answer_logits,
        )
    task = Task(
        name="TIGER",
        section="tiger",
        loss=lambda model, batch, rows: {"loss": tiger_loss(model, tokenizer, batch, settings)},
        recommender=lambda model: StreamRec(model, tokenizer, beams=config.evaluate.beams),
        hooks=Hooks(cuda_graph_safe=True),
    )
    return train(task, model, job)
