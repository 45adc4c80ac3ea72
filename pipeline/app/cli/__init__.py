"""The command line `cir`."""
