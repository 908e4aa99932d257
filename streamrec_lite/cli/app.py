"""The command line. Thin: it parses, calls the library, and turns errors into one line and a code.

Exit codes: 0 success, 1 failure, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import errno
import shlex
import sys
from typing import Annotated

import typer

from ..common.errors import BadInput

SPACE, FOLDER = "free some space, then the same command continues", "choose a folder that you may write"
REMEDIES = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EACCES: FOLDER,
    errno.EPERM: FOLDER,
    errno.EROFS: FOLDER,
    errno.ENOTDIR: "a file stands where a folder is needed, choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
}
INTERRUPTED = 130
HELP = "Slow thinking for sequential recommendation: reproduce it, and ask the models."
app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Slow thinking for sequential recommendation: reproduce it, and ask the models."""
    if version:
        raise typer.Exit()


@app.command()
def reproduce(
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="What to load, see `streamrec datasets`; repeat it. Default: playground."),
    ] = None,
    preset: Annotated[str, typer.Option(help="smoke, lite or paper.")] = "lite",
    seed: Annotated[list[str] | None, typer.Option(help="A seed; repeat it for several. Default: 0.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run(s). Default: runs/DATASET.")] = None,
    gpus: Annotated[str, typer.Option(help="Trainings at once, each on a GPU of its own.")] = "0",
    jobs: Annotated[
        str, typer.Option(help="On a CPU: trainings and notebooks at once. Default: two, on two cores.")
    ] = "0",
    engine: Annotated[str, typer.Option(help="local; ray comes later.")] = "local",
    method: Annotated[
        str, typer.Option(help="ours, or printed: every equation as the paper prints it; a run holds both.")
    ] = "ours",
    only: Annotated[list[str] | None, typer.Option(help="A stage to run; repeat it for several.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, KEY=VALUE; repeat it.")] = None,
    branch: Annotated[
        str,
        typer.Option(
            help="Try the settings in the run OUT@NAME; finished stages that stay the same are reused."
        ),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Do finished stages anew where these settings change them.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard all stages of the run first.")] = False,
) -> None:
    """Run all stages through their notebooks and print the table. Finished stages are skipped."""
    from .commands import reproduce_all

    results = reproduce_all(
        dataset or ["playground"],
        preset=preset,
        seeds=[_integer("--seed", text) for text in seed or ["0"]],
        out=out,
        overrides=set_ or [],
        only=only or [],
        branch=branch,
        replace=replace,
        fresh=fresh,
        gpus=_integer("--gpus", gpus),
        jobs=_integer("--jobs", jobs),
        engine=engine,
        method=method,
        tell=lambda line: print(line, flush=True),
    )
    for result in results:
        if not only or "results" in only:
            print("\n" + result.with_name("table2.md").read_text(encoding="utf-8"))
        print(f"The run is in {result.parent}")


@app.command()
def recommend(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    history: Annotated[
        str, typer.Option(help='Item ids, oldest first, spaces between; "" around an id with a space.')
    ],
    k: Annotated[str, typer.Option("-k", help="How many items.")] = "10",
    think: Annotated[
        str | None, typer.Option(help="none, greedy, sample or beam; default: the model's own.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the history, the semantic IDs and the thoughts too.")
    ] = False,
    model: Annotated[
        str, typer.Option(help='TIGER, STREAM-Rec-PT, -SFT or -RL, alone or with ", as printed".')
    ] = "TIGER",
    guided: Annotated[
        bool, typer.Option("--guided", help="STREAM-Rec-SFT or -RL: let the last state score the items too.")
    ] = False,
    seed: Annotated[str, typer.Option(help="The seed it was trained with.")] = "0",
    repeat: Annotated[
        bool | None,
        typer.Option(
            "--repeat/--no-repeat",
            help="May it name items of the history again? Default: as users of the data do.",
        ),
    ] = None,
) -> None:
    """Recommend the next items after a history."""
    from .commands import recommend as ask

    ask(
        run,
        _words("--history", history),
        _integer("-k", k),
        think,
        explain,
        model,
        _integer("--seed", seed),
        guided,
        repeat,
    )


@app.command()
def tensorboard(run: Annotated[str, typer.Option(help="Folder of a run.")]) -> None:
    """Copy a run's training logs into event files for TensorBoard."""
    from .tensorboard import export_logs

    print(f"tensorboard --logdir {export_logs(run)}")


@app.command()
def site(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    out: Annotated[str | None, typer.Option(help="Folder of the website. Default: RUN/site.")] = None,
) -> None:
    """Build a website of a run's executed notebooks; it needs no network."""
    from .site import build_site

    print(f"open {build_site(run, out) / 'index.html'}")


@app.command()
def datasets() -> None:
    """List what --dataset takes."""
    from .commands import datasets as show

    show()


@app.command()
def doctor() -> None:
    """Check this machine: versions, devices, speed, and what is missing."""
    from .doctor import main as examine

    examine()


@app.command()
def bench(
    name: Annotated[list[str] | None, typer.Argument(help="Benchmarks; default: all.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Whose histories; default: a playground.")] = None,
    run: Annotated[
        str | None, typer.Option(help="A finished run: its histories, its IDs, its models.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="File for the figures, JSON.")] = None,
) -> None:
    """Measure speed and memory, as ratios within one run."""
    from ..bench.suite import main as measure

    measure(name or [], dataset=dataset, out=out, run=run)


def main(arguments: list[str] | None = None) -> None:
    """The entry point: leaves with an exit code, never with a traceback."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Parse ``arguments`` (default: the command line's), run the command, return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        from .. import __version__

        print(__version__)
        return 0
    try:
        code = app(arguments, prog_name="streamrec", standalone_mode=False)
        if code == INTERRUPTED:  # the parser turns Ctrl-C into a code
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except BadInput as error:
        return _say(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; the same command continues where it stopped", INTERRUPTED)
    except BrokenPipeError:  # `streamrec ... | head`
        sys.stdout = None
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            what = error.filename or "the disk"
            return _say(f"{what}: {error.strerror}; {REMEDIES[error.errno]}", 2)
        if hasattr(error, "format_message"):  # the parser's: an unknown option, a bad value
            return _usage(error, error.format_message())
        kept = "".join(f" (traceback: {note})" for note in getattr(error, "__notes__", []))
        name = "" if type(error).__name__ == "StageFailed" else f"{type(error).__name__}: "
        return _say(f"failed: {name}{error}{kept}", 1)


def _integer(option: str, text: str) -> int:
    """The parser's own refusal does not name the value, so it is parsed here."""
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"{option} {text}", "the value must be an integer", f"write e.g. {option} 1") from None


def _words(option: str, text: str) -> list[str]:
    """The words of a text; double quotes hold together what has spaces in it."""
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.commenters, words.escape, words.quotes = True, "", "", '"'
    try:
        return list(words)
    except ValueError:
        raise BadInput(f"{option} {text}", "a double quote is not closed", "close it") from None


def _say(line: str, code: int) -> int:
    print(" ".join(f"streamrec: {line}".split()), file=sys.stderr)
    return code


def _usage(error: Exception, message: str) -> int:
    """Click's usage errors in the form of all the others."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "streamrec"
    if not message:  # no arguments at all: the help has been asked for
        print(context.get_help() if context is not None else HELP)
        return 2
    return _say(f"{message.rstrip('.')}; see `{command} --help`", 2)


if __name__ == "__main__":
    main()
