"""What `streamrec recommend` and `streamrec datasets` print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..common.errors import BadInput, StageFailed
from ..data.specs import check_spec, default_out


def recommend(
    run: str,
    history: list[str],
    k: int,
    think: str | None,
    explain: bool,
    model: str = "TIGER",
    seed: int = 0,
    guided: bool = False,
    repeat: bool | None = None,
) -> None:
    """Print the k best next items after ``history`` (item ids, oldest first).

    Args:
        run: the folder of a run.
        history: item ids, oldest first.
        k: how many items.
        think: "none", "greedy", "sample" or "beam"; None: as the model does.
        explain: show the history, the semantic IDs and the thoughts too.
        model: its name, e.g. "STREAM-Rec-SFT".
        seed: the seed it was trained with.
        guided: let the last state score the items too.
        repeat: may an answer be an item of the history? None: as the users of the data do.
    """
    if not (Path(run) / "config.json").is_file():
        raise BadInput(run, "this folder is not a run", "make one with `streamrec reproduce --out FOLDER`")
    from ..inference.recommender import StreamRec
    from ..tokenizer.semantic_ids import token_name

    recommender = StreamRec.load(run, seed=seed, model=model, guided=guided)
    answer = recommender.recommend([history], k=k, think=think, explain=explain, repeat=repeat)
    print(_protocol(recommender.repeats_by_default, recommender.repeat_share, repeat))
    names = dict(zip(recommender.item_ids, range(len(recommender.item_ids)), strict=True))
    if explain:
        print(f"history (the newest {recommender.max_history} items count)")
        for item in history:
            codes = recommender.tokenizer.codes[names[item]].tolist()
            print(f"      {_id(codes)}  {item}  {_short(recommender.titles[names[item]])}")
        if answer.thoughts is not None:
            print("thoughts before the answer, as level:code, and the log of their probability")
            words = [
                [token_name(t, recommender.tokenizer.K) for t in row]
                for row in answer.thoughts.token[0].tolist()
            ]
            for row, log_prob in zip(words, answer.thoughts.log_prob[0].tolist(), strict=True):
                print(f"      {log_prob:8.3f}  {' '.join(row)}")
        if answer.steps is not None:
            _print_steps(answer.steps[0], recommender.tokenizer.K)
        given = "history" if answer.thoughts is None else "thoughts, history"
        print(f"next: {'score' if guided else f'log P(item | {given})'}, semantic ID, item")
    rows = zip(answer.items[0], answer.scores[0], answer.titles[0], answer.codes[0], strict=True)
    for place, (item, score, title, ids) in enumerate(rows, 1):
        middle = f"{_id(ids)}  " if explain else ""
        print(f"{place:3d}  {score:8.3f}  {middle}{item}  {_short(title)}")


def _protocol(by_default: bool, share: float | None, repeat: bool | None) -> str:
    """Which items were ranked, and why."""
    allowed = by_default if repeat is None else repeat
    what = "all items, those of the history too" if allowed else "new items only, none of the history"
    if repeat is not None:
        return f"{what} (as asked)"
    known = "unknown" if share is None else f"{share:.1%}"
    other = "--no-repeat" if allowed else "--repeat"
    return f"{what} (share of repeats in training: {known}; {other} for the other way)"


def _print_steps(steps, K: int) -> None:
    """What the first train of thought had in mind: a line a state."""
    from ..tokenizer.semantic_ids import token_name

    print("state by state: thought read, gap to the first answer, new among the nearest items, the nearest")
    for i, step in enumerate(steps):
        read = "-" if step.thought is None else token_name(step.thought, K)
        nearest = "; ".join(_short(title, 30) for title in step.nearest[:3])
        print(f"  s_{i:<2} {read:>6}  {step.gap:6.2f}  {len(step.entered):3d}  {nearest}")


def _id(codes) -> str:
    return "<" + ",".join(f"{code:3d}" for code in codes) + ">"


def _short(title: str, width: int = 70) -> str:
    title = " ".join(str(title).split())
    return title if len(title) <= width else title[: width - 1] + "…"


def datasets() -> None:
    """Print a paragraph for each kind of source."""
    from ..data.sources import dataset_table

    for row in dataset_table():
        print(row["spec"])
        for key in ("what", "size", "download"):
            print(f"    {key + ':':10}{row[key]}")


def reproduce_all(
    datasets: list[str],
    preset: str = "lite",
    out: str | Path | None = None,
    tell: Callable[[str], None] = print,
    **options,
) -> list[Path]:
    """``reproduce`` for each data set in turn; returns the paths of their results.json.

    Where one fails the others are still done; what failed is raised in the end.

    Args:
        datasets: what ``reproduce`` takes, each once.
        preset: as there.
        out: the run's folder, or with several data sets the folder that gets a run for each.
        tell: prints a line for the person who waits.
        options: everything else that ``reproduce`` takes.
    """
    from ..running.reproduce import reproduce

    folders, many = {name: default_out(name, preset) for name in datasets}, len(datasets) > 1
    if len(set(folders.values())) < len(datasets):
        rule = "each data set needs a run's folder of its own name"
        raise BadInput(f"--dataset {' '.join(datasets)}", rule, "name each once, or run them one by one")
    if out is not None:
        folders = {name: Path(out) / folder.name if many else Path(out) for name, folder in folders.items()}
    for name in datasets:
        check_spec(name)
    results: list[Path] = []
    failed: list[Exception] = []
    for name, folder in folders.items():
        if many:
            tell(f"{name}, data set {len(results) + len(failed) + 1} of {len(datasets)}")
        try:
            results.append(reproduce(name, preset, out=folder, tell=tell, **options))
        except (BadInput, StageFailed) as error:
            failed.append(error)
            if many:
                tell(f"{name}: FAILED: {error}")
    if failed and all(isinstance(error, BadInput) for error in failed):
        raise failed[0]
    if failed:
        raise StageFailed.of(failed)
    return results
