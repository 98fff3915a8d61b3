"""What commands print. Much of it is data: paths, names, answers."""

from rich.console import Console


def plain_console() -> Console:
    """A console that prints text as it is, whatever in it looks like markup, and breaks no line of it."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
