"""The errors of this package that a user can cause."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names it, says what was expected and what to do.

    The command line prints it without a traceback.
    """


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite; the message names the step, the term and the records.

    The command line prints it without a traceback and exits with 1: nothing that was given need be wrong.
    """
