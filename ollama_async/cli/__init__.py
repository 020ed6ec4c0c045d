"""The command line; speaks HTTP to a server and nothing else."""
