"""The canonical tables."""

import pyarrow as pa

_STRINGS = pa.list_(pa.string())

IMAGES = pa.schema(
    [("image_id", pa.string()), ("bytes", pa.large_binary()), ("width", pa.int32()), ("height", pa.int32())]
)
IMAGE_MEMBERS = pa.schema(
    [
        *IMAGES,
        ("archive", pa.string()),
        ("archive_size", pa.int64()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""Images that stay in their archives (`pipeline.artifacts.archives`), where `bytes` is null, and copied ones."""
IMAGE_FILES = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("crop", pa.list_(pa.int32())),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Images that stay where they are; `crop` (left, top, right, bottom) is the part that is meant, null: the whole."""
PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("caption_kind", pa.string()),
        ("phrases", _STRINGS),
    ]
)
TRIPLETS = pa.schema(
    [
        ("triplet_id", pa.string()),
        ("reference_id", pa.string()),
        ("target_id", pa.string()),
        ("instruction", pa.string()),
        ("target_description", pa.string()),
        ("shared_concept", pa.string()),
    ]
)
QUERIES = pa.schema(
    [
        ("query_id", pa.string()),
        ("reference_id", pa.string()),
        ("modifications", _STRINGS),
        ("target_ids", _STRINGS),
        ("subset_ids", _STRINGS),
        ("category", pa.string()),
        ("shared_concept", pa.string()),
    ]
)
RANKINGS = pa.schema(
    [
        ("query_id", pa.string()),
        ("method", pa.string()),
        ("ranked_ids", _STRINGS),
        ("scores", pa.list_(pa.float32())),
        ("subset_ranked_ids", _STRINGS),
    ]
)
SIMILARITIES = pa.schema(
    [
        ("query_id", pa.string()),
        ("method", pa.string()),
        ("target", pa.float32()),
        ("other", pa.float32()),
    ]
)
"""The best target's score and that of the best image that is none, reference apart."""
DESCRIPTIONS = pa.schema([("query_id", pa.string()), ("descriptions", _STRINGS)])
ASPECTS = pa.schema([("query_id", pa.string()), ("aspects", _STRINGS)])
"""CIRCO's semantic aspects of a query."""


def embeddings(dim: int, dtype: pa.DataType = pa.float32()) -> pa.Schema:
    """`id` and a fixed-size vector of `dim` numbers."""
    return pa.schema([("id", pa.string()), ("vector", pa.list_(dtype, dim))])


def conditions(dim: int, dtype: pa.DataType = pa.float16()) -> pa.Schema:
    """`id` and ragged token states, flattened: tokens x `dim` numbers, of which a shard may have over 2^31."""
    return pa.schema(
        [("id", pa.string()), ("tokens", pa.int32()), ("states", pa.large_list(dtype))], metadata={"dim": str(dim)}
    )
