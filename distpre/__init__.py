"""distpre: distributed contrastive pretraining. Start at train.py, then ARCHITECTURE.md."""
