"""`streamrec site`: a run's executed notebooks as a website that needs no network (extra ``[site]``)."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..common.errors import BadInput, StageFailed
from ..common.files import write_text
from ..common.pages import STYLE as PAGE_STYLE
from ..common.pages import static_notebook

NAVIGATION = """site_name: {name}
use_directory_urls: false
docs_dir: docs
site_dir: site
theme:
  name: material
  font: false
  features: [navigation.footer, navigation.top, toc.follow, content.code.copy]
  palette:
    - scheme: default
      primary: indigo
plugins: [search]
extra_css: [site.css]
markdown_extensions:
  - admonition
  - attr_list
  - md_in_html
  - tables
  - pymdownx.highlight
  - pymdownx.superfences
  - toc: {{permalink: true}}
nav:
"""
STYLE = """.md-grid { max-width: 76rem; }
.md-typeset img { display: block; }
.md-typeset table:not([class]) { font-size: .55rem; }
.md-typeset table:not([class]) th, .md-typeset table:not([class]) td { padding: .35em .6em; min-width: 0; }
.md-typeset table.dataframe { display: block; overflow-x: auto; font-size: .64rem; white-space: nowrap; }
.md-typeset table.dataframe th, .md-typeset table.dataframe td { padding: .3em .7em; min-width: 0; }
.widget-note { border-left: .2rem solid #0072b2; padding: .3rem .8rem; }
math[display="block"] { margin: .8em 0; }
"""


def build_site(run: str | Path, out: str | Path | None = None) -> Path:
    """Build the website of a run's executed notebooks; returns its folder. Open index.html there.

    It is made by MkDocs with the Material theme, from one page a notebook. Equations are MathML, plotly's
    library stands once beside the pages, and nothing is loaded from elsewhere.

    Args:
        run: the folder of a run that has executed notebooks.
        out: the website's folder, replaced if it is there; default: RUN/site.

    Raises:
        BadInput: the extra is not installed, or there is nothing to show.
    """
    run = Path(run)
    out = Path(out) if out is not None else run / "site"
    notebooks = [p for p in sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")) if ".failed" not in p.name]
    if not (run / "config.json").is_file():
        raise BadInput(
            str(run), "this folder is not a run", "make one with `streamrec reproduce --out FOLDER`"
        )
    if not notebooks:
        raise BadInput(str(run), "it has no executed notebooks", "run `streamrec reproduce` for it first")
    if out.exists() and not (out / "index.html").is_file():
        raise BadInput(str(out), "the folder exists and is no website", "give another --out")
    if importlib.util.find_spec("material") is None:
        remedy = 'pip install -c constraints.txt -e ".[site]"'
        raise BadInput("streamrec site", "MkDocs is not installed", remedy)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=out.parent) as folder:
        work = Path(folder)
        titles = {path.stem: _write_page(path, work / "docs") for path in notebooks}
        _write_frame(run, work, titles)
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--quiet",
            "--strict",
            "-f",
            str(work / "mkdocs.yml"),
        ]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise StageFailed(
                f"mkdocs: {(made.stderr.strip().splitlines() or ['no message'])[-1]}", made.stderr
            )
        old = work / "old"
        if out.exists():
            out.rename(old)
        (work / "site").rename(out)
    return out


def _write_frame(run: Path, work: Path, titles: dict[str, str]) -> None:
    """The settings of MkDocs, the first page, the style and plotly's library."""
    import plotly.offline

    docs = work / "docs"
    pages = "".join(f'  - "{title}": {stem}.md\n' for stem, title in titles.items())
    name = f"streamrec_lite: {run.resolve().name}"
    write_text(work / "mkdocs.yml", NAVIGATION.format(name=f'"{name}"') + "  - Results: index.md\n" + pages)
    table = run / "table2.md"
    text = table.read_text(encoding="utf-8") if table.is_file() else "# A run that has no results yet\n"
    listed = "".join(f"- [{title}]({stem}.md)\n" for stem, title in titles.items())
    write_text(docs / "index.md", f"{text}\n## Notebooks\n\n{listed}")
    write_text(docs / "site.css", STYLE + PAGE_STYLE)
    write_text(docs / "plotly.min.js", plotly.offline.get_plotlyjs())


def _write_page(path: Path, docs: Path) -> str:
    """One notebook as a Markdown page with its pictures; returns its title."""
    import nbformat
    from nbconvert.exporters.markdown import MarkdownExporter

    notebook = static_notebook(nbformat.read(path, as_version=4), plotly_js="plotly.min.js")
    for output in [output for cell in notebook.cells for output in cell.get("outputs", [])]:
        _html_only(output)
    names = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, names)
    for name, data in resources.get("outputs", {}).items():
        picture = docs / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(data)
    write_text(docs / f"{path.stem}.md", text)
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    seed = re.search(r"-seed-(\d+)$", path.stem)
    title = found[1].strip() if found else path.stem
    return (f"{title}, seed {seed[1]}" if seed and seed[1] != "0" else title).replace('"', "'")


def _html_only(output: Any) -> None:
    """Where an output has HTML, leave nothing else of it, on one line: Markdown would read blank lines."""
    data = output.get("data", {})
    if "text/html" in data:
        html = "".join(data["text/html"])
        html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
        kept = re.sub(r"\n\s*", " ", html) if "<script" not in html else html.replace("\n\n", "\n")
        output["data"] = type(data)({"text/html": f"<div>{kept}</div>"})
