"""What a user meets: the command line, the demo page, the search behind both, and the scoring of rankings."""
