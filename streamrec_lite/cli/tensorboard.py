"""Training logs for TensorBoard: the JSONL logs of a run, copied into event files (extra `[tensorboard]`)."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import BadInput
from ..common.files import RunLog


def export_logs(run_dir: str | Path) -> Path:
    """Write every number of every log.jsonl of a run to ``RUN/tensorboard``, by epoch; returns that folder.

    ``BadInput`` where there is no log, or TensorBoard is not installed.
    """
    run_dir = Path(run_dir)
    logs = [log for log in sorted(run_dir.glob("**/log.jsonl")) if "tokenizer" not in log.parts]
    if not logs:
        raise BadInput(
            str(run_dir), "no training log there", "name the folder of a run, e.g. runs/playground"
        )
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        remedy = 'pip install -c constraints.txt -e ".[tensorboard]"'
        raise BadInput("tensorboard", "it is not installed", remedy) from None
    target = run_dir / "tensorboard"
    for log in logs:
        folder = target / log.parent.relative_to(run_dir)
        for old in folder.glob("events.*"):  # a second export replaces the first
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            for row in RunLog(log).rows():
                for name, value in row.items():
                    if isinstance(value, (int, float)) and name != "epoch":
                        writer.add_scalar(name.replace(" ", "_"), value, row["epoch"])
    return target
