"""The embedding job: a reader yields rows, an encoder makes results of them, a writer stores them shard by shard."""
