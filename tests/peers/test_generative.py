"""CompoDiff and FlowCIR: their losses by hand, guidance, dropped conditions, and what the triplets are read from."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from pipeline.artifacts import ArtifactError, schemas, write_table
from pipeline.config import ParameterError, as_dict, load_profile, params_from_dict
from pipeline.diffcomp import slerp
from pipeline.peers import load_peer
from pipeline.peers.compodiff import CompoDiff, CompoDiffTask, guided
from pipeline.peers.corpus import Corpus
from pipeline.peers.flowcir import FlowCir, FlowCirTask
from pipeline.peers.triplets import Triplets, read_triplets
from pipeline.training import Run, train
from stages import train_peers
from tests.diffcomp.conftest import make_encoder
from tests.stages.conftest import workspace

__all__ = ["make_encoder", "workspace"]
ROOT = Path(__file__).parents[2]
DIM = 48
EDITS = [("red ball", "blue ball", "in blue"), ("red cat", "red dog", "a dog"), ("blue cat", "red cat", "in red")]


@pytest.fixture
def params():
    """The parameters `peers` with small networks."""
    found = load_profile("offline", ROOT / "conf").peers
    for section in (found.compodiff, found.flowcir):
        section.width, section.heads, section.depth, section.time_frequencies = 32, 2, 2, 16
        section.steps, section.batch_size, section.warmup_steps, section.log_every = 40, 8, 0, 1
        section.checkpoint_every = 20
    return found


def drawn(rows: int, seed: int = 3) -> Triplets:
    generator = torch.Generator().manual_seed(seed)
    return Triplets(*(torch.nn.functional.normalize(torch.randn(rows, DIM, generator=generator)) for _ in range(3)))


def stand_in(peer, answer):
    """Put a known function in the network's place; returns the list of what it is called with."""
    calls = []

    def called(point, time, conditions):
        calls.append((point, time, conditions))
        return answer(point, time, conditions)

    peer.network.forward = called
    return calls


def test_compodiff_predicts_the_clean_target(make_encoder, params):
    peer, triplets = CompoDiff(make_encoder(), params), drawn(5)
    calls = stand_in(peer, lambda point, time, conditions: torch.zeros_like(point))
    loss, _ = CompoDiffTask(peer, triplets).loss(peer, torch.arange(5), torch.Generator().manual_seed(1), "cpu")
    assert float(loss) == pytest.approx(1.0, rel=1e-5)  # targets of unit length, scaled by sqrt(D): a mean square of 1
    noisy, step, _ = calls[0]
    generator = torch.Generator().manual_seed(1)
    assert step.tolist() == torch.randint(1000, (5,), generator=generator).tolist()
    noise = torch.randn(5, DIM, generator=generator)
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)[step][:, None]
    expected = kept.sqrt() * triplets.targets * DIM**0.5 + (1 - kept).sqrt() * noise
    torch.testing.assert_close(noisy.double(), expected, atol=1e-4, rtol=1e-4)


def test_shares_of_the_conditions_are_left_out(make_encoder, params):
    params.compodiff.dropped = 0.2
    peer, triplets = CompoDiff(make_encoder(), params), drawn(1000)
    calls = stand_in(peer, lambda point, time, conditions: torch.zeros_like(point))
    CompoDiffTask(peer, triplets).loss(peer, torch.arange(1000), torch.Generator().manual_seed(1), "cpu")
    text, reference = ((calls[0][2][:, row] == peer.nothing[row] + peer.kinds[row]).all(-1) for row in range(2))
    shares = [float(rows.float().mean()) for rows in (text & ~reference, reference & ~text, text & reference)]
    assert shares == pytest.approx([0.2, 0.2, 0.2], abs=0.04)


