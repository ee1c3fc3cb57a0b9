"""Floor 2: learn and infer.

    observation_encoder -> context tokens --(noise_levels, noise_schedule)--> denoiser -> plan
    diffusion_forcing: the loss        sampler: scheduling matrices, chunk and rolling
    training: the loop                 inference: one episode's state

`interface` is what deployment talks to and imports numpy only; importing this package imports no
torch.
"""
