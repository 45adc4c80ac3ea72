"""dvc.yaml: the stages, what they name, and what they really use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import ParameterError
from stages import check_parameters

ROOT = Path(__file__).parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
ORDER = [
    "check_parameters",
    "prepare",
    "backbones",
    "extract_text",
    "embed_fused",
    "train_decoder",
    "train_prior",
    "train_control_adapter",
    "distill_prior",
    "train_diffcomp",
    "train_peers",
    "embed_gallery",
    "build_index",
    "retrieve",
    "rerank",
    "report",
]
EVERYWHERE = ("pipeline/__init__.py", "pipeline/config", "pipeline/errors.py")
"""What changes no output: params.yaml spells out every parameter, and the rest is how errors read."""

NOT_MADE = (
    "stages",
    "pipeline",
    "conf",
    "data/raw",
    "reports/sweeps",
    "reports/ablations",
    "reports/peers",
    "reports/seeds",
    "ablations",
)


def names(entries) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries or ()]


def outputs(stage: str) -> list[str]:
    return [name for kind in ("outs", "metrics") for name in names(GRAPH[stage].get(kind))]


def inside(path: str, folders) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def imported_files(script: Path) -> set[str]:
    """Every file of the library that a script imports, directly or not, at its top or in a function."""
    found, pending = set(), [script]
    while pending:
        for node in ast.walk(ast.parse(pending.pop().read_text())):
            modules = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names if alias.name.startswith("pipeline")]
            for module in modules:
                parts = module.split(".")
                for depth in range(1, len(parts) + 1):  # importing a module runs its packages
                    for path in (
                        ROOT.joinpath(*parts[:depth]).with_suffix(".py"),
                        ROOT.joinpath(*parts[:depth], "__init__.py"),
                    ):
                        name = str(path.relative_to(ROOT))
                        if path.is_file() and name not in found:
                            found.add(name)
                            if not inside(name, EVERYWHERE):
                                pending.append(path)
    return {name for name in found if not inside(name, EVERYWHERE)}


def test_stages_in_order():
    assert list(GRAPH) == ORDER
    assert [GRAPH[stage]["cmd"] for stage in ORDER] == [f"python -m stages.{stage}" for stage in ORDER]
    assert [stage for stage in ORDER if GRAPH[stage].get("frozen")] == ["backbones", "train_decoder"]


@pytest.mark.parametrize("stage", ORDER)
def test_every_dependency_exists_or_is_an_earlier_output(stage):
    earlier = [name for before in ORDER[: ORDER.index(stage)] for name in outputs(before)]
    for dep in GRAPH[stage]["deps"]:
        dep = dep.replace("${data.raw}", PARAMS["data"]["raw"])
        assert (ROOT / dep).exists() if dep.startswith(NOT_MADE) else inside(dep, earlier), dep
    assert f"stages/{stage}.py" in GRAPH[stage]["deps"]


@pytest.mark.parametrize("stage", ORDER)
def test_every_parameter_is_in_the_schema(stage):
    for name in GRAPH[stage]["params"]:
        if name == {"params.yaml": None}:
            continue
        value = PARAMS
        for key in name.split("."):
            assert key in value, name
            value = value[key]


@pytest.mark.parametrize("stage", ORDER)
def test_the_library_folders_are_those_it_imports(stage):
    code = [dep for dep in GRAPH[stage]["deps"] if dep.startswith("pipeline")]
    used = imported_files(ROOT / "stages" / f"{stage}.py")
    assert not [name for name in sorted(used) if not inside(name, code)], "imported, but no dependency"
    assert not [dep for dep in code if not any(inside(name, [dep]) for name in used)], "a dependency, but not imported"


def test_the_priors_parameters_rerun_only_what_follows_from_it():
    readers = [
        stage
        for stage in ORDER
        if any(name == "prior" or name.startswith("prior.") for name in names(GRAPH[stage]["params"]))
        and "prior.data" not in GRAPH[stage]["params"]
    ]
    assert readers == ["train_prior"]
    followers = ["train_prior"]
    for stage in ORDER:
        made = [name for before in followers for name in outputs(before)]
        if stage not in followers and any(inside(dep, made) for dep in GRAPH[stage]["deps"]):
            followers.append(stage)
    assert followers == ["train_prior", "train_control_adapter", "distill_prior", "retrieve", "rerank", "report"]


def test_long_stages_keep_their_outputs():
    settings = {
        stage: [next(iter(out.values())) for out in GRAPH[stage]["outs"] if isinstance(out, dict)] for stage in ORDER
    }
    kept = [stage for stage in ORDER if any(setting.get("persist") for setting in settings[stage])]
    assert kept == [
        "check_parameters",
        "extract_text",
        "embed_fused",
        "train_prior",
        "train_control_adapter",
        "distill_prior",
        "train_diffcomp",
        "train_peers",
        "embed_gallery",
    ]


def test_parameters_are_checked_before_any_output_is_removed(tmp_path, monkeypatch):
    followers = {"data/parameters_checked"}
    for stage in ORDER[1:]:
        assert any(inside(dep, followers) for dep in GRAPH[stage]["deps"]), stage
        followers.update(outputs(stage))
    assert GRAPH["check_parameters"]["params"] == [{"params.yaml": None}]
    monkeypatch.chdir(tmp_path)
    made = []
    for seed in (0, 1):
        Path("params.yaml").write_text(yaml.safe_dump(PARAMS | {"seed": seed}))
        check_parameters.main()
        made.append(check_parameters.OUT.read_bytes())
    assert made[0] == made[1] != b""  # other parameters alone run nothing again; DVC warns of an empty file
    check_parameters.OUT.unlink()
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | {"prior": PARAMS["prior"] | {"lrr": 1}}))
    with pytest.raises(ParameterError, match=r"prior\.lrr"):
        check_parameters.main()
    assert not check_parameters.OUT.exists()


def test_a_wrong_parameter_ends_a_stage_with_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("index: {kind: hash}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "stages.build_index"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == "error: index.kind: 'hash' is not one of flat, hnsw, ivfpq, milvus"


def test_a_sweep_names_what_it_uses_and_the_report_reads_it():
    sweep = yaml.safe_load((ROOT / "sweeps/dvc.yaml").read_text())["stages"]["sweep"]
    names_, stage = sweep["foreach"], sweep["do"]
    assert {f"sweep.{name}" for name in names_} == {f"sweep.{name}" for name in PARAMS["sweep"] if name != "benchmark"}
    code = [dep for dep in stage["deps"] if dep.startswith("pipeline")]
    used = imported_files(ROOT / "stages/sweep.py")
    assert not [name for name in sorted(used) if not inside(name, code)] and all(
        any(inside(name, [dep]) for name in used) for dep in code
    )
    made = [name for before in ORDER for name in outputs(before)]
    assert all(dep in code or dep == "stages/sweep.py" or inside(dep, made) for dep in stage["deps"])
    plots = [plot for entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for plot in entry.values()]
    drawn = {file for plot in plots for file in plot["y"]}
    assert "reports/sweeps" in GRAPH["report"]["deps"] and {f"reports/sweeps/{name}.csv" for name in names_} <= drawn
    assert all(plot["title"] and plot["x_label"] and plot["y_label"] for plot in plots)


def test_an_ablation_names_what_it_uses():
    ablation = yaml.safe_load((ROOT / "ablations/dvc.yaml").read_text())["stages"]["ablation"]
    tables, stage = yaml.safe_load((ROOT / "ablations/tables.yaml").read_text()), ablation["do"]
    assert ablation["foreach"] == list(tables)
    code = [dep for dep in stage["deps"] if dep.startswith("pipeline")]
    used = imported_files(ROOT / "stages/ablate.py")
    assert not [name for name in sorted(used) if not inside(name, code)] and all(
        any(inside(name, [dep]) for name in used) for dep in code
    )
    made = [name for before in ORDER for name in outputs(before)]
    others = [dep for dep in stage["deps"] if dep not in code]
    assert all((ROOT / dep).is_file() or inside(dep, made) for dep in others)
    assert all(name.split(".")[0] in PARAMS for name in stage["params"])


def test_the_report_writes_all_that_the_page_and_plots_need():
    assert outputs("report") == [
        "reports/metrics.json",
        "reports/plots",
        "reports/tables",
        "reports/figures",
        "reports/index.html",
        "reports/summary.json",
    ]
