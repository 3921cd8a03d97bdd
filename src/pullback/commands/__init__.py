"""What the longer commands do: a file each, and what they share."""
