"""The pages: their limits, links, commands, paths and settings, and words that must not come back."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from streamrec_lite.cli.app import app
from streamrec_lite.config.presets import preset
from streamrec_lite.config.table import describe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "streamrec_lite"
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "figures/results/README.md")
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
CODE = re.compile(r"```.*?```|(?:^(?: {4}|\t)[^\n]*\n)+", re.S | re.M)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]:\s*(\S+)", re.M)
SETTING = re.compile(r"(?<![\w./*])((?:%s)\.\w+)(=[^\s`,;)]+)?(?![\w./])")
SECTIONS = "data|embeddings|tokenizer|backbone|tiger|pretrain|sft|grpo|baselines|evaluate"
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,.]*")
# What looks like a number and is a name: releases, equations, stages, notebooks, years of papers.
NAMED = re.compile(
    r"\b(?:release|eqs?\.?|stages?|notebooks?|seeds?|table|section|amazon|scientific-|arxiv:|python|apache-?)"
    r"[ -]?\d[\d.]*(?:(?:, | and | to |-)\d+)*|\[\d\.\d\.\d\]|\(\d+(?:(?:, |-)\d+)*\)|95 %|@\d+",
    re.I,
)
MOST_NUMBERS = 4


def page_name(path: Path) -> str:
    """The path below the repository's root, for messages and test ids."""
    return path.relative_to(ROOT).as_posix()


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """All anchors of a page; headings of one text are numbered from the second on."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", CODE.sub("", path.read_text(encoding="utf-8")), re.M):
        found[slug(heading)] = found.get(slug(heading), 0) + 1
    numbered = {f"{name}-{i}" for name, count in found.items() for i in range(1, count)}
    return set(found) | numbered


def commands(text: str) -> list[list[str]]:
    """The words of every `streamrec ...` command in code blocks and inline code."""
    lines = [line.strip() for block in CODE.findall(text) for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in INLINE.findall(CODE.sub("", text))]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    found = [re.sub(r"^(?:\w+=\S+ )+", "", part) for part in parts]
    return [shlex.split(part, comments=True)[1:] for part in found if re.match(r"streamrec(?: |$)", part)]


def prose(text: str) -> list[str]:
    """The sentences of a page, without code, tables, links' targets and names that hold a number."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", CODE.sub("\n\n", text))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", INLINE.sub("", text))
    text = re.sub(r"^(?:\||#|\[[^\]]+\]:).*$", "", text, flags=re.M)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.M)
    blocks = [NAMED.sub("Name", " ".join(block.split())) for block in re.split(r"\n\s*\n", text)]
    return [sentence for block in blocks for sentence in re.split(r"(?<=[.!?])[*)]*\s+(?=[*A-Z(])", block)]


