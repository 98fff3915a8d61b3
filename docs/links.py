"""Links of docstrings for the site: `transformers` writes them as [`~package.Name`], which Markdown does not know."""

import re
from typing import Any

import griffe

_LINK = re.compile(r"\[`(~?)([\w.]+)`\]")


class DocstringLinks(griffe.Extension):
    """Makes them references, which are plain code where no page has the object."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _LINK.sub(_reference, obj.docstring.value)


def _reference(link: re.Match[str]) -> str:
    name = link[2].lstrip(".")
    shown = name.rpartition(".")[2] if link[1] else name
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'
