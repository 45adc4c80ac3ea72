"""`cir serve`: the search as an HTTP API, with the page on the same process, and a client for Python."""
