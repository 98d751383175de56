"""The public objects: a loss is a callable around one formula."""
