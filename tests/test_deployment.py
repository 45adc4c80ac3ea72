"""The files that run the project elsewhere name what is there."""

import json
import re
import subprocess
from pathlib import Path

import typer
import yaml

from pipeline.app.cli.main import app
from pipeline.app.service.settings import KEY_VARIABLE

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def check_command(words: list[str]) -> None:
    """`cir COMMAND --option ...` is a command with these options."""
    assert words[0] == "cir"
    known = {name for option in COMMANDS[words[1]].params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_images_and_compose_start_the_server():
    command = json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
    check_command(command)
    check_command(COMPOSE["services"]["server"]["command"])
    port = next(option.default for option in COMMANDS["serve"].params if "--port" in option.opts)
    assert f"EXPOSE {port}" in DOCKERFILE and f"127.0.0.1:{port}/health" in DOCKERFILE
    assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"]["server"]["ports"]
    assert f"server:{port}" in COMPOSE["configs"]["prometheus"]["content"]
    assert KEY_VARIABLE in COMPOSE["services"]["server"]["environment"]


def test_the_image_holds_what_it_copies_and_installs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY --chown=cir (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists() and source not in ignored
    extras = re.search(r"'\.\[(.*)\]'", DOCKERFILE)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_ports_are_open_to_this_machine_alone():
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_examples_of_clusters_run_stages_that_exist():
    cloud = yaml.safe_load((ROOT / "deploy/skypilot.yaml").read_text())
    assert cloud["envs"]["STAGE"] in STAGES and (ROOT / f"conf/profile/{cloud['envs']['PROFILE']}.yaml").is_file()
    script = ROOT / "deploy/slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert re.search(r"sbatch deploy/slurm.sh (\w+)", script.read_text())[1] in STAGES
    subprocess.run(["bash", "-n", "-c", cloud["run"]], check=True)