def test_what_is_not_left_out_is_the_scaled_feature(make_encoder, params):
    peer, (references, texts, _) = CompoDiff(make_encoder(), params), drawn(2)
    no_text = torch.tensor([True, False])
    found = peer.conditions(texts, references, no_text)
    torch.testing.assert_close(found[0, 0], peer.nothing[0] + peer.kinds[0])
    torch.testing.assert_close(found[1, 0], texts[1] * DIM**0.5 + peer.kinds[0])
    torch.testing.assert_close(found[:, 1], references * DIM**0.5 + peer.kinds[1])


def test_guidance_by_hand():
    both, reference, nothing = (torch.tensor([[value]]) for value in (5.0, 3.0, 2.0))
    assert guided(both, reference, nothing, 1.0, 1.0).item() == 5.0
    assert guided(both, reference, nothing, 7.5, 1.5).item() == 2.0 + 1.5 * 1.0 + 7.5 * 2.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_ends_where_the_denoiser_points(make_encoder, params, temperature):
    params.compodiff.temperature = temperature
    peer, (references, _, targets) = CompoDiff(make_encoder(), params).eval(), drawn(4)
    stand_in(peer, lambda point, time, conditions: targets.repeat(3, 1) * DIM**0.5)
    with torch.no_grad():
        found = peer.compose(references, ["a red ball"] * 4)
    torch.testing.assert_close(found, targets, atol=1e-3, rtol=1e-3)


def test_a_sample_does_not_depend_on_its_batch(make_encoder, params):
    params.compodiff.temperature = 1.0
    peer, (references, _, _) = CompoDiff(make_encoder(), params).eval(), drawn(4)
    torch.nn.init.normal_(peer.network.final.weight, std=0.1)
    texts = ["a red ball", "a blue cat", "a dog", "a hat"]
    with torch.no_grad():
        together, alone = peer.compose(references, texts), peer.compose(references[2:3], texts[2:3])
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-4)


