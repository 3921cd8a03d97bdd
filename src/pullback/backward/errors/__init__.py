"""From an error of autograd to what the program did: a module per family of errors."""
