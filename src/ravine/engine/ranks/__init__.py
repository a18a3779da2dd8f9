"""Training over several processes: the folder that knows ``torch.distributed``."""