def test_flowcir_learns_the_straight_velocity(make_encoder, params):
    peer, (references, texts, targets) = FlowCir(make_encoder(), params), drawn(5)
    calls = stand_in(peer, lambda point, time, conditions: torch.full_like(point, 0.5))
    loss, _ = FlowCirTask(peer, Triplets(references, texts, targets)).loss(
        peer, torch.arange(5), torch.Generator().manual_seed(1), "cpu"
    )
    start, end = slerp(references, texts, params.flowcir.text_weight) * DIM**0.5, targets * DIM**0.5
    time = torch.rand(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(calls[0][0], (1 - time[:, None]) * start + time[:, None] * end, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(calls[0][1], 1000 * time)
    assert float(loss) == pytest.approx(float(((0.5 - (end - start)) ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_straight_flow_reaches_the_target_in_any_number_of_steps(make_encoder, params, steps):
    params.flowcir.flow_steps = steps
    encoder = make_encoder()
    peer, (references, _, targets) = FlowCir(encoder, params).eval(), drawn(4)
    texts = ["a red ball"] * 4
    start = peer.start(references, peer.encode_texts(texts))
    calls = stand_in(peer, lambda point, time, conditions: targets * DIM**0.5 - start)
    with torch.no_grad():
        torch.testing.assert_close(peer.compose(references, texts), targets, atol=1e-5, rtol=1e-5)
    assert [float(time[0]) for _, time, _ in calls] == [1000 * step / steps for step in range(steps)]


@pytest.mark.parametrize(("kind", "task"), [(CompoDiff, CompoDiffTask), (FlowCir, FlowCirTask)])
def test_training_learns_and_resumes_to_the_same_weights(make_encoder, params, kind, task, tmp_path):
    triplets, encoder = drawn(8), make_encoder().requires_grad_(False)
    params.compodiff.schedule = params.flowcir.schedule = "constant"
    params.compodiff.lr = params.flowcir.lr = 3e-3

    def trained(folder, *lengths):
        for steps in lengths:
            torch.manual_seed(0)
            peer = kind(encoder, params)
            peer.params.steps = steps
            log = train(task(peer, triplets), peer.params, Run(0, tmp_path / folder, {}, "cpu"))
        return peer, log

    (whole, log), (resumed, _) = trained("whole", 40), trained("resumed", 20, 40)
    first, last = (sum(row["loss"] for row in rows) for rows in (log[:5], log[-5:]))
    assert last < 0.9 * first
    assert all(weight.grad is None for weight in encoder.parameters())
    assert not any("visual" in name for name in whole.state_dict())  # the backbone is not stored
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, rtol=0, atol=0)


def write_edits(edits) -> None:
    rows = [
        {
            "triplet_id": f"t{number}",
            "reference_id": reference,
            "target_id": target,
            "instruction": text,
            "target_description": target,
            "shared_concept": "",
        }
        for number, (reference, target, text) in enumerate(edits)
    ]
    for name in ("sampled", "all"):
        write_table(f"data/triplets/{name}", pa.Table.from_pylist(rows, schema=schemas.TRIPLETS), {})


def test_triplets_are_read_in_their_order(workspace):
    write_edits(EDITS)
    corpus = Corpus(workspace)
    found, encoder = read_triplets(corpus, Path("data/triplets/all")), corpus.encoder
    pixels = corpus.table.pixels([target for _, target, _ in EDITS], encoder.image_size)
    with torch.no_grad():
        expected = encoder.encode_image(encoder.normalise(pixels))
        texts = encoder.encode_text(encoder.tokenize([text for *_, text in EDITS]))
    torch.testing.assert_close(found.targets, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.texts, texts, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.references[2], corpus.vectors(["blue cat"], Path("cache"))[0])


def test_no_triplets_are_refused(workspace):
    write_edits([])
    with pytest.raises(ValueError, match=r"data/triplets/all: no edit triplets"):
        read_triplets(Corpus(workspace), Path("data/triplets/all"))


def test_the_stage_trains_them_and_another_table_trains_again(workspace, monkeypatch):
    write_edits(EDITS)
    workspace.peers.train = ["slerp_tat", "pli", "compodiff", "flowcir"]
    for name in workspace.peers.train:
        section = getattr(workspace.peers, name)
        section.steps, section.batch_size, section.warmup_steps = 2, 2, 0
        if name in ("slerp_tat", "pli"):
            section.image_layers = 1
        else:
            section.width, section.heads = 32, 2
    workspace.peers.pli.text_layers = 1
    monkeypatch.setattr(train_peers, "load_params", lambda: workspace)
    train_peers.main()
    stored = {name: Path(f"models/peers/{name}/model.safetensors").stat().st_mtime_ns for name in workspace.peers.train}
    write_edits(EDITS[:2])
    train_peers.main()
    changed = {
        name
        for name in workspace.peers.train
        if Path(f"models/peers/{name}/model.safetensors").stat().st_mtime_ns != stored[name]
    }
    assert changed == {"compodiff", "flowcir"}
    encoder = Corpus(workspace).encoder
    peer = load_peer("models/peers/compodiff", "compodiff", encoder, workspace)
    found = peer.compose(torch.eye(encoder.dim)[:1], ["in blue"])
    assert float(found.norm()) == pytest.approx(1.0, abs=1e-5)
    workspace.peers.compodiff.width = 64
    with pytest.raises(ArtifactError, match="the model wants"):
        load_peer("models/peers/compodiff", "compodiff", encoder, workspace)


@pytest.mark.parametrize(
    ("peer", "name", "value"),
    [("compodiff", "dropped", 0.5), ("flowcir", "flow_steps", 0), ("flowcir", "triplets", "x")],
)
def test_bad_parameters_are_refused(peer, name, value):
    values = as_dict(load_profile("offline", ROOT / "conf"))
    values["peers"][peer][name] = value
    with pytest.raises(ParameterError, match=rf"peers\.{peer}\.{name}"):
        params_from_dict(values)
