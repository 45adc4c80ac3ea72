"""A multimodal LLM verifies the first answers: it sees reference, modification and one answer, and says yes or no."""
