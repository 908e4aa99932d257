"""results.json and table2.md: every model's row, mean and deviation over seeds, and paired intervals."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

from ..common.device import describe_machine
from ..common.errors import BadInput
from ..common.files import read_json, read_tensors, write_json, write_text
from ..config.settings import fingerprint
from ..evaluation.metrics import LEFT_OUT
from ..evaluation.results_table import REFERENCE, table2
from .run import Run
from .stage_table import CONTROLS, FORMAT, METHODS, NEURAL, ORACLE, STAGES, TABLE, on_workshop, trained_by

GUIDED = {m: f"{m}, state-guided" for m in ("STREAM-Rec-SFT", "STREAM-Rec-RL")}  # states score items too


def model_rows(run: Run) -> dict[str, dict[str, tuple[str, int | None]]]:
    """Where each model's rows come from: model -> seed as text -> (record of the stage table, seed).

    Models that only count are the same for every seed and stand under "0". Models of the method that is not
    worked on have rows of the seeds for which they are done.
    """
    ordered = sorted(
        (s for s in STAGES if s.model and s.applies(run.config)), key=lambda stage: stage.group != "baselines"
    )
    rows = {s.model: {str(seed or 0): (s.name, seed) for seed in run.seeds_of(s)} for s in ordered}
    return {model: parts for model, parts in rows.items() if parts}


def results_hash(run: Run) -> str:
    """Changes with anything that results.json and table2.md are made of."""
    hashes = {m: {s: run.hash(*part) for s, part in rows.items()} for m, rows in model_rows(run).items()}
    return fingerprint("results", FORMAT, hashes, run.config.to_dict(), list(run.seeds))


def results_done(run: Run) -> bool:
    """Are both files there, for the run's settings and seeds?"""
    try:
        found = read_json(run.dir / "results.json")
    except BadInput:
        return False
    whole = isinstance(found, dict) and found.get("stage_hash") == results_hash(run)
    return whole and (run.dir / "table2.md").is_file()


def write_results(run: Run) -> dict:
    """Write both files and return the first one's content; ``BadInput`` names a stage that is missing."""
    from ..evaluation.rows import SPLITS, summary, versus  # loads torch

    if results_done(run):
        return read_json(run.dir / "results.json")
    check_rows(run)
    models: dict[str, dict] = {}
    ranks: dict[str, list] = {}
    new_ranks: dict[str, list] = {}  # new items only
    for model, rows in model_rows(run).items():
        for seed, (name, number) in rows.items():
            _require(run, name, number)
            folder = run.folder(name, number)
            row, kept = _kept_row(folder), read_tensors(folder / "ranks.safetensors")[0]
            row["wall_seconds"] = run.marker(name, number)["seconds"] + _tuning_seconds(run, model, seed)
            models.setdefault(model, {})[seed] = row
            ranks.setdefault(model, []).append(kept["test"])
            new_ranks.setdefault(model, []).append(kept["test_new"])
            if model in GUIDED:
                guided = GUIDED[model]
                models.setdefault(guided, {})[seed] = {**row, **row.pop("guided")}
                ranks.setdefault(guided, []).append(kept["guided test"])
                new_ranks.setdefault(guided, []).append(kept["guided test_new"])
    controls = _controls(run, ranks, new_ranks)
    resamples, counted = run.config.evaluate.bootstrap, new_ranks[REFERENCE][0] != LEFT_OUT
    results = {
        "schema": 1,
        "dataset": run.config.dataset,
        "preset": run.config.preset,
        "config_hash": fingerprint(run.config.to_dict()),
        "stage_hash": results_hash(run),
        "seeds": list(run.seeds),
        "command": command(run),
        "machine": describe_machine(),
        "date": datetime.date.today().isoformat(),
        "data": run.marker("data").get("sizes", {}),
        "test_users": {"test": len(counted), "test_new": int(counted.sum())},
        "models": models,
        "tokenizer": read_json(run.folder("tokenizer") / "tokenizer.json")["health"],
        "summary": {model: summary(list(rows.values())) for model, rows in models.items()},
        f"versus_{REFERENCE}": versus(ranks, REFERENCE, resamples),
        f"versus_{REFERENCE}_new": versus(new_ranks, REFERENCE, resamples),
        **({"controls": controls} if controls else {}),
    }
    if TABLE[ORACLE].applies(run.config):
        row = read_json(run.folder(ORACLE) / "row.json")
        results["oracle"] = {key: row[key] for key in (*SPLITS, "by_steps") if key in row}
    write_text(run.dir / "table2.md", table2(results))
    if on_workshop(run.config):  # there TIGER is the model that answers directly, and is called so, too
        models["Direct"] = models[REFERENCE]
    write_json(run.dir / "results.json", results)
    return results


def _kept_row(folder: Path) -> dict:
    """A model's row of results.json; which IDs it was trained with is only for who loads it."""
    row = read_json(folder / "row.json")
    row.pop("ids", None)
    return row


def _tuning_seconds(run: Run, model: str, seed: str) -> float:
    """What the grid of a neural baseline took; the run's first seed has it, all seeds use it."""
    first = model in NEURAL and seed == str(run.seeds[0])
    return run.marker(f"{model} tuning").get("seconds", 0.0) if first else 0.0


def _controls(run: Run, ranks: dict[str, list], new_ranks: dict[str, list]) -> dict:
    """The controls of notebook 07 that are there for every seed: model -> seed -> row; adds their ranks.

    ``new_ranks`` are those of "test_new".
    """
    found: dict[str, dict] = {}
    for name in CONTROLS if run.config.sft.controls == "all" else ():
        if all(run.marker(name, seed) for seed in run.seeds):
            folders = {str(seed): run.folder(name, seed) for seed in run.seeds}
            found[name] = {seed: _kept_row(folder) for seed, folder in folders.items()}
            kept = [read_tensors(folder / "ranks.safetensors")[0] for folder in folders.values()]
            for split, found_ranks in (("test", ranks), ("test_new", new_ranks)):
                found_ranks[name] = [part[split] for part in kept]
                if not name.endswith("tiger"):
                    found_ranks[f"{name}, state-guided"] = [part[f"guided {split}"] for part in kept]
    return found


def command(run: Run) -> str:
    """The command that makes this run again, or one for each method."""
    words = ["streamrec", "reproduce", "--dataset", run.config.dataset, "--preset", run.config.preset]
    words += [word for seed in run.seeds for word in ("--seed", str(seed))]
    words += [word for text in run.overrides for word in ("--set", text)]
    methods = [method for method in METHODS if run.seeds_of(TABLE[trained_by(method)[0]])]
    by_method = {"ours": words, "printed": [*words, "--method", "printed"]}
    return " && ".join(shlex.join(by_method[method]) for method in methods)


def check_rows(run: Run) -> None:
    """``BadInput`` names the first model, of those that are not mixtures with rules, that has no row yet."""
    for rows in model_rows(run).values():
        for name, seed in rows.values():
            if TABLE[name].group != "results":
                _require(run, name, seed)
    if TABLE[ORACLE].applies(run.config):
        _require(run, ORACLE, None)


def _require(run: Run, name: str, seed: int | None) -> None:
    if not run.marker(name, seed):
        rule = "the results need it, and it is not done for these settings"
        remedy = f"run the same command without --only, or with --only {TABLE[name].group}"
        raise BadInput(str(run.folder(name, seed)), rule, remedy)
