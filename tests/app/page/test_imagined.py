from PIL import Image

from pipeline.app.page.markup import imagined_images
from pipeline.app.search.results import data_uri


def test_images_stand_beside_each_other_and_nothing_where_there_are_none():
    shown = imagined_images([data_uri(Image.new("RGB", (4, 4)))] * 2)
    assert shown.count('<img src="data:image/png;base64,') == 2 and "What the model imagines" in shown
    assert imagined_images([]) == ""
