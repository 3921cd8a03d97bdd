"""Flow 2: from a tensor and a cotangent to what happened in its backward pass."""
