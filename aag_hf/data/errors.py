"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names it, says what was expected and what to do.

    The command line prints it without a traceback.
    """
