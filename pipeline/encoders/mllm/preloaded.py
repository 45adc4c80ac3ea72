"""What every process that prepares has imported before it starts: `preparers` forks them from one that imports this."""

import atexit
import gc

import transformers.models.auto.processing_auto  # noqa: F401 - imported for the processes
import vllm.engine.arg_utils
import vllm.renderers  # noqa: F401

import pipeline.encoders.embedding.rows
import pipeline.encoders.mllm.preparers  # noqa: F401

gc.collect()
gc.freeze()  # else the first collection in a process would write to every page that it shares
atexit.register(gc.unfreeze)  # else libraries that count what is left at the end complain
