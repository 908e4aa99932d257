"""Table 2 in Markdown: test metrics of every model, then the paper's own figures."""

from __future__ import annotations

from ..common.device import format_duration
from .metrics import METRIC_NAMES

REFERENCE = "TIGER"  # what all models are compared with
NEW_METRICS = ("R@10", "N@10")  # of those, the columns for new items only
NEW_COLUMNS = (*(f"new {name}" for name in NEW_METRICS), "new N@10 minus TIGER's [95 %]")

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


def table2(results: dict) -> str:
    """The content of results.json as a Markdown page: every model's test metrics, then the paper's."""
    oracle, seeds = results.get("oracle"), results["seeds"]
    sizes = ", ".join(f"{count:,} {what}" for what, count in results["data"].items())
    head = ["Model", *METRIC_NAMES, "N@10 minus TIGER's [95 %]", *NEW_COLUMNS]
    head += ["weights", "train", "wall", "users/s"]
    if oracle:
        head.insert(5, "N@10, share of oracle")
    rows = [_row(model, results, oracle) for model in results["models"]]
    if oracle:
        cells = ["*oracle*", *(f"{oracle['test'][name]:.4f}" for name in METRIC_NAMES), "100 %", ""]
        cells += [*(f"{oracle['test_new'][name]:.4f}" for name in NEW_METRICS), *[""] * 5]
        rows.append(cells)
    many = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
    one = f"seed {seeds[0]}; run several seeds for deviations"
    notes = [
        f"# {results['dataset']}, preset {results['preset']}: test, full ranking",
        f"{sizes}. Models that learn: {many if len(seeds) > 1 else one}. "
        "Intervals: paired bootstrap over users. Weights: number of trained parameters. Train: seconds a "
        "seed, without evaluations. Wall: all that the model's own stage took, over all seeds and with the "
        "choice of settings.",
        new_items_note(results),
    ]
    parts = ["\n\n".join(notes), markdown_table(head, rows)]
    if oracle:
        parts.append("The oracle knows the process that made the data; no ranking can be better on average.")
    return "\n\n".join([*parts, paper_table()]) + "\n"


def new_items_note(results: dict) -> str:
    """What the two protocols are, and how many users count in each."""
    users, new = (results["test_users"][split] for split in ("test", "test_new"))
    return (
        "Two protocols. R@5 to N@10: all items are ranked, also those of the user's history (the paper's "
        "protocol). *New*: the items of the user's history are left out of every ranking. "
        f"{users - new:,} of {users:,} test users took an item again; no model can find it among new items, "
        "so they do not count there."
    )


def _row(model: str, results: dict, oracle: dict | None) -> list[str]:
    summary, rows = results["summary"][model]["test"], list(results["models"][model].values())
    cells = [model, *(mean_text(summary[name]) for name in METRIC_NAMES)]
    if oracle:
        best = oracle["test"]["N@10"]
        cells.append(f"{100 * summary['N@10']['mean'] / best:.1f} %" if best else "-")
    cells.append(difference_text(results[f"versus_{REFERENCE}"], model))
    cells += [mean_text(results["summary"][model]["test_new"][name]) for name in NEW_METRICS]
    cells.append(difference_text(results[f"versus_{REFERENCE}_new"], model))
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("train_seconds", "users_per_second")}
    cells.append(f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "-")
    cells += [f"{mean['train_seconds']:,.1f} s", format_duration(sum(row["wall_seconds"] for row in rows))]
    return [*cells, f"{mean['users_per_second']:,.0f}"]


def difference_text(versus: dict, model: str, metric: str = "N@10") -> str:
    """A model's difference to TIGER with its interval, "-" if there is none."""
    gap = versus.get(model, {}).get(metric)
    return "{mean_difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gap) if gap else "-"


def mean_text(value: dict) -> str:
    """A mean, with its standard deviation over seeds where there is one."""
    deviation = "" if value["sd"] is None else f" ± {value['sd']:.4f}"
    return f"{value['mean']:.4f}{deviation}"


def paper_table() -> str:
    """The paper's Table 2. It is about other data sets, so only the order of the models compares."""
    head = ["Model", *(f"{data} {name}" for data in ("Instruments", "Scientific") for name in METRIC_NAMES)]
    rows = [[model, *(f"{value:.4f}" for value in values)] for model, values in PAPER.items()]
    note = (
        "The paper's own figures (its Table 2). Its data sets are Instruments and Scientific of Amazon 2023, "
        "with other users and items than any data set of another year or the playground: the figures "
        "above are not comparable with these one by one, only the order of the models is."
    )
    return f"{note}\n\n{markdown_table(head, rows)}"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        right = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *right])} |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])
