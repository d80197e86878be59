"""The pages of sweeps and studies: many sets of parameters."""
