"""Adding a method: the toy family of this module and one line in the registry make it a method like any other."""
