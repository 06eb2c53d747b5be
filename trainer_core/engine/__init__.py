"""The training loop: what is drawn, predicted, lost, stepped, kept and told."""
