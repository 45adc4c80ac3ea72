"""The embedding job: reader, mapper, writer."""
