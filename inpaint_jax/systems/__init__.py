"""Whole models: networks, critic, losses and steps."""
