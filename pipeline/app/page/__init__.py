"""The demo page: its layout, its events, and the image files that it serves."""
