"""What the diffusion transformer is told besides pixels: actions, states, cameras, noise level."""
