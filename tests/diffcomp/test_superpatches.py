"""CSS: grouping and its inverse, k = 0, groups alone, clusters, and what it costs on ViT-L/14."""

import pipeline  # noqa: F401 (what it declares for torchvision comes before open_clip)

# isort: split
import open_clip
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.diffcomp.superpatches import (
    SuperPatches,
    grid_assignment,
    group_by_assignment,
    group_grid,
    kmeans_assignment,
    ungroup_grid,
)
from pipeline.encoders.dual.clip import ClipEncoder, build_clip


def branches(encoder, css, images):
    before = encoder.run(encoder.embed_patches(images), 0, css.cut)
    return before, encoder.run(before, css.cut, encoder.depth)


@pytest.mark.parametrize("grid, side", [((4, 4), 1), ((4, 4), 2), ((4, 6), 2), ((8, 8), 4), ((8, 8), 8)])
def test_grouping_and_its_inverse(grid, side):
    patches = torch.randn(2, grid[0] * grid[1], 5)
    groups = group_grid(patches, grid, side)
    assert groups.shape == (2, grid[0] * grid[1] // side**2, side**2, 5)
    assert torch.equal(ungroup_grid(groups, grid, side), patches)
    assignment = grid_assignment(grid, side)
    for number in range(groups.shape[1]):
        assert torch.equal(groups[:, number], patches[:, assignment == number])


def test_a_super_patch_is_a_square_of_neighbours():
    assert grid_assignment((4, 4), 2).view(4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("grouping", ["grid", "kmeans"])
def test_without_local_blocks_every_feature_is_the_global_one(make_encoder, grouping):
    encoder, images = make_encoder(), torch.randn(2, 3, 32, 32)
    css = SuperPatches(encoder, 2, 0, grouping)
    before, after = branches(encoder, css, images)
    local = css.encode(encoder, before, after, css.assign(before))
    assert local.shape == (2, 4, 48)
    torch.testing.assert_close(local, encoder.encode_image(images)[:, None].expand(-1, 4, -1), atol=1e-5, rtol=0)


def test_one_super_patch_over_everything_is_the_global_feature(make_encoder):
    encoder, images = make_encoder(), torch.randn(2, 3, 32, 32)
    css = SuperPatches(encoder, 4, 2)
    before, after = branches(encoder, css, images)
    encoded = css.encode(encoder, before, after, css.assign(before))[:, 0]
    torch.testing.assert_close(encoded, encoder.encode_image(images), atol=1e-5, rtol=0)


def test_all_local_blocks_see_nothing_beyond_their_group(make_encoder):
    encoder = make_encoder()
    css = SuperPatches(encoder, 2, encoder.depth)
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :16, :16] += 1  # the first super-patch's pixels
    features = []
    for version in (images, changed):
        before, after = branches(encoder, css, version)
        features.append(css.encode(encoder, before, after, css.assign(before))[0])
    moved = (features[0] - features[1]).abs().amax(-1)
    assert moved[0] > 1e-3 and (moved[1:] < 1e-6).all()


def test_plain_patches_are_the_final_tokens(make_encoder):
    encoder, images = make_encoder(), torch.randn(2, 3, 32, 32)
    css = SuperPatches(encoder, 4, 1, plain=True)
    before, after = branches(encoder, css, images)
    assert css.count == 16
    assert torch.equal(css.encode(encoder, before, after, css.assign(before)), encoder.project(after[:, 1:]))


def test_clusters_that_are_a_grid_encode_like_the_grid(make_encoder):
    encoder, images = make_encoder(), torch.randn(2, 3, 32, 32)
    grid, clusters = SuperPatches(encoder, 2, 1), SuperPatches(encoder, 2, 1, "kmeans")
    before, after = branches(encoder, grid, images)
    rows = grid.assign(before)
    torch.testing.assert_close(
        clusters.encode(encoder, before, after, rows),
        grid.encode(encoder, before, after, rows),
        atol=1e-5,
        rtol=0,
    )


def test_unequal_clusters_encode_like_each_alone(make_encoder):
    encoder, images = make_encoder(), torch.randn(2, 3, 32, 32)
    css = SuperPatches(encoder, 2, 2, "kmeans")
    before, after = branches(encoder, css, images)
    assignment = css.assign(before)
    local = css.encode(encoder, before, after, assignment)
    for image in range(2):
        for cluster in range(4):
            own = before[image, 1:][assignment[image] == cluster]
            alone = encoder.run(torch.cat([before[image, :1], own])[None], css.cut, encoder.depth)[:, 0]
            torch.testing.assert_close(local[image, cluster], encoder.project(alone)[0], atol=1e-5, rtol=0)


def test_clusters_are_repeatable_and_never_empty():
    patches = torch.randn(3, 16, 4)
    patches[1] = patches[1, :1]  # one colour: nothing tells its patches apart
    start = grid_assignment((4, 4), 2).expand(3, -1)
    first = kmeans_assignment(patches, start, 4)
    assert torch.equal(first, kmeans_assignment(patches, start, 4))
    assert all(len(row.unique()) == 4 for row in first)


def test_clusters_find_what_lies_apart():
    centres = torch.eye(4) * 10
    truth = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 2, 3, 2, 2, 3, 3])
    found = kmeans_assignment((centres[truth] + 0.1 * torch.randn(16, 4))[None], grid_assignment((4, 4), 2)[None], 4)
    assert torch.equal(found[0], truth)


def test_padding_groups_hold_every_patch_once():
    assignment = torch.tensor([[0, 2, 1, 2, 2, 0], [1, 1, 0, 1, 1, 2]])
    patches = torch.arange(12.0).view(2, 6, 1)
    groups, keep = group_by_assignment(patches, assignment, 3)
    assert groups.shape == (2, 3, 4, 1) and keep.sum(2).tolist() == [[2, 1, 3], [1, 4, 1]]
    assert groups[0, 2][keep[0, 2]].flatten().tolist() == [1, 3, 4]
    assert sorted(groups[keep].flatten().tolist()) == list(range(12))


def test_values_spread_to_their_patches(make_encoder):
    css = SuperPatches(make_encoder(), 2, 1)
    spread = css.spread(torch.arange(4.0)[None], css.assign(torch.zeros(1, 17, 64)))
    assert torch.equal(spread[0].long(), grid_assignment((4, 4), 2))


def test_sizes_that_do_not_fit_are_refused_with_both_numbers(make_encoder):
    with pytest.raises(ValueError, match="super_patch: 3 .* 4 x 4"):
        SuperPatches(make_encoder(), 3, 1)
    with pytest.raises(ValueError, match="local_blocks 4 .* 3 blocks"):
        SuperPatches(make_encoder(), 2, 4)
    with pytest.raises(ValueError, match="circles"):
        SuperPatches(make_encoder(), 2, 1, "circles")


def test_on_vit_l_14_super_patches_of_4_add_at_most_7_percent():
    """The supplement's cost claim (section A), in floating-point operations of one image."""
    with torch.device("meta"):
        encoder = ClipEncoder(build_clip(open_clip.get_model_config("ViT-L-14")), None)
        css = SuperPatches(encoder, 4, 1)
        with FlopCounterMode(display=False) as whole:
            before, after = branches(encoder, css, torch.empty(1, 3, 224, 224))
            encoder.project(after[:, 0])
        with FlopCounterMode(display=False) as local:
            css.encode(encoder, before, after, torch.empty(1, 256, dtype=torch.long))
    assert 0.03 < local.get_total_flops() / whole.get_total_flops() <= 0.07
