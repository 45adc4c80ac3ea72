"""Image-text dual encoders: CLIP and BLIP behind one interface."""
