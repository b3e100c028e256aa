"""What is the user's to mend."""


class UserError(ValueError):
    """A mistake in a flag, a config or a file. Its message says in one sentence what is wrong and what to do.

    Commands print the message alone and end with exit code 2; everything else that is raised is a bug, and keeps its
    traceback.
    """


class MissingFile(UserError, FileNotFoundError):
    """A file or folder that was named is not there."""
