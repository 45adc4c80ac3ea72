"""Sweeps over inference parameters, and ablations of DiffComp."""
