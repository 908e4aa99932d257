"""Record the widgets of notebooks 06 and 08 as the moving pictures of README.

    python figures/make_animations.py --run runs/playground     # needs chromium, e.g. Debian's package

The script builds the notebooks' widgets from a finished run, moves their controls, and has headless Chromium
draw what each widget shows after every move.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import plotly.io
from PIL import Image

from streamrec_lite import running
from streamrec_lite.common.files import read_json
from streamrec_lite.config.settings import Config, config_of
from streamrec_lite.data.sequences import sample_examples
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.tutorial.tables.reinforcement import read_rollouts
from streamrec_lite.tutorial.tables.thinking import ItemPlane
from streamrec_lite.tutorial.tables.trajectory import (
    annotated_trajectory,
    item_representations,
    own_trajectory,
)
from streamrec_lite.tutorial.widgets.reinforcement import RewardExplorer
from streamrec_lite.tutorial.widgets.thinking import ResidualExplorer

FOLDER = Path(__file__).resolve().parent
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync"]
PAGE = """<html><head><meta charset="utf-8"><style>
body { font-family: sans-serif; font-size: 15px; margin: 12px; width: 1040px; background: white; }
table { border-collapse: collapse; } td, th { padding: 3px 9px; text-align: right; }
</style></head><body><p><b>CONTROLS</b></p>FIGURE<div>TEXT</div></body></html>"""


def frame(controls: str, widget: ResidualExplorer | RewardExplorer, height: int) -> Image.Image:
    """A picture of what the widget shows now.

    ``controls`` is said above it; ``height`` is the picture's, in pixels.
    """
    figure = plotly.io.to_html(widget.figure, include_plotlyjs=True, full_html=False, default_width="1040px")
    page = PAGE.replace("CONTROLS", controls).replace("TEXT", widget.text.value).replace("FIGURE", figure)
    with tempfile.TemporaryDirectory() as folder:
        html, png = Path(folder) / "page.html", Path(folder) / "page.png"
        html.write_text(page, encoding="utf-8")
        options = [f"--user-data-dir={folder}/profile", f"--window-size=1064,{height}", f"--screenshot={png}"]
        late = ["--virtual-time-budget=4000", html.as_uri()]
        subprocess.run([*CHROMIUM, *options, *late], check=True, capture_output=True, timeout=120)
        return Image.open(png).convert("RGB").resize((920, round(920 * height / 1064)))


def save(frames: list[Image.Image], name: str) -> None:
    """An animated WebP beside this script, a second and a half a picture."""
    path = FOLDER / name
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1500, loop=0, quality=75)
    print(f"{path.name}: {len(frames)} pictures, {path.stat().st_size / 1e6:.2f} MB")


def falling(trajectory, n_steps: int) -> int:
    """The example whose gap falls at every step and whose target rises most places."""
    gap, rank = trajectory.norm, trajectory.rank
    good = (gap.diff(dim=1) < 0).all(1) & (rank[:, 0] > rank[:, n_steps])
    return int(((rank[:, 0] - rank[:, n_steps]) * good).argmax())


def record_residuals(run: running.Run) -> None:
    """Notebook 06: step by step, one training example after annotated thoughts."""
    data, splits = running.run_data(run)
    ids, l = running.run_tokenizer(run), 4
    model = StreamRec.load(run.dir, 0, model="STREAM-Rec-PT", device="cpu").model
    train, valid = sample_examples(splits.train, 1000, 0), sample_examples(splits.valid, 1000, 0)
    annotated, own = annotated_trajectory(model, ids, train, l), own_trajectory(model, ids, valid, l)
    table = item_representations(model, ids)
    cases = {"annotated": (annotated, train), "own": (own, valid)}
    example = falling(annotated, l)
    widget = ResidualExplorer(cases, ids, data, table, ItemPlane(table, seed=0), example)
    frames = []
    for step in range(l + 1):
        widget.step.value = step
        frames.append(
            frame(f"thoughts: annotated (training example {example}) · step {step} of {l}", widget, 900)
        )
    save(frames, "residual-explorer.webp")


def record_rewards(run: running.Run) -> None:
    """Notebook 08: three rewards, then the next blocks of updates."""
    data, ids = running.run_data(run)[0], running.run_tokenizer(run)
    widget = RewardExplorer(read_rollouts(running.run_grpo(run, 0)["dir"], ids, data), data)
    frames, blocks = [], list(widget.block.options)
    moves = [(name, blocks[0]) for name in ("reward", "similarity", "ranking")]
    for name, block in [*moves, *(("reward", block) for block in blocks[1:])]:
        widget.reward.value, widget.block.value = name, block
        frames.append(frame(f"reward: {name} · user: {widget.user.value} · after block {block}", widget, 760))
    save(frames, "reward-explorer.webp")


def main() -> None:
    """Record both widgets of a run."""
    parser = argparse.ArgumentParser(description="Record the moving pictures of README.")
    parser.add_argument("--run", default="runs/playground", help="a finished run of the playground")
    folder = Path(parser.parse_args().run)
    config = Config.from_dict(config_of(read_json(folder / "config.json")))
    run = running.Run(folder, config)
    record_residuals(run)
    record_rewards(run)


if __name__ == "__main__":
    main()
