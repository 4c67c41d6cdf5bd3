"""The loaded base as solvers use it: branches of all sources beside its modules, its denoiser as a function, merges drawn by branches."""
