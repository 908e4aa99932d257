"""results.json and table2.md: every model's row, mean and deviation over seeds, and what is luck."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

from ..common.device import derive_seed, describe_machine, format_duration
from ..common.errors import BadInput
from ..common.files import read_json, read_tensors, write_json, write_text
from ..config.sections import fingerprint
from ..evaluation.metrics import METRIC_NAMES, mean_and_deviation, metric_per_user, paired_bootstrap
from .run import (
    CONTROLS,
    COUNTING,
    FORMAT,
    MIXED,
    NEURAL,
    ORACLE,
    SEEDED,
    Run,
    control_dir,
    control_hash,
    counting_hash,
    counting_names,
    mixed_dir,
    mixed_hash,
    mixed_name,
    neural_dir,
    neural_hash,
    tuning_dir,
    tuning_hash,
)
from .store import done

REFERENCE = "TIGER"
GUIDED = {m: f"{m}, state-guided" for m in ("STREAM-Rec-SFT", "STREAM-Rec-RL")}  # states score items too

# Table 2 of the paper: R@5, R@10, N@5, N@10 on Instruments, then on Scientific (Amazon 2023).
PAPER = {
    "Caser": (0.0151, 0.0256, 0.0094, 0.0128, 0.0098, 0.0167, 0.0062, 0.0085),
    "GRU4Rec": (0.0230, 0.0353, 0.0152, 0.0191, 0.0166, 0.0251, 0.0116, 0.0143),
    "SASRec": (0.0352, 0.0556, 0.0220, 0.0286, 0.0255, 0.0384, 0.0158, 0.0200),
    "BERT4Rec": (0.0257, 0.0414, 0.0162, 0.0212, 0.0170, 0.0277, 0.0106, 0.0141),
    "TIGER": (0.0333, 0.0532, 0.0215, 0.0279, 0.0240, 0.0382, 0.0153, 0.0199),
    "STREAM-Rec-PT": (0.0218, 0.0316, 0.0139, 0.0170, 0.0196, 0.0315, 0.0124, 0.0162),
    "STREAM-Rec-SFT": (0.0367, 0.0562, 0.0244, 0.0307, 0.0249, 0.0390, 0.0159, 0.0204),
    "STREAM-Rec-RL": (0.0398, 0.0608, 0.0261, 0.0329, 0.0264, 0.0424, 0.0169, 0.0221),
}


def row_folders(run: Run) -> dict[str, dict[str, tuple[Path, str | None]]]:
    """Folder and hash of each model's rows: model -> seed as text -> (folder, hash).

    Models that only count are the same for every seed and stand under "0".
    """
    folders = {name: {"0": (run.dir / "baselines" / name, counting_hash(run, name))} for name in COUNTING}
    for name in NEURAL:
        rows = {str(s): (neural_dir(run, name, s), neural_hash(run, name, s)) for s in run.seeds}
        folders[name] = rows
    for model, folder, hash_ in SEEDED.values():
        folders[model] = {str(s): (folder(run, s), hash_(run, s)) for s in run.seeds}
    for stage in MIXED:
        rows = {str(s): (mixed_dir(run, stage, s), mixed_hash(run, stage, s)) for s in run.seeds}
        folders[mixed_name(SEEDED[stage][0])] = rows
    return folders


def results_hash(run: Run) -> str:
    """Changes with anything that results.json and table2.md are made of."""
    hashes = {model: {s: h for s, (_, h) in rows.items()} for model, rows in row_folders(run).items()}
    config = run.config.to_dict()
    return fingerprint("results", FORMAT, hashes, config, list(run.seeds))


def results_done(run: Run) -> bool:
    try:
        found = read_json(run.dir / "results.json")
    except BadInput:
        return False
    whole = isinstance(found, dict) and found.get("stage_hash") == results_hash(run)
    return whole and (run.dir / "table2.md").is_file()


def write_results(run: Run) -> dict:
    """Write both files and return the first one's content; ``BadInput`` names a stage that is missing."""
    if results_done(run):
        return read_json(run.dir / "results.json")
    check_rows(run)
    models: dict[str, dict] = {}
    ranks: dict[str, list] = {}
    for model, rows in row_folders(run).items():
        for seed, (folder, hash_) in rows.items():
            _require(folder, hash_, "baselines")  # a mixture may be missing still
            row, kept = _kept_row(folder), read_tensors(folder / "ranks.safetensors")[0]
            row["wall_seconds"] = done(folder)["seconds"] + _tuning_seconds(run, model, seed)
            models.setdefault(model, {})[seed] = row
            ranks.setdefault(model, []).append(kept["test"])
            if model in GUIDED:
                name = GUIDED[model]
                models.setdefault(name, {})[seed] = {**row, **row.pop("guided")}
                ranks.setdefault(name, []).append(kept["guided test"])
    controls = _controls(run, ranks)
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
        "data": done(run.dir / "data").get("sizes", {}),
        "models": models,
        "tokenizer": read_json(run.dir / "tokenizer" / "tokenizer.json")["health"],
        "summary": {model: _summary(list(rows.values())) for model, rows in models.items()},
        f"versus_{REFERENCE}": versus(run, ranks),
        **({"controls": controls} if controls else {}),
    }
    if ORACLE in counting_names(run):
        row = read_json(run.dir / "baselines" / ORACLE / "row.json")
        results["oracle"] = {split: row[split] for split in ("valid", "test")}
    write_text(run.dir / "table2.md", table2(results))
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
    return done(tuning_dir(run, model), tuning_hash(run, model) or "-").get("seconds", 0.0) if first else 0.0


