"""The files that the page's images are served from, each written once.

Gradio names an image's file by its content, but writes it anew for every visitor, under the hands of
the one who is just being sent it: a broken thumbnail.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

from PIL import Image


class ImageFiles:
    """Images below one folder, named by their content; a file that is there is whole and stays as it is."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()

    def keep(self, image: Image.Image, format: str = "png") -> str:
        """The file of an image, as `png` or `webp`. Its age counts from the last call, so that no cleaning up takes it from a page."""
        buffer = io.BytesIO()
        image.save(buffer, format)
        content = buffer.getvalue()
        path = self.folder / hashlib.sha256(content).hexdigest() / f"image.{format}"
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as aside:
                aside.write(content)
            os.replace(aside.name, path)
        return str(path)
