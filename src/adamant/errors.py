"""Errors that speak to the person: what was wrong, with which value, and what to do."""


class AdamantError(Exception):
    """The root of every error that adamant raises on purpose; the command line prints it as one sentence."""


class InputError(AdamantError, ValueError):
    """The data or an argument cannot be used as given."""


class ModelError(AdamantError, RuntimeError):
    """The model cannot be loaded, raises, or returns what no classifier returns."""


class AccessError(AdamantError, TypeError):
    """An attack asks for more than its access to the model gives."""


class Spent(KeyboardInterrupt):
    """A model has spent its budget of queries: a run ends as with Ctrl-C, and what is finished is kept."""


class RunError(AdamantError, OSError):
    """A run folder cannot be written, read, or resumed."""


class MissingExtraError(AdamantError, ImportError):
    """An optional framework is not installed; the message names the extra."""


def first_line(error: Exception, most: int = 200) -> str:
    """What an exception of somebody else's says, short enough to stand in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
