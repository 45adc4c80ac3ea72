"""Zero-shot composed image retrieval: Fusion-Diff and DiffComp on one spine."""

from pipeline.compat import install as _install_compat
from pipeline.compat.numerics import pin as _pin_numerics

_pin_numerics()  # before NumPy and torch are loaded
_install_compat()
