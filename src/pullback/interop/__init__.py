"""Where pullback meets other programs; each module needs what its name says."""
