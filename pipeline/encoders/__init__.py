"""f_M (the multimodal LLM), E_text, and the CLIP and BLIP backbones."""
