"""What makes the plain models quick on a GPU: kernels, products, graphs, batching."""
