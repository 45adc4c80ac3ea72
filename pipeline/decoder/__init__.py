"""A feature of f_M back to an image: a SANA transformer that attends to z, trained by flow matching."""

from pipeline.decoder.checkpoints import load_decoder, save_decoder
from pipeline.decoder.flow import Flow
from pipeline.decoder.model import Decoder, DecoderSizes
from pipeline.decoder.task import DecoderTask

__all__ = ["Decoder", "DecoderSizes", "DecoderTask", "Flow", "load_decoder", "save_decoder"]
