"""Flow 1: from a function to its sparse derivative."""
