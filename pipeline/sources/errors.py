"""The error of every reader of raw sources."""


class SourceError(ValueError):
    """A raw source that cannot be fetched, is damaged, or does not say what it should."""
