"""What ``pullback demo`` runs: programs of the kind a user would write."""
