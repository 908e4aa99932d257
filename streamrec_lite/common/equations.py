"""LaTeX equations of Markdown text as MathML, which browsers draw without a script or a network."""

from __future__ import annotations

import html
import re

MARKDOWN = re.compile(
    r"""(?P<code>(?P<fence>`{3,}|~{3,}).*?(?P=fence) | (?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))
      | (?P<escaped>\\\$)
      | (?P<indent>^[ \t]*)?\$\$(?P<display>.+?)\$\$
      | \$(?=\S)(?P<inline>[^$\n]*?[^\s$\\])\$(?!\d)""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
BAR = re.compile(r"<mo>(?=&#x0(?:2016|007C);)")  # of a norm; one with an exponent does not stretch
TAG = re.compile(r"\\tag\{([^{}]*)\}")
SPECIAL_IN_MARKDOWN = str.maketrans({c: f"&#{ord(c)};" for c in r"*_[]`|\~$"})
STYLE = """
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
.equation { display: grid; grid-template-columns: 1fr auto 1fr; align-items: center; margin: 1em 0;
  overflow-x: auto; overflow-y: hidden; }
.equation math { grid-column: 2; font-size: 112%; }
.equation .number { grid-column: 3; text-align: right; padding-left: 1em; }
"""


def mathml(latex: str, display: bool = False) -> str:
    """An equation as a MathML element on one line; its LaTeX source stays in ``alttext``.

    An equation that the converter does not know is returned as code.

    Args:
        latex: the equation without dollar signs and without ``\\tag``.
        display: whether it stands on a line of its own; otherwise in running text.
    """
    from latex2mathml.converter import convert

    source = html.escape(" ".join(latex.split()))
    try:
        latex = latex.replace(r"\arg", r"\operatorname{arg}")
        element = convert(latex, display="block" if display else "inline")
    except Exception:  # the converter has no common base class for its errors
        return f"<code>{source}</code>"
    element = BAR.sub('<mo stretchy="false">', " ".join(element.split("\n")))
    return element.replace("<math ", f'<math alttext="{source}" ', 1)


def with_mathml(markdown: str) -> str:
    """Markdown text whose equations, ``$...$`` and ``$$...$$``, are MathML; code stays as it is."""
    return MARKDOWN.sub(_replacement, markdown)


def _replacement(match: re.Match) -> str:
    """MathML for an equation that ``MARKDOWN`` found, and anything else unchanged."""
    if match["inline"] is not None:
        return mathml(match["inline"]).translate(SPECIAL_IN_MARKDOWN)
    if match["display"] is None:
        return match[0]
    numbers = ", ".join(TAG.findall(match["display"]))
    element = mathml(TAG.sub("", match["display"]).strip(), display=True).translate(SPECIAL_IN_MARKDOWN)
    number = f'<span class="number">({html.escape(numbers)})</span>' if numbers else ""
    indent = match["indent"] or ""  # an equation in a list stays in the list
    return f'\n\n{indent}<div class="equation">{element}{number}</div>\n\n{indent}'