def names_in(code: str) -> list[tuple[str, str, int]]:
    """(kind, name, line) of every identifier and every imported module in Python code.

    Kinds: "public" for functions, classes, arguments and attributes, "name" for these and for variables,
    "module" for what is imported.
    """
    found = []
    for node in ast.walk(ast.parse(code)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.append(("public", node.name, line))
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            found.append(("public", str(node.arg), line))
        elif isinstance(node, ast.Name):
            found.append(("name", node.id, line))
        elif isinstance(node, ast.Attribute):
            found.append(("public", node.attr, line))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                found += [("module", part, line) for part in (alias.asname or alias.name).split(".")]
            found += [("module", part, line) for part in (getattr(node, "module", "") or "").split(".")]
    return found + [("name", name, line) for kind, name, line in found if kind == "public"]


def sources() -> list[tuple[str, str, str]]:
    """(where, text, code) of all that is searched for riddles: pages, modules and notebooks' cells."""
    found = [(page_name(path), path.read_text(encoding="utf-8"), "") for path in PAGES]
    examples = re.compile(r"^\|.*$", re.M)  # the table of what not to write
    found = [(w, examples.sub("", t) if w == "CONTRIBUTING.md" else t, c) for w, t, c in found]
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append((page_name(path), text, text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            text = "".join(cell["source"])
            code = re.sub(r"^[%!].*$", "", text, flags=re.M) if cell["cell_type"] == "code" else ""
            found.append((f"{page_name(path)}, cell {i}", text, code))
    return found


def riddles() -> list[tuple[str, str, str]]:
    """(kind, what, better) of every line of riddles.txt."""
    lines = (ROOT / "tests" / "riddles.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return [(kind.strip(), what.strip(), better.strip()) for kind, what, better in rows]


def lists_former_names(where: str, line: str) -> bool:
    """May this line hold a former name of a setting? The changelog and the table of refused names do."""
    return where == "CHANGELOG.md" or (where.startswith("streamrec_lite/config/") and '": "' in line)


def test_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_anchors_and_images_resolve(page):
    broken = []
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z]+:", target):  # the tests ask no network
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page_name(page)}: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_paths_named_in_a_page_exist(page):
    missing = []
    for code in INLINE.findall(page.read_text(encoding="utf-8")):
        if re.fullmatch(r"(?:streamrec_lite|tests|figures|docs|notebooks|\.ci)/[\w./-]*", code):
            missing += [] if (ROOT / code).exists() else [code]
        elif re.fullmatch(r"\w+\.py", code):
            missing += [] if any(PACKAGE.rglob(code)) else [code]
    assert not missing, f"{page_name(page)}: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_settings_named_in_a_page_exist_and_take_these_values(page):
    config = preset()
    known, wrong = {name for name, *_ in describe(config)}, []
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":  # the table of former names
        text = re.sub(r"^\|.*$", "", text, flags=re.M)
    spans = [*INLINE.findall(CODE.sub("", text)), *CODE.findall(text)]
    for name, value in re.findall(SETTING.pattern % SECTIONS, "\n".join(" ".join(s.split()) for s in spans)):
        if name not in known and name.split(".")[1] not in ("json", "md", "py", "npy", "csv"):
            wrong.append(name)
        elif value and value[1:].isidentifier() and value[1:].isupper():
            continue  # a placeholder
        elif value:
            config.override([name + value])  # raises BadInput for a value that is none
    assert not wrong, f"{page_name(page)}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_in_a_page_are_known(page):
    root, unknown = typer.main.get_command(app), []
    for words in commands(page.read_text(encoding="utf-8")):
        name = next((word for word in words if not word.startswith("-")), "")
        command = root.commands.get(name) if name else root
        if command is None:
            unknown.append(name)
            continue
        options = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        } | {"--help"}
        unknown += [f"{name} {word}" for word in words if word.startswith("-") and word not in options]
    assert not unknown, f"{page_name(page)}: {unknown}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "settings.md"], ids=page_name)
def test_no_sentence_has_more_than_four_numbers(page):
    long = [s for s in prose(page.read_text(encoding="utf-8")) if len(NUMBER.findall(s)) > MOST_NUMBERS]
    assert not long, f"{page_name(page)}: {long}"


def test_no_riddles():
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in ("name", "public", "module", "text", "setting")}
    for kind, what, better in riddles():
        kinds[kind][what] = better
    found = []
    for where, text, code in sources():
        module = where.removesuffix(".py").rpartition("/")[2]
        if module in kinds["module"]:
            found.append(f"{where}: module {module}, better {kinds['module'][module]}")
        for kind, name, line in names_in(code) if code else ():
            if name in kinds[kind]:
                found.append(f"{where}:{line}: {kind} {name}, better {kinds[kind][name]}")
        for number, line in enumerate(text.splitlines(), 1):
            for what, better in kinds["text"].items():
                if re.search(rf"(?<!\w){re.escape(what)}", line):
                    found.append(f"{where}:{number}: {what!r}, better {better!r}")
            for what, better in kinds["setting"].items():
                if re.search(rf"(?<![\w.]){re.escape(what)}(?!\w|\.\w)", line) and not lists_former_names(
                    where, line
                ):
                    found.append(f"{where}:{number}: {what!r}, better {better!r}")
    assert not found, "\n" + "\n".join(found)
