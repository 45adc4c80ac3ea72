"""Training of the two small backbones that the embedded default ships (stage `backbones`)."""
