"""What a profile needs of the world: checkpoints, data sets, and a machine that can hold them."""
