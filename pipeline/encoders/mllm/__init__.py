"""f_M, the multimodal LLM, behind one interface: transformers, vLLM, or a replica in every worker."""
