"""The stage `distill_prior` and what retrieval makes of it, over a dozen images."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.model_files import skip_model
from pipeline.config import ParameterError, load_params
from pipeline.distill.checkpoints import load_student
from pipeline.query.fusion_diff import FUSED_ONLY, FUSION_DIFF, STAGE1_ONLY, methods
from pipeline.query.fusion_diff_family import distilled_samplers
from stages import distill_prior, train_control_adapter, train_prior

TRAINING = {"enabled": True, "steps": 2, "batch_size": 4, "log_every": 1, "warmup_steps": 0, "solver_steps": 4}


def write(**sections) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, changes in sections.items():
        values[name] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture
def taught(workspace, monkeypatch):
    """A prior, an adapter, and descriptions without a text encoder."""
    train_prior.main()
    train_control_adapter.main()

    def descriptions(params, ids):
        return train_control_adapter.open_conditions(train_control_adapter.TEXTS, ids)[0]

    monkeypatch.setattr(distill_prior, "read_descriptions", descriptions)
    monkeypatch.setattr(distill_prior, "TRIPLETS", distill_prior.QUERIES)
    return workspace


def test_by_default_there_is_none(taught):
    Path("models/student/gone").mkdir(parents=True)
    distill_prior.main()
    assert list(files("models/student")) == ["models/student/skipped.json"]
    assert json.loads(Path("models/student/skipped.json").read_text()) == {"reason": "distill.enabled is false"}


def test_it_is_trained_once_and_repeats_byte_for_byte(taught, monkeypatch):
    write(distill=TRAINING)
    distill_prior.main()
    before = files("models/student")
    with monkeypatch.context() as patch:
        patch.setattr(distill_prior, "train", None)
        distill_prior.main()
    assert files("models/student") == before
    Path("models/.made/student.json").unlink()
    distill_prior.main()
    assert files("models/student") == before
    student, jumps = load_student("models/student")
    assert jumps.teacher_steps == 4 and tuple(student.limits) == (4.0, 1.0)


def test_retrieval_samples_with_it(taught):
    write(distill=TRAINING, retrieve={"sampler": "distilled"})
    distill_prior.main()
    params, rows = load_params(), 3
    samplers = distilled_samplers(params.retrieve, "cpu", {})
    sizes = samplers[FUSION_DIFF].sizes
    assert samplers[FUSION_DIFF].settings.solver_steps == params.retrieve.passes == 2
    text, control = (torch.randn(rows, 2, sizes.text_dim), None), torch.randn(rows, sizes.dim)
    drawn = {name: samplers[name].sample(list("abc"), text, control) for name in (STAGE1_ONLY, FUSION_DIFF)}
    assert drawn[FUSION_DIFF].shape == (rows, 1, sizes.dim)
    assert not torch.equal(drawn[FUSION_DIFF], drawn[STAGE1_ONLY])
    taken = {method.name: method.controls for method in methods(params)}
    assert "negative" in taken[FUSED_ONLY] and "negative" not in taken[FUSION_DIFF]


def test_distilled_without_a_student(taught):
    with pytest.raises(ParameterError, match=r"retrieve\.sampler: distilled needs a student: set distill\.enabled"):
        write(retrieve={"sampler": "distilled"})
        load_params()
    write(distill=TRAINING, retrieve={"sampler": "dpm"})
    skip_model("models/student", "distill.enabled is false")
    write(retrieve={"sampler": "distilled"})
    with pytest.raises(ArtifactError, match="models/student: there is no student: distill.enabled is false"):
        distilled_samplers(load_params().retrieve, "cpu", {})


def test_a_student_of_another_teacher_is_refused(taught):
    write(distill=TRAINING, retrieve={"sampler": "distilled"})
    distill_prior.main()
    write(control={"lr": 0.5})
    train_control_adapter.main()
    with pytest.raises(ArtifactError, match="models/student: trained with teacher"):
        distilled_samplers(load_params().retrieve, "cpu", {})


def test_wrong_numbers(workspace):
    student = {"distill": TRAINING, "retrieve": {"sampler": "distilled"}}
    for sections, message in (
        (
            student | {"retrieve": {"sampler": "distilled", "guidance_scale": 5.0}},
            r"retrieve\.guidance_scale: 5 is above the 4 that the student learns \(distill\.guidance_scale\)",
        ),
        (
            student | {"retrieve": {"sampler": "distilled", "control_scale": 1.5}},
            r"retrieve\.control_scale: 1\.5 is above the 1 that",
        ),
        ({"distill": {"solver_steps": 1}}, r"distill\.solver_steps 1 is less than 2"),
        ({"retrieve": {"passes": 3}}, r"retrieve\.passes: 3 is not 1 or 2"),
        ({"retrieve": {"sampler": "ddim"}}, "sampler"),
    ):
        before = Path("params.yaml").read_text()
        write(**sections)
        with pytest.raises(ParameterError, match=message):
            load_params()
        Path("params.yaml").write_text(before)