def _controls(run: Run, ranks: dict[str, list]) -> dict:
    """The controls of notebook 07 that are there for every seed: model -> seed -> row; adds their ranks."""
    found: dict[str, dict] = {}
    for name in CONTROLS if run.config.sft.controls == "all" else ():
        folders = {str(seed): control_dir(run, name, seed) for seed in run.seeds}
        if all(done(folder, control_hash(run, name, int(seed))) for seed, folder in folders.items()):
            found[name] = {seed: _kept_row(folder) for seed, folder in folders.items()}
            kept = [read_tensors(folder / "ranks.safetensors")[0] for folder in folders.values()]
            ranks[name] = [part["test"] for part in kept]
            if name not in ("deep-tiger", "item-tiger"):
                ranks[f"{name}, state-guided"] = [part["guided test"] for part in kept]
    return found


def command(run: Run) -> str:
    """The command that makes this run again."""
    words = ["streamrec", "reproduce", "--dataset", run.config.dataset, "--preset", run.config.preset]
    words += [word for seed in run.seeds for word in ("--seed", str(seed))]
    words += [word for text in run.overrides for word in ("--set", text)]
    return shlex.join(words)


def _summary(rows: list[dict]) -> dict:
    return {split: mean_and_deviation([row[split] for row in rows]) for split in ("valid", "test")}


def check_rows(run: Run) -> None:
    """``BadInput`` names the first model, of those that are not mixtures, that has no row yet."""
    stages = {model: stage for stage, (model, *_) in SEEDED.items()}
    mixtures = {mixed_name(SEEDED[stage][0]) for stage in MIXED}
    for model, rows in row_folders(run).items():
        for folder, hash_ in rows.values() if model not in mixtures else ():
            _require(folder, hash_, stages.get(model, "baselines"))
    if ORACLE in counting_names(run):
        _require(run.dir / "baselines" / ORACLE, counting_hash(run, ORACLE), "baselines")


def _require(folder: Path, hash_: str | None, stage: str) -> None:
    if not (hash_ and done(folder, hash_)):
        rule = "the results need it, and it is not done for these settings"
        raise BadInput(str(folder), rule, f"run the same command without --only, or with --only {stage}")


