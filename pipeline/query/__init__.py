"""A reference and a modification -> query vectors: the interface, one module a family, the registry of methods."""
