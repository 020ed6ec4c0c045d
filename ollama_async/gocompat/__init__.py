"""Go's behaviour in Python: clients and model files were written for a server in Go."""
