"""DiffComp trained by two processes: they make of a batch's halves what one process makes of the whole."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESS = """
import json, sys
from pathlib import Path
import pipeline
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp, DiffCompTask
from pipeline.encoders.dual.clip import ClipEncoder, new_clip
from pipeline.training import Run, train
from tests.sections import section

torch.set_num_threads(1)
torch.manual_seed(0)
words = "[PAD] [EOS] [UNK] red blue green ball cat".split()
table = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
table.pre_tokenizer = pre_tokenizers.Whitespace()
table.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
sizes = {
    "vocab_size": len(words), "eos_id": 1, "image_size": 32, "patch_size": 8,
    "vision_width": 32, "vision_layers": 2, "head_width": 16,
    "text_width": 32, "text_layers": 2, "text_heads": 2, "embed_dim": 16, "context": 6,
}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=table, pad_token="[PAD]", eos_token="[EOS]")
encoder = ClipEncoder(new_clip(sizes), tokenizer)
params = section(DiffCompParams,  # nothing is drawn: every process sees what one alone would see
    image_layers=1, text_layers=1, psm=False, eta=0.0, text="caption", steps=3, batch_size=6, lr=0.01, eps=0.01,
)
captions = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("ball", "cat")]
images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
task = DiffCompTask(DiffComp(encoder, params), images, captions, [[]] * 6)
log = train(task, params, Run(0, Path(sys.argv[1]), {}, "cpu"))
weights = torch.cat([p.detach().flatten() for p in task.model.parameters() if p.requires_grad])
print(json.dumps({"losses": [row["align"] for row in log], "weights": weights[::7].tolist()}))
"""


def start(folder: Path, rank: int = 0, world: int = 1, port: int = 0) -> subprocess.Popen:
    several = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), **(several if world > 1 else {})}
    command = [sys.executable, "-c", PROCESS, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE)


def test_two_processes_train_what_one_does(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(tmp_path / "two", rank, 2, port) for rank in range(2)] + [start(tmp_path / "one")]
    first, second, alone = (json.loads(process.communicate()[0].splitlines()[-1]) for process in processes)
    assert first["weights"] == second["weights"]
    assert first["weights"] == pytest.approx(alone["weights"], abs=1e-4)
    assert first["losses"][0] == pytest.approx(
        alone["losses"][0], abs=1e-5
    )  # over six pairs, not over the process's three
    moved = max(abs(one - other) for one, other in zip(first["losses"], first["losses"][1:], strict=False))
    assert moved > 1e-3
