"""What pre-training is worth: probe, benchmark and demo, each of which runs the public commands of the others."""
