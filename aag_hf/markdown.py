"""Writes data into Markdown, so that no name or setting becomes a heading, a link, the end of a cell, or HTML."""

import html
import re
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# An underscore within a word has no meaning in Markdown.
_SIGNS = re.compile(r"[\\`*~$|\[\]]|(?<![^\W_])_|_(?![^\W_])")


def in_text(value: Any) -> str:
    """`value` as plain words in a line or in a cell of a table."""
    line = " ".join(_CONTROLS.sub(" ", str(value)).split())
    return _SIGNS.sub(r"\\\g<0>", html.escape(line, quote=False))


def in_code(value: Any) -> str:
    """`value` between backticks, in a line or in a table's cell; line breaks become ``\\n``."""
    line = _CONTROLS.sub(" ", str(value).replace("\n", "\\n"))
    return line.replace("`", "'").replace("|", "\\|")
