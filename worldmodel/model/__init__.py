"""The network: codec, transformer, flow matching, and the number formats they compute in."""
