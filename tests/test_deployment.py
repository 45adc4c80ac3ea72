"""The files that run the project elsewhere name what is there."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from accelerate.commands.launch import launch_command_parser
from dvc.cli.parser import get_main_parser as dvc_parser

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


def test_the_server_of_compose_searches_in_its_milvus():
    server, milvus = COMPOSE["services"]["server"], COMPOSE["services"]["milvus"]
    variables = {option.envvar for option in COMMANDS["serve"].params} - {None}
    extras = re.search(r"'\.\[(.*)\]'", DOCKERFILE)[1]
    assert variables and variables <= set(server["environment"]) and "milvus" in extras
    for text in ((ROOT / "compose.yaml").read_text(), (ROOT / "docs/deployment.md").read_text()):
        name, host, port = re.search(r"(\w+)=http://(\w+):(\d+) docker compose --profile milvus up", text).groups()
        assert name in variables and COMPOSE["services"][host] is milvus
        assert any(published.endswith(f":{port}") for published in milvus["ports"])
    assert server["depends_on"][host] == {"condition": "service_healthy", "required": False}
    named = {volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service["volumes"]}
    assert {volume for volume in named if volume.isalpha()} == set(COMPOSE["volumes"])


def test_the_image_holds_what_it_copies_and_installs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY --chown=cir (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists() and source not in ignored
    extras = re.search(r"'\.\[(.*)\]'", DOCKERFILE)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_named_volumes_belong_to_the_user_of_the_image():
    """Docker gives a new volume the owner of the image's folder, and root's where there is none."""
    made = re.search(r"install --directory --owner (\w+) --group \w+ (.*)", DOCKERFILE)
    assert re.search(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE)[1] == made[1]
    volumes = [volume.split(":") for volume in COMPOSE["services"]["server"]["volumes"]]
    named = [place for name, place, *_ in volumes if name in COMPOSE["volumes"]]
    assert named and set(named) <= set(made[2].split())


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


@pytest.mark.parametrize("name", ["skypilot.yaml", "slurm.sh"])
def test_examples_of_clusters_give_options_that_exist(name):
    """Each program's own parser reads the line, which it leaves with exit status 2 otherwise."""
    text = (ROOT / "deploy" / name).read_text().replace("\\\n", " ")
    lines = [shlex.split(line.strip().replace('"', " ")) for line in text.splitlines() if re.match(r"\s*dvc ", line)]
    assert lines
    for line in lines:
        dvc_parser().parse_args(line[1:])
    for words in re.findall(r"accelerate launch (.*)'", text):
        numbers = re.sub(r'"\$\(\(.*?\)\)"|"\$SLURM_\w+"', "2", words)
        read = launch_command_parser().parse_args(shlex.split(numbers))
        assert read.module and read.training_script == "stages.$stage" and read.num_machines == 2