def versus(run: Run, ranks: dict[str, list]) -> dict:
    """Paired bootstrap of each model against TIGER on the test users, a user's mean over seeds.

    All models get the same resamples: two that answer alike have the same interval.
    """
    mean = {
        model: {
            name: sum(metric_per_user(r, name) for r in over_seeds) / len(over_seeds) for name in METRIC_NAMES
        }
        for model, over_seeds in ranks.items()
    }
    resamples = run.config.evaluate.bootstrap
    return {
        model: {
            name: paired_bootstrap(
                mean[model][name], mean[REFERENCE][name], resamples, derive_seed("bootstrap", name)
            )
            for name in METRIC_NAMES
        }
        for model in ranks
        if model != REFERENCE
    }


def table2(results: dict) -> str:
    """The table in Markdown: test metrics of every model, then the paper's own figures."""
    oracle = results.get("oracle")
    seeds = results["seeds"]
    sizes = ", ".join(f"{count:,} {what}" for what, count in results["data"].items())
    head = ["Model", *METRIC_NAMES, "N@10 minus TIGER's [95 %]", "weights", "train", "wall", "users/s"]
    if oracle:
        head.insert(5, "N@10, share of oracle")
    rows = [_row(model, results, oracle) for model in results["models"]]
    if oracle:
        cells = ["*oracle*", *(f"{oracle['test'][name]:.4f}" for name in METRIC_NAMES), "100 %", *[""] * 5]
        rows.append(cells)
    many = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
    one = f"seed {seeds[0]}; run several seeds for deviations"
    notes = [
        f"# {results['dataset']}, preset {results['preset']}: test, full ranking",
        f"{sizes}. Models that learn: {many if len(seeds) > 1 else one}. "
        "Intervals: paired bootstrap over users. Weights: what is trained. Train: seconds a seed, without "
        "evaluations. Wall: all of the model's own stage, all seeds and the choice of settings included.",
    ]
    parts = ["\n\n".join(notes), _markdown(head, rows)]
    if oracle:
        parts.append("The oracle knows the process that made the data; no ranking can be better on average.")
    return "\n\n".join([*parts, paper_table()]) + "\n"


def _row(model: str, results: dict, oracle: dict | None) -> list[str]:
    summary, rows = results["summary"][model]["test"], list(results["models"][model].values())
    cells = [model, *(mean_text(summary[name]) for name in METRIC_NAMES)]
    if oracle:
        best = oracle["test"]["N@10"]
        cells.append(f"{100 * summary['N@10']['mean'] / best:.1f} %" if best else "-")
    test = results[f"versus_{REFERENCE}"].get(model, {}).get("N@10")
    cells.append(f"{test['mean_difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]" if test else "-")
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("train_seconds", "users_per_second")}
    cells.append(f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "-")
    cells += [f"{mean['train_seconds']:,.1f} s", format_duration(sum(row["wall_seconds"] for row in rows))]
    return [*cells, f"{mean['users_per_second']:,.0f}"]


def mean_text(value: dict) -> str:
    """A mean, with its deviation over seeds where there is one."""
    deviation = "" if value["sd"] is None else f" ± {value['sd']:.4f}"
    return f"{value['mean']:.4f}{deviation}"


def paper_table() -> str:
    """The paper's Table 2, beside ours: other data sets, so only the order of models compares."""
    head = ["Model", *(f"{data} {name}" for data in ("Instruments", "Scientific") for name in METRIC_NAMES)]
    rows = [[model, *(f"{value:.4f}" for value in values)] for model, values in PAPER.items()]
    note = (
        "The paper's own figures (its Table 2). Its data sets are Instruments and Scientific of Amazon 2023, "
        "with other users and items than any data set of another year or the playground: the figures "
        "above are not comparable with these one by one, only the order of the models is."
    )
    return f"{note}\n\n{_markdown(head, rows)}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        aligned = [
            cells[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(aligned)} |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])
