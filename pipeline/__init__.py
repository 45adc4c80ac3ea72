"""Zero-shot composed image retrieval: Fusion-Diff and DiffComp on one spine."""

from pipeline.compat import install as _install_compat

_install_compat()
