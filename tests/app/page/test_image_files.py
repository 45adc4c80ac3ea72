"""The files that images are served from."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.app.page.image_files import ImageFiles


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_threads_that_save_one_image_write_one_private_file(tmp_path):
    files, image = ImageFiles(tmp_path), Image.new("RGB", (64, 64), "red")
    with ThreadPoolExecutor(8) as pool:
        [path] = set(pool.map(lambda _: files.save(image), range(40)))
    assert files_below(tmp_path) == [Path(path)] and not Path(path).stat().st_mode & 0o077
    assert np.array_equal(Image.open(path), image)


def test_saving_again_keeps_the_file_and_makes_it_young(tmp_path):
    files, image = ImageFiles(tmp_path), Image.new("RGB", (64, 64), "red")
    path = Path(files.save(image))
    inode = path.stat().st_ino
    os.utime(path, (0, 0))
    assert files.save(image) == str(path)
    assert path.stat().st_ino == inode and path.stat().st_mtime > 0


def test_another_image_is_another_file(tmp_path):
    files = ImageFiles(tmp_path)
    paths = [files.save(Image.new("RGB", (64, 64), colour), "webp") for colour in ("red", "blue")]
    assert all(path.endswith(".webp") for path in paths) and len(files_below(tmp_path)) == 2
