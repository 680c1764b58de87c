"""GPUs: what is there, which are chosen, which image flavour can run on them."""
