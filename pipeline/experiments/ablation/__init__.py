"""DiffComp's ablations: what the tables of the supplement vary, trained and scored cell by cell."""
