"""Searching a gallery: galleries, folder libraries, requests, the searcher and its results."""
