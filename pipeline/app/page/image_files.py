"""The files that the page's images are served from, each written once.

Gradio names an image's file by its content, but writes it again for every visitor. A visitor who is
just being sent the file would get a broken image.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

from PIL import Image


class ImageFiles:
    """Images in one folder, named by their content. A file in it is complete and never changes."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()

    def save(self, image: Image.Image, format: str = "png") -> str:
        """Write an image's file, unless it is there already.

        A file's age counts from the last call, so that no cleaning takes it from a page that shows it.

        Args:
            image: The image.
            format: `png` or `webp`.

        Returns:
            The absolute path of the file.
        """
        buffer = io.BytesIO()
        image.save(buffer, format)
        content = buffer.getvalue()
        path = self.folder / hashlib.sha256(content).hexdigest() / f"image.{format}"
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as unfinished:
                unfinished.write(content)
            os.replace(unfinished.name, path)
        return str(path)
