"""What a person meets: the command line and how errors read."""
