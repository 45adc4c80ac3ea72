"""f_M (the multimodal LLM), E_text (the text encoder), and the CLIP and BLIP backbones."""
