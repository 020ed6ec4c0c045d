"""What behaves as Go does, because clients and model files were made for a program in Go."""
