"""The errors of this package that a user can cause."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names it, says what was expected and what to do.

    The command line prints it without a traceback.
    """
