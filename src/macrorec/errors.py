"""Which mistakes can a user make, and what does the process answer?

Every error that a user can cause is a ``UserError``; the command line prints its message as one line and exits with its
``exit_code``. Anything else is a fault of ours and keeps its traceback.

    UserError               1
      ConfigError           2   unknown recipe, key, flag value, model; a value outside its range
      DataError             3   a file or column that cannot be read as declared; a split that leaves nothing
      ResourceError         4   memory or disk would not suffice
    (Ctrl-C)              130
    (SIGTERM)             143
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in input or configuration. The message says what, where, and what is allowed, in one line."""

    exit_code = 1


class ConfigError(UserError):
    """A recipe, key, flag or value that is not among the allowed ones."""

    exit_code = 2


class DataError(UserError):
    """Input data that is missing, unreadable, or not what was declared."""

    exit_code = 3


class ResourceError(UserError):
    """An array or file that would not fit; the message gives the estimate, the limit, and a hint."""

    exit_code = 4
